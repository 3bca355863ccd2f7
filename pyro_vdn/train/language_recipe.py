"""The recipe of a language model: every hyper-parameter in one frozen place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import pyro

from pyro_vdn.datasets.text_splits import TokenizerKind
from pyro_vdn.infer import PACmELBO
from pyro_vdn.models import VariationalGPT
from pyro_vdn.models.language import TokenPrior, TokenScale
from pyro_vdn.poutine import deterministic, dropout, kl_weight, scale_noise, share_noise
from pyro_vdn.train.members import Compared, Units
from pyro_vdn.train.options import Decay

Program = Callable[..., Any]
_LEAST_NOISE = 1e-3


class Annealed(NamedTuple):
    """A program and the effect in it whose noise rises over the run.

    Args:
        program: The program with its effects.
        noise: The effect; None where there is nothing to anneal.
        number: Name of the number of the effect that rises.
        schedule: From the number of steps taken to its value.

    Example:
        >>> LanguageRecipe.few_data().build_model(65).noise.amount
        0.9
    """

    program: Program
    noise: Any = None
    number: str = "amount"
    schedule: Callable[[int], float] = float


@dataclass(frozen=True, kw_only=True)
class LanguageRecipe(Compared):
    r"""The recipe of `pyro_vdn.models.VariationalGPT`, at the small setting of nanoGPT.

    The objective is the average predictive probability of every next token over `num_particles`
    draws, with `kl` times the KL of the neurons. Where that is 0 learned priors are matched to what
    the neurons do, before every evaluation. Where `noise_end` is given, the noise is multiplied by
    a factor that stays near 0 until a share `noise_begin` of the run is over and then rises
    linearly to it.

    By default the noise of a unit is a share of its location, drawn once per sequence, and the
    share rises from 40 % of the run on, to 0.2. The probability of MC dropout rises likewise.

    Args:
        references: What is trained beside the neurons; see `Compared`.
        dropout: Probability of dropping a unit in MC dropout, at the end of the run.
        ensemble_size: Number of networks of the ensemble.
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
        learn_scales: Whether the scales are learned, or stay as they start.
        noise_end: Factor on the scales at the end of the run; None for no annealing.
        noise_begin: Share of the run after which the factor rises, in [0, 1).
        shared: Whether all tokens of a sequence share the noise of a unit.
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
        >>> recipe.noise_end, LanguageRecipe.few_data().noise_end, LanguageRecipe.few_data().share
        (0.2, 0.9, 0.1)

    Source:
        Karpathy, *nanoGPT* (2022), for sizes and optimiser.
    """

    task: ClassVar[str] = "language"
    dropout: float = 0.04
    tokenizer: TokenizerKind = "char"
    vocab_size: int = 1024
    share: float = 1.0
    block_size: int = 64
    num_layers: int = 4
    num_heads: int = 4
    width: int = 128
    neuron_layers: tuple[int, ...] | None = None
    prior: TokenPrior = "learned"
    scale: TokenScale = "relative"
    initial_scale: float = 1.0
    learn_scales: bool = False
    noise_end: float | None = 0.2
    noise_begin: float = 0.4
    shared: bool = True
    kl: float = 0.0
    num_particles: int = 1
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
        """Return the recipe for little text: more noise, and more dropout.

        Args:
            share: Share of the training part that is kept.
        """
        return cls(share=share, noise_end=0.9, dropout=0.45)

    def demo(self) -> LanguageRecipe:
        """Return the recipe with the budget of a demonstration: minutes on two cores."""
        smaller = replace(self, num_layers=2, width=64, test_every=8, validation_blocks=48)
        return smaller.with_steps(600)

    def loss(self, units: Units = "neurons") -> PACmELBO:
        """Return the objective; that of points needs one particle."""
        return PACmELBO(1 if units == "points" else self.num_particles)

    def build_model(
        self, vocab_size: int, seed: int = 0, *, units: Units = "neurons", step: int | None = None
    ) -> Annealed:
        """Make a fresh model, wrapped as it is trained; twins start from the same weights.

        Args:
            vocab_size: Number of tokens.
            seed: Seed of the initial weights; the global random state is set.
            units: What the hidden units are.
            step: Steps taken to the weights it is to get, which say how much noise there is; None
                for all of it.

        Returns:
            A program called as ``model(tokens, targets)``, and what is annealed.
        """
        model = self._network(vocab_size, seed)
        if units == "points":
            return Annealed(deterministic(model))
        last = self.max_steps if step is None else max(0, step - 1)
        if units == "dropout":
            dropping = dropout(p=self.dropping(last))
            return Annealed(self._sharing(dropping(model)), dropping, "p", self.dropping)
        noise = None if self.noise_end is None else scale_noise(factor=self.noise(last))
        program = self._sharing(model if noise is None else noise(model))
        return Annealed(kl_weight(program, self.kl), noise, "amount", self.noise)

    def _network(self, vocab_size: int, seed: int) -> VariationalGPT:
        pyro.set_rng_seed(seed)
        model: VariationalGPT = VariationalGPT(
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
        return model

    def _sharing(self, program: Program) -> Program:
        """Let all tokens of a sequence share the noise of a unit, where they do."""
        shared: Program = share_noise(program) if self.shared else program
        return shared

    def noise(self, step: int) -> float:
        """Return the factor on the scales, from the number of steps taken."""
        end = 1.0 if self.noise_end is None else self.noise_end
        return max(_LEAST_NOISE, end * self._begun(step))  # at 0 there is no KL in closed form

    def dropping(self, step: int) -> float:
        """Return the probability of dropping a unit, from the number of steps taken."""
        return self.dropout * (1.0 if self.noise_end is None else max(0.0, self._begun(step)))

    def _begun(self, step: int) -> float:
        """Return which share of the rise is over, below 0 before it."""
        return (step / self.max_steps - self.noise_begin) / (1 - self.noise_begin)

    @property
    def matches_priors(self) -> bool:
        """Whether priors are to be matched to what the neurons do, as no KL trains them."""
        return self.kl == 0 and self.prior == "learned" and self.neuron_layers != ()
