"""Program-level guides for models with distributional neurons."""

from pyro_vdn.guides.markov import FilteringPosterior, SmoothingPosterior, StructuredPosterior
from pyro_vdn.guides.neuron import NeuronGuide, without_neurons

__all__ = [
    "FilteringPosterior",
    "NeuronGuide",
    "SmoothingPosterior",
    "StructuredPosterior",
    "without_neurons",
]
