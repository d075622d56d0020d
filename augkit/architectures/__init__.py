"""Networks and layers whose architecture decides how a shift of the input reaches the output."""

from augkit.architectures.downsampling import DOWNSAMPLES, BlurPool2d, downsample
from augkit.architectures.networks import NETWORKS, ResNet, SmallCNN, build_model
from augkit.architectures.polyphase import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
    sample_phase,
)

__all__ = [
    "DOWNSAMPLES",
    "NETWORKS",
    "AdaptivePolyphaseSampling",
    "AdaptivePolyphaseUpsampling",
    "BlurPool2d",
    "LearnablePolyphaseSampling",
    "ResNet",
    "SmallCNN",
    "build_model",
    "downsample",
    "sample_phase",
]
