"""Networks and layers whose architecture decides how a shift of the input reaches the output."""

from augkit.architectures.aliasfree import (
    AliasFreeActivation,
    AliasFreeDownsample2d,
    AliasFreeLayerNorm2d,
    IdealLowpass2d,
)
from augkit.architectures.blocks import ACTIVATIONS, DOWNSAMPLES, Style
from augkit.architectures.convnext import ConvNeXt, LayerNorm2d
from augkit.architectures.downsampling import BlurPool2d, DenseMaxPool2d, MaxBlurPool2d
from augkit.architectures.heads import HEADS, SpatialPyramidPool2d, build_head
from augkit.architectures.networks import NETWORKS, build_model, initialise
from augkit.architectures.polyphase import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
    sample_phase,
)
from augkit.architectures.resnet import ResNet
from augkit.architectures.small_cnn import SmallCNN
from augkit.architectures.vgg import VGG

__all__ = [
    "ACTIVATIONS",
    "DOWNSAMPLES",
    "HEADS",
    "NETWORKS",
    "VGG",
    "AdaptivePolyphaseSampling",
    "AdaptivePolyphaseUpsampling",
    "AliasFreeActivation",
    "AliasFreeDownsample2d",
    "AliasFreeLayerNorm2d",
    "BlurPool2d",
    "ConvNeXt",
    "DenseMaxPool2d",
    "IdealLowpass2d",
    "LayerNorm2d",
    "LearnablePolyphaseSampling",
    "MaxBlurPool2d",
    "ResNet",
    "SmallCNN",
    "SpatialPyramidPool2d",
    "Style",
    "build_head",
    "build_model",
    "initialise",
    "sample_phase",
]
