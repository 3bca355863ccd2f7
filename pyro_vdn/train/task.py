"""A Pyro model, its guide and its loss as one Lightning module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import lightning.pytorch as lightning
import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_vdn.errors import RunFolderError, VDNError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn.observed import count_observed
from pyro_vdn.train.batches import Pair
from pyro_vdn.train.checkpoint import random_state, set_random_state
from pyro_vdn.train.held_out import find_outcome, held_out_density
from pyro_vdn.train.options import FitOptions

Program = Callable[..., Any]
MONITOR = "validation_nll"
"""Name of the quantity by which the best checkpoint is chosen."""
_VALIDATION_SEED = 20_000_003


class DivergedError(VDNError, ArithmeticError):
    """The loss or the parameters are no longer finite."""


class TrainingTask(lightning.LightningModule):
    """What Lightning trains: the loss of a model and a guide per observed target element.

    Model and guide are not registered as submodules, so that sites and parameters keep their
    names; their parameters are registered one by one.

    Args:
        model: The Pyro program, with any effects wrapped around it.
        guide: Its guide.
        loss: An ELBO of Pyro or of this library with a ``differentiable_loss``.
        options: The numbers of the run.
        batch: Inputs and targets of a few rows, for parameters that are made at the first run.
    """

    def __init__(
        self, model: Program, guide: Program, loss: ELBO, options: FitOptions, batch: Pair
    ) -> None:
        super().__init__()
        self.programs = (model, guide)  # a tuple keeps torch from registering them
        self.loss = loss
        self.options = options
        self.outcome = find_outcome(model, batch)
        self.late = _parameters_made_late(model, guide, loss, batch)
        held: dict[Tensor, None] = {}
        for module in self._modules_held().values():
            held.update(dict.fromkeys(module.parameters()))
        held.update(dict.fromkeys(self.late.values()))
        self.held = nn.ParameterList([value for value in held if isinstance(value, nn.Parameter)])
        # `pyro.param` makes plain leaf tensors, which a ParameterList would copy.
        self.leaves = [value for value in held if not isinstance(value, nn.Parameter)]
        self.random_state: dict[str, Tensor] | None = None
        self._training_modes: list[tuple[nn.Module, bool]] = []

    def _modules_held(self) -> dict[str, nn.Module]:
        bare = {"model": pyro.poutine.unwrap(self.programs[0]), "guide": self.programs[1]}
        bare["guide"] = pyro.poutine.unwrap(bare["guide"])
        return {name: part for name, part in bare.items() if isinstance(part, nn.Module)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrainingTask:
        """Move parameters and, in the modules that are not registered, buffers."""
        super()._apply(fn, recurse)
        for module in self._modules_held().values():
            module._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return every parameter and buffer under ``model.``, ``guide.`` or ``param.``."""
        state: dict[str, Any] = {}
        for name, module in self._modules_held().items():
            state.update({f"{name}.{key}": value for key, value in module.state_dict().items()})
        state.update({f"param.{name}": value.detach() for name, value in self.late.items()})
        return state

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> None:
        """Copy what `state_dict` returned into the tensors of model and guide."""
        try:
            for name, module in self._modules_held().items():
                own = {k: v for k, v in state_dict.items() if k.startswith(f"{name}.")}
                module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in own.items()})
            with torch.no_grad():
                for name, value in self.late.items():
                    value.copy_(state_dict[f"param.{name}"])
        except (RuntimeError, KeyError) as error:
            raise RunFolderError(
                "checkpoint: expected the parameters of this model, got those of another model "
                f"({error}). Try: the model that the checkpoint was made with, or a new run."
            ) from error

    def configure_optimizers(self) -> Any:
        """Return AdamW with the rate of `FitOptions.rate`."""
        options = self.options
        optimizer = torch.optim.AdamW(
            self._decayed([*self.held, *self.leaves]),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: options.rate(step) / options.learning_rate
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _decayed(self, parameters: list[Tensor]) -> list[Any]:
        """Return the parameters, in two groups where only matrices are to decay."""
        if self.options.decay == "all":
            return parameters
        matrices = [value for value in parameters if value.dim() >= 2]
        others = [value for value in parameters if value.dim() < 2]
        groups: list[Any] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def on_train_start(self) -> None:
        """Seed the noise of this process, or continue with the noise of the run resumed."""
        if self.random_state is None:
            pyro.set_rng_seed(self.options.seed + self.global_rank)
        else:
            every = self.random_state
            rank = self.global_rank
            set_random_state({name: value[rank] for name, value in every.items()})
        for module in self._modules_held().values():
            module.train()

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        """Return the loss per target element of a batch."""
        x, y = batch
        try:
            loss = self.loss.differentiable_loss(*self.programs, x, y) / count_observed(y)
        except (ValueError, RuntimeError) as error:  # a distribution or a solver was given NaN
            if isinstance(error, VDNError) or self._finite():
                raise
            raise self._diverged("nan") from error
        if not math.isfinite(loss.item()):
            raise self._diverged(str(loss.item()))
        self.log("train_loss", loss.detach(), prog_bar=True)
        return torch.as_tensor(loss)

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(value).all()) for value in (*self.held, *self.leaves))

    def _diverged(self, value: str) -> DivergedError:
        return DivergedError(
            f"fit: expected a finite loss, got {value} at step {self.global_step}, counted from 0; "
            "the best checkpoint before it is kept. Try: a smaller learning_rate or clip, more "
            "warmup_steps, or a floor under every scale."
        )

    def on_validation_model_eval(self) -> None:
        """Put model and guide into evaluation mode, remembering the mode of every part."""
        super().on_validation_model_eval()
        self._training_modes = [
            (part, part.training)
            for held in self._modules_held().values()
            for part in held.modules()
        ]
        for module in self._modules_held().values():
            module.eval()

    def on_validation_model_train(self) -> None:
        """Give every part of model and guide its mode back."""
        super().on_validation_model_train()
        for part, mode in self._training_modes:
            part.training = mode

    def validation_step(self, batch: Pair, batch_idx: int) -> None:
        """Log the scores of a batch: the averaged predictive density, and the true ELBO per row."""
        x, y = batch
        model, guide = self.programs
        # Noise of its own, the same at every evaluation: scores compare, and training is not moved.
        with torch.random.fork_rng(devices=_own_gpu(self.device)):
            torch.manual_seed(_VALIDATION_SEED + batch_idx)
            samples = self.options.validation_samples
            per_output, joint = held_out_density(
                model, guide, x, y, self.outcome, num_samples=samples
            )
            elbo = LocalELBO().terms(model, guide, x, y).elbo
        count = count_observed(y)
        joint_nll = -joint.sum() / count
        scores = {
            MONITOR: joint_nll if per_output is None else -_sum_observed(per_output, y) / count,
            "validation_joint_nll": joint_nll,
        }
        self.log_dict(scores, batch_size=count, on_epoch=True, sync_dist=True)
        elbo_per_row = {"validation_elbo_per_row": elbo / len(x)}
        self.log_dict(elbo_per_row, batch_size=len(x), on_epoch=True, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random state of every process."""
        own = {name: value.to(self.device) for name, value in random_state().items()}
        every = self.all_gather(own) if self.trainer.world_size > 1 else _with_rank(own)
        checkpoint["random_state"] = {name: value.cpu() for name, value in every.items()}
        checkpoint["options"] = {"seed": self.options.seed, "batch_size": self.options.batch_size}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the random states; they are set when training starts."""
        self.random_state = checkpoint["random_state"]


class RowBatches:
    """The validation rows in order, in batches; each process takes its own stretch of them.

    Args:
        data: Inputs and targets.
        batch_size: Rows per batch.
        rank: Number of this process.
        world_size: Number of processes.

    Example:
        >>> batches = RowBatches((torch.zeros(5, 1), torch.zeros(5, 1)), 2)
        >>> len(batches), [len(x) for x, y in batches]
        (3, [2, 2, 1])
    """

    def __init__(self, data: Pair, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.data = data
        self.batch_size = batch_size
        # Stretches differ by a row at most: nothing is padded, so no score is shifted.
        self.begin, self.end = (len(data[0]) * r // world_size for r in (rank, rank + 1))

    def __len__(self) -> int:
        """Count the batches."""
        return -(-(self.end - self.begin) // self.batch_size)

    def __iter__(self) -> Iterator[Pair]:
        """Go through the batches."""
        x, y = self.data
        for start in range(self.begin, self.end, self.batch_size):
            rows = slice(start, min(start + self.batch_size, self.end))
            yield x[rows], y[rows]


def _parameters_made_late(
    model: Program, guide: Program, loss: ELBO, batch: Pair
) -> dict[str, Tensor]:
    """Run the loss once and return the parameters of `pyro.param` that no module holds."""
    with torch.random.fork_rng(), pyro.poutine.trace(param_only=True) as capture:
        loss.differentiable_loss(model, guide, *batch)
    modules = [pyro.poutine.unwrap(program) for program in (model, guide)]
    known = {
        id(value)
        for module in modules
        if isinstance(module, nn.Module)
        for value in module.parameters()
    }
    late = {}
    for name, site in capture.trace.nodes.items():
        value = site["value"]
        unconstrained = getattr(value, "unconstrained", None)
        leaf = value if unconstrained is None else unconstrained()
        if leaf.is_leaf and leaf.requires_grad and id(leaf) not in known:
            late[name] = leaf
    return late


def _sum_observed(values: Tensor, y: Tensor) -> Tensor:
    """Sum what belongs to targets that are there; a NaN among these is the model's, and stays."""
    return values.masked_fill(y.isnan(), 0.0).sum()


def _own_gpu(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _with_rank(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.unsqueeze(0) for name, value in state.items()}
