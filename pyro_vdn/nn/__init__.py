"""The forward path: neurons, their parts, and what stands before and behind them."""

from pyro_vdn.nn.autoregressive import AutoregressiveNormal
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.distributionalize import distributionalize
from pyro_vdn.nn.divergence import closed_form_kl, neuron_kl
from pyro_vdn.nn.encoders import MLPEncoder, TrendSeasonalEncoder, Window, normalise_window
from pyro_vdn.nn.integrated import Integrated, LinearMoments
from pyro_vdn.nn.likelihoods import (
    CategoricalLikelihood,
    MultivariateNormalLikelihood,
    MultivariateStudentTLikelihood,
    NegativeBinomialLikelihood,
    NormalLikelihood,
    StudentTLikelihood,
)
from pyro_vdn.nn.local import LocalDecoder
from pyro_vdn.nn.low_rank import LowRankStudentT
from pyro_vdn.nn.moments import Moments, relu_moments
from pyro_vdn.nn.neurons import VariationalNeurons
from pyro_vdn.nn.posteriors import NormalPosterior
from pyro_vdn.nn.priors import ConditionalNormal, LearnedNormal, StandardNormal
from pyro_vdn.nn.readouts import LinearReadout, Units
from pyro_vdn.nn.scales import OutputScale
from pyro_vdn.nn.shapes import LayerShape
from pyro_vdn.nn.transformer import CausalSelfAttention, TransformerBlock

__all__ = [
    "AutoregressiveNormal",
    "CategoricalLikelihood",
    "CausalSelfAttention",
    "ConditionalNormal",
    "GaussianChain",
    "Integrated",
    "LayerShape",
    "LearnedNormal",
    "LinearMoments",
    "LinearReadout",
    "LocalDecoder",
    "LowRankStudentT",
    "MLPEncoder",
    "Moments",
    "MultivariateNormalLikelihood",
    "MultivariateStudentTLikelihood",
    "NegativeBinomialLikelihood",
    "NormalLikelihood",
    "NormalPosterior",
    "OutputScale",
    "StandardNormal",
    "StudentTLikelihood",
    "TransformerBlock",
    "TrendSeasonalEncoder",
    "Units",
    "VariationalNeurons",
    "Window",
    "closed_form_kl",
    "distributionalize",
    "neuron_kl",
    "normalise_window",
    "relu_moments",
]
