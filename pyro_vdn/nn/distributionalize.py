"""Turn an existing network into a distributional one."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pyro_vdn.errors import InputError
from pyro_vdn.nn.neurons import VariationalNeurons
from pyro_vdn.nn.posteriors import NormalPosterior
from pyro_vdn.nn.priors import LearnedNormal

#: Name under which the neurons are registered in the submodule they follow.
NEURONS = "neurons"


def distributionalize(
    module: nn.Module,
    where: str | Sequence[str],
    *,
    example_inputs: Sequence[Any] | None = None,
    initial_scale: float = 1e-2,
) -> nn.Module:
    """Insert neurons after chosen submodules of any network, in place, so that it starts as itself.

    After each match the activation `a` becomes `z_i ~ Normal(a_i, sigma_i^2)`: location the
    activation, one small learned scale per unit, a learned normal prior. The original submodules,
    weights and state-dict keys are kept; neurons are registered as ``<submodule>.neurons`` and
    their sites are called ``<submodule>.neurons.z``. Inside a Pyro model the result works with
    `NeuronGuide`, every loss and every effect; `deterministic` gives the original network back.

    Args:
        module: The network.
        where: Shell-style patterns of dotted submodule names, such as ``"encoder.*"`` or ``["0",
            "2"]``.
        example_inputs: Positional inputs for one forward pass, needed where the width of a match
            cannot be read off (activations and composite modules).
        initial_scale: Scale of every unit at the start, positive.

    Returns:
        The same module.

    Raises:
        InputError: Where a pattern matches nothing, a match has neurons already, or its width is
            unknown.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> net = distributionalize(net, "1", example_inputs=[torch.zeros(2, 3)])
        >>> net[1].neurons
        VariationalNeurons(
          8, 8, latent_dim=1, pool='mean'
          (prior): LearnedNormal()
          (posterior): NormalPosterior(
            (loc): Identity()
            (raw_scale): _Constant()
          )
        )
    """
    patterns = [where] if isinstance(where, str) else list(where)
    matches = _matches(module, patterns)
    widths = _widths(module, matches, example_inputs)
    for name, submodule in matches.items():
        posterior = NormalPosterior("unit", loc="identity", initial_scale=initial_scale)
        neurons = VariationalNeurons(
            widths[name], widths[name], prior=LearnedNormal(), posterior=posterior
        )
        reference = next(module.parameters(), torch.zeros(()))
        submodule.register_module(NEURONS, neurons.to(reference.device, reference.dtype))
        submodule.register_forward_hook(_through_neurons)
    return module


def _through_neurons(submodule: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Send a submodule's output through its neurons; a plain function, so that copies work."""
    z: Tensor = submodule.get_submodule(NEURONS)(output)
    return z


def _matches(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    named = {name: submodule for name, submodule in module.named_modules() if name}
    matches: dict[str, nn.Module] = {}
    for pattern in patterns:
        found = {name: sub for name, sub in named.items() if fnmatchcase(name, pattern)}
        if not found:
            raise InputError(
                "where",
                expected=f"a pattern that matches one of {list(named)}",
                got=repr(pattern),
                hint="print([name for name, _ in module.named_modules()])",
            )
        matches |= dict(_behind(name, submodule) for name, submodule in found.items())
    for name, submodule in matches.items():
        if NEURONS in dict(submodule.named_children()):
            raise InputError(
                "where",
                expected=f"a submodule without a child called '{NEURONS}'",
                got=repr(name),
                hint="distributionalize each submodule once",
            )
    return matches


def _behind(name: str, submodule: nn.Module) -> tuple[str, nn.Module]:
    """Return the submodule that a match ends with: a child of a Sequential would be run by it."""
    while isinstance(submodule, nn.Sequential) and len(submodule):
        last = list(submodule._modules)[-1]
        name, submodule = f"{name}.{last}", submodule[-1]
    if isinstance(submodule, _ConvNd):
        raise InputError(
            "where",
            expected="submodules whose last dimension is their units",
            got=f"'{name}', a convolution, whose channels are not last",
            hint="choose a linear layer, or one behind a permutation",
        )
    return name, submodule


def _widths(
    module: nn.Module, matches: dict[str, nn.Module], example_inputs: Sequence[Any] | None
) -> dict[str, int]:
    if example_inputs is not None:
        return _observed_widths(module, matches, example_inputs)
    widths = {}
    for name, submodule in matches.items():
        width = getattr(submodule, "out_features", None)
        if not isinstance(width, int):
            raise InputError(
                "example_inputs",
                expected=f"inputs to learn the width of '{name}' ({type(submodule).__name__}) from",
                got="None",
                hint="example_inputs=[x] with a small batch x",
            )
        widths[name] = width
    return widths


def _observed_widths(
    module: nn.Module, matches: dict[str, nn.Module], example_inputs: Sequence[Any]
) -> dict[str, int]:
    widths: dict[str, int] = {}

    def observe(name: str) -> Any:
        def hook(submodule: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() > 0:
                widths[name] = output.shape[-1]

        return hook

    handles = [sub.register_forward_hook(observe(name)) for name, sub in matches.items()]
    try:
        with torch.no_grad():
            module(*example_inputs)
    finally:
        for handle in handles:
            handle.remove()
    for name in matches:
        if name not in widths:
            raise InputError(
                "where",
                expected="submodules that return one tensor for the example inputs",
                got=repr(name),
                hint="choose a submodule inside it",
            )
    return widths
