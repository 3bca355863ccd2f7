from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest

from pyro_vdn import __version__
from pyro_vdn.diagnostics.export.arrays_to_arviz import SAMPLE_GROUPS, arrays_to_arviz
from pyro_vdn.errors import InputError

ARVIZ_1 = int(arviz.__version__.split(".")[0]) >= 1
DIMS = {"neurons.z": ["row", "unit", "latent"], "y": ["row", "step"], "kl": ["unit"]}
COORDS = {"unit": ["a", "b", "c"], "step": np.array([24, 48])}


def groups() -> dict[str, dict[str, Any]]:
    random = np.random.default_rng(0)
    return {
        "posterior": {"neurons.z": random.normal(size=(30, 4, 3, 1))},
        "posterior_predictive": {"y": random.normal(size=(50, 4, 2))},
        "log_likelihood": {"y": random.normal(size=(30, 4, 2))},
        "observed_data": {"y": random.normal(size=(4, 2))},
        "constant_data": {"x": np.arange(8.0, dtype=np.float32).reshape(4, 2)},
        "unit_stats": {"kl": np.array([0.1, 0.0, 2.0]), "active": np.array([True, False, True])},
    }


def whole(**change: Any) -> Any:
    given = {"dims": DIMS, "coords": COORDS, **change}
    return arrays_to_arviz(given.pop("groups", groups()), **given)


def test_container_is_that_of_the_installed_version() -> None:
    assert type(whole()).__name__ == ("DataTree" if ARVIZ_1 else "InferenceData")


@pytest.mark.parametrize("group", sorted(groups()))
def test_every_group_keeps_its_values(group: str) -> None:
    data = whole()[group]
    assert set(data.data_vars) == set(groups()[group])
    for name, values in groups()[group].items():
        stored = data[name].values[0] if group in SAMPLE_GROUPS else data[name].values
        np.testing.assert_array_equal(stored, values)
        assert stored.dtype == values.dtype


def test_dimensions_and_labels_are_named() -> None:
    data = whole()
    assert data["posterior"]["neurons.z"].dims == ("chain", "draw", "row", "unit", "latent")
    assert data["observed_data"]["y"].dims == ("row", "step")
    assert data["constant_data"]["x"].dims == ("x_dim_0", "x_dim_1")
    assert data["posterior"]["row"].values.tolist() == [0, 1, 2, 3]
    assert data["posterior_predictive"]["draw"].values.tolist() == list(range(50))
    at_48 = data["posterior_predictive"]["y"].sel(step=48).values[0]
    np.testing.assert_array_equal(at_48, groups()["posterior_predictive"]["y"][..., 1])
    unit_b = data["unit_stats"]["kl"].sel(unit="b")
    assert float(unit_b) == 0.0


def test_a_group_has_dims_and_labels_of_its_own() -> None:
    data = arrays_to_arviz(
        {
            "posterior": {"scale": np.zeros((3, 2))},
            "unit_stats": {"scale": np.ones(4), "kl": [5.0]},
        },
        dims={"scale": ["unit"], "unit_stats": {"scale": ["layer"]}},
        coords={"layer": list("wxyz"), "posterior": {"unit": ["c", "d"]}, "unit_stats": {}},
    )
    assert data["posterior"]["scale"].dims == ("chain", "draw", "unit")
    assert data["posterior"]["unit"].values.tolist() == ["c", "d"]
    assert data["unit_stats"]["scale"].dims == ("layer",)
    assert data["unit_stats"]["kl"].dims == ("kl_dim_0",)


def test_attributes_name_the_library_and_belong_to_their_group() -> None:
    data = whole(attrs={"seed": 3, "log_likelihood": {"meaning": "conditional"}})
    assert data.attrs["inference_library"] == "pyro-vdn"
    assert data.attrs["inference_library_version"] == __version__
    assert data.attrs["seed"] == 3
    assert "log_likelihood" not in data.attrs
    assert data["log_likelihood"].attrs["meaning"] == "conditional"
    assert "meaning" not in data["posterior"].attrs
    assert data["posterior"].attrs["inference_library_version"] == __version__


def test_arviz_reads_the_result() -> None:
    summary = arviz.summary(whole(), kind="stats", var_names=["neurons.z"])
    mean = groups()["posterior"]["neurons.z"].mean(0).ravel()
    np.testing.assert_allclose(summary["mean"].astype(float), mean, atol=6e-3)


def test_a_tensor_with_gradient_is_read() -> None:
    torch = pytest.importorskip("torch")
    data = arrays_to_arviz({"posterior": {"z": torch.ones(5, 2, requires_grad=True)}})
    np.testing.assert_array_equal(data["posterior"]["z"].values, np.ones((1, 5, 2)))


def test_scalars_and_strings_are_stored() -> None:
    data = arrays_to_arviz({"constant_data": {"beta": 0.5, "name": np.array(["u", "v"])}})
    assert float(data["constant_data"]["beta"]) == 0.5
    assert data["constant_data"]["name"].values.tolist() == ["u", "v"]


def test_import_is_silent_on_the_first_use_of_a_day(tmp_path: Path) -> None:
    # A bare package: what is imported here needs none of the others.
    program = (
        "import pyro_vdn, sys, types\n"
        "package = sys.modules['pyro_vdn.diagnostics'] = types.ModuleType('pyro_vdn.diagnostics')\n"
        "package.__path__ = [pyro_vdn.__path__[0] + '/diagnostics']\n"
        "from pyro_vdn.diagnostics.export.arrays_to_arviz import arrays_to_arviz\n"
        "assert not {'arviz', 'torch'} & set(sys.modules)\n"
        "arrays_to_arviz({'posterior': {'z': [0.0, 1.0]}})\n"
    )
    # A fresh cache folder has no stamp of today.
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-W", "error::FutureWarning", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ARVIZ_1 or list(tmp_path.rglob("daily_warning"))  # the announcement was due


def plain(**variables: Any) -> dict[str, dict[str, Any]]:
    return {"posterior": variables}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"groups": {}}, r"groups: expected at least one group"),
        ({"groups": {"prior": {}}}, r"groups\['prior'\]: expected at least one variable"),
        ({"groups": {"a/b": {"z": [1.0]}}}, r"non-empty names without '/', got 'a/b'"),
        ({"groups": plain(**{"a/z": [1.0]})}, r"non-empty names without '/', got 'a/z'"),
        ({"groups": plain(z=1.0)}, r"\['z'\]: expected shape \(draw, ...\)"),
        ({"groups": plain(z=np.zeros((0, 2)))}, r"\['z'\]: expected shape \(draw, ...\)"),
        ({"groups": plain(z=[1.0], w=[1.0, 2.0])}, r"\['w'\]: .* as many draws as 'z' has"),
        ({"groups": plain(z=[object()])}, r"\['z'\]: .* got dtype object"),
        ({"dims": {**DIMS, "zz": ["row"]}}, r"dims: expected names among .* got 'zz'"),
        ({"dims": {**DIMS, "y": ["row"]}}, r"\['y'\]: expected 2 dimension names, .*\('row',\)"),
        ({"dims": {**DIMS, "y": ["row", "row"]}}, r"\['y'\]: expected 2 dimension names, distinct"),
        ({"dims": {**DIMS, "kl": ["kl"]}}, r"\['kl'\]: .* none the variable's own"),
        ({"coords": {"unit": ["a"]}}, r"\['neurons.z'\]: expected 1 along 'unit', got 3"),
        ({"coords": {"layer": [1]}}, r"coords: expected names among .* got 'layer'"),
        ({"dims": {**DIMS, "prior": {}}}, r"dims: expected names among .* got 'prior'"),
        (
            {"dims": {**DIMS, "unit_stats": {"y": ["row"]}}},
            r"dims\['unit_stats'\]: expected names among \['active', 'kl'\], got 'y'",
        ),
        (
            {"coords": {**COORDS, "unit_stats": {"step": [1, 2]}}},
            r"coords\['unit_stats'\]: expected names among .* got 'step'",
        ),
        ({"attrs": {"prior": {"seed": 1}}}, r"attrs: expected names among .* got 'prior'"),
        (
            {
                "groups": plain(z=np.zeros((3, 2)), w=np.zeros((3, 5))),
                "dims": {"z": ["unit"], "w": ["unit"]},
                "coords": {},
            },
            r"\['w'\]: expected 2 along 'unit', got 5",
        ),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], text: str) -> None:
    if "groups" in change:
        change = {"dims": {}, "coords": {}, **change}
    with pytest.raises(InputError, match=text):
        whole(**change)
