from __future__ import annotations

from collections.abc import Iterator

import pyro
import pytest
import torch

torch.set_num_threads(1)  # small cases: threads would only wait for each other


@pytest.fixture(autouse=True)
def _clean_pyro(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give every test float64, a seed, validation and an empty store; restore settings after."""
    settings, dtype = pyro.settings.get(), torch.get_default_dtype()
    if "diagnostics" not in request.path.parts:  # they take arrays, and choose the dtype of each
        torch.set_default_dtype(torch.float64)
    pyro.settings.set(validate_distributions_pyro=True, validate_infer=True)
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()
    pyro.settings.set(**settings)
    torch.set_default_dtype(dtype)
