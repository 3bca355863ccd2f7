"""Reusable test cases: models with known answers, and programs written out by hand."""

from pyro_vdn.testing.cases import (
    NeuronStack,
    hand_written_guide,
    loss_and_grads,
    posterior_by_hand,
    randomise,
)
from pyro_vdn.testing.conjugate import ConjugateNeurons, orthogonal_columns
from pyro_vdn.testing.kalman import LinearGaussianChain, Simulated
from pyro_vdn.testing.memory import FixedNoise, MemoryNet
from pyro_vdn.testing.states import same_state

__all__ = [
    "ConjugateNeurons",
    "FixedNoise",
    "LinearGaussianChain",
    "MemoryNet",
    "NeuronStack",
    "Simulated",
    "hand_written_guide",
    "loss_and_grads",
    "orthogonal_columns",
    "posterior_by_hand",
    "randomise",
    "same_state",
]
