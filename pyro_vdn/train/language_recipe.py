"""The recipe of a language model: every hyper-parameter in one frozen place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import pyro

from pyro_vdn.control import linear_warmup
from pyro_vdn.datasets.text_splits import TokenizerKind
from pyro_vdn.infer import PACmELBO
from pyro_vdn.models import VariationalGPT
from pyro_vdn.models.language import TokenPrior, TokenScale
from pyro_vdn.poutine import deterministic, kl_weight, scale_noise
from pyro_vdn.poutine.noise import NoiseMessenger
from pyro_vdn.train.hyper_parameters import HyperParameters
from pyro_vdn.train.options import Decay

Program = Callable[..., Any]


class Annealed(NamedTuple):
    """A program and the effect in it whose noise rises over the run.

    Args:
        program: The program with its effects.
        noise: The effect; None where there is nothing to anneal.

    Example:
        >>> LanguageRecipe.few_data().build_model(65).noise.amount
        1.0
    """

    program: Program
    noise: NoiseMessenger | None


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe(HyperParameters):
    r"""The recipe of `pyro_vdn.models.VariationalGPT`, at the small setting of nanoGPT.

    The objective is the average predictive probability of every next token over `num_particles`
    draws, with `kl` times the KL of the neurons; the noise of the neurons rises linearly from
    `noise_start` of its scale to all of it over the run.

    Args:
        tokenizer: ``"char"``, ``"byte"`` or ``"bpe"``.
        vocab_size: Number of tokens of a ``"bpe"``.
        share: Share of the training part of the text that is kept, from its beginning.
        block_size: Tokens of a sequence.
        num_layers: Blocks.
        num_heads: Attention heads.
        width: Size of a token's representation.
        neuron_layers: Which blocks have distributional units, from 0; None for all.
        prior: Prior of the units.
        scale: What the scale of the units depends on.
        initial_scale: Scale of every unit at the start.
        noise_start: Factor on the scales at the first step, in (0, 1]; 1 for no annealing.
        kl: Weight of the KL.
        num_particles: Draws per training step.
        max_steps: Gradient steps.
        batch_size: Sequences per step.
        learning_rate: Peak rate.
        betas: Decay rates of AdamW's moments.
        weight_decay: Decoupled weight decay of matrices.
        decay: Which parameters decay.
        warmup_steps: Steps of warm-up before the cosine decay.
        clip: Largest norm of the gradient.
        evaluate_every: Steps between evaluations.
        patience: Evaluations without progress before training stops; None for never.
        validation_blocks: Blocks, spread over the validation part, to choose the checkpoint by.
        validation_samples: Draws per token for that.
        test_every: Report on every n-th block of the test part.
        num_samples: Draws per token at evaluation.

    Example:
        >>> recipe = LanguageRecipe()
        >>> recipe.neuron_layers, recipe.num_particles, LanguageRecipe.few_data().share
        ((3,), 4, 0.1)

    Source:
        Karpathy, *nanoGPT* (2022), for sizes and optimiser.
    """

    task: ClassVar[str] = "language"
    tokenizer: TokenizerKind = "char"
    vocab_size: int = 1024
    share: float = 1.0
    block_size: int = 64
    num_layers: int = 4
    num_heads: int = 4
    width: int = 128
    neuron_layers: tuple[int, ...] | None = (3,)
    prior: TokenPrior = "learned"
    scale: TokenScale = "unit"
    initial_scale: float = 0.1
    noise_start: float = 1.0
    kl: float = 1e-4
    num_particles: int = 4
    max_steps: int = 2000
    batch_size: int = 12
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    decay: Decay = "matrices"
    warmup_steps: int = 100
    clip: float = 1.0
    evaluate_every: int = 250
    patience: int | None = None
    validation_blocks: int = 96
    validation_samples: int = 8
    test_every: int = 1
    num_samples: int = 16

    @classmethod
    def few_data(cls, share: float = 0.1) -> LanguageRecipe:
        """Return the recipe for little text: noise in all blocks, in proportion to the activation.

        Args:
            share: Share of the training part that is kept.
        """
        return cls(
            share=share,
            neuron_layers=None,
            prior="standard",
            scale="relative",
            initial_scale=0.7,
            noise_start=0.01,
            kl=0.0,
            num_particles=1,
        )

    def demo(self) -> LanguageRecipe:
        """Return the recipe with the budget of a demonstration: minutes on two cores."""
        smaller = replace(
            self,
            num_layers=2,
            width=64,
            neuron_layers=None if self.neuron_layers is None else (1,),
            test_every=8,
            validation_blocks=48,
        )
        return smaller.with_steps(600)

    def loss(self, *, twin: bool = False) -> PACmELBO:
        """Return the objective; that of the twin needs one particle."""
        return PACmELBO(1 if twin else self.num_particles)

    def build_model(
        self, vocab_size: int, seed: int = 0, *, twin: bool = False, step: int | None = None
    ) -> Annealed:
        """Make a fresh model, wrapped as it is trained; the twin starts from the same weights.

        Args:
            vocab_size: Number of tokens.
            seed: Seed of the initial weights; the global random state is set.
            twin: Whether to make the deterministic twin.
            step: Steps taken to the weights it is to get, which say how much noise there is; None
                for all of it.

        Returns:
            A program called as ``model(tokens, targets)``, and what is annealed.
        """
        pyro.set_rng_seed(seed)
        model = VariationalGPT(
            vocab_size,
            block_size=self.block_size,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            width=self.width,
            neuron_layers=self.neuron_layers,
            prior=self.prior,
            scale=self.scale,
            initial_scale=self.initial_scale,
        ).float()
        if twin:
            return Annealed(deterministic(model), None)
        program = kl_weight(model, self.kl)
        if self.noise_start == 1.0:
            return Annealed(program, None)
        noise = scale_noise(factor=1.0 if step is None else self.noise(max(0, step - 1)))
        return Annealed(noise(program), noise)

    @property
    def noise(self) -> Callable[[int], float]:
        """The factor on the scales, from the number of steps taken."""
        return partial(linear_warmup, steps=self.max_steps, start=self.noise_start)
