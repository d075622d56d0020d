"""Networks and layers whose architecture decides how a shift of the input reaches the output."""

from augkit.architectures.downsampling import DOWNSAMPLES, BlurPool2d, downsample
from augkit.architectures.harmonic import (
    CentredBlurPool2d,
    HarmonicConv2d,
    MagnitudeBatchNorm2d,
    MagnitudeReLU,
    magnitude,
)
from augkit.architectures.harmonic_network import HarmonicNet
from augkit.architectures.networks import NETWORKS, ResNet, SmallCNN, build_model

__all__ = [
    "DOWNSAMPLES",
    "NETWORKS",
    "BlurPool2d",
    "CentredBlurPool2d",
    "HarmonicConv2d",
    "HarmonicNet",
    "MagnitudeBatchNorm2d",
    "MagnitudeReLU",
    "ResNet",
    "SmallCNN",
    "build_model",
    "downsample",
    "magnitude",
]
