"""Program-level guides for models with distributional neurons."""

from pyro_vdn.guides.neuron import NeuronGuide, without_neurons

__all__ = ["NeuronGuide", "without_neurons"]
