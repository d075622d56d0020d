"""Networks and layers that differ in how a shift of the input changes the output."""

from augkit.architectures.aliasfree import (
    AliasFreeActivation,
    AliasFreeDownsample2d,
    AliasFreeLayerNorm2d,
    IdealLowpass2d,
)
from augkit.architectures.blocks import ACTIVATIONS, DOWNSAMPLES, Style
from augkit.architectures.build import NETWORKS, build_model, initialize
from augkit.architectures.convnext import ConvNeXt, LayerNorm2d
from augkit.architectures.downsampling import BlurPool2d, DenseMaxPool2d, MaxBlurPool2d
from augkit.architectures.harmonic import (
    CenteredBlurPool2d,
    HarmonicConv2d,
    MagnitudeBatchNorm2d,
    MagnitudeReLU,
    magnitude,
)
from augkit.architectures.harmonic import CenteredBlurPool2d as CentredBlurPool2d  # noqa: F401 (the former spelling)
from augkit.architectures.harmonic_network import HarmonicNet
from augkit.architectures.heads import HEADS, SpatialPyramidPool2d, build_head
from augkit.architectures.polyphase import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
    sample_phase,
)
from augkit.architectures.resnet import ResNet
from augkit.architectures.shift_averaging import ShiftAveraged, shift_averaged
from augkit.architectures.small_cnn import SmallCNN
from augkit.architectures.strided import AntialiasedLayer, PhaseSelector, PhaseUpsample
from augkit.architectures.surgery import SurgeryReport, antialias, surgery_report
from augkit.architectures.vgg import VGG
from augkit.architectures.vit import ViT

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
    "AntialiasedLayer",
    "BlurPool2d",
    "CenteredBlurPool2d",
    "ConvNeXt",
    "DenseMaxPool2d",
    "HarmonicConv2d",
    "HarmonicNet",
    "IdealLowpass2d",
    "LayerNorm2d",
    "LearnablePolyphaseSampling",
    "MagnitudeBatchNorm2d",
    "MagnitudeReLU",
    "MaxBlurPool2d",
    "PhaseSelector",
    "PhaseUpsample",
    "ResNet",
    "ShiftAveraged",
    "SmallCNN",
    "SpatialPyramidPool2d",
    "Style",
    "SurgeryReport",
    "ViT",
    "antialias",
    "build_head",
    "build_model",
    "initialize",
    "magnitude",
    "sample_phase",
    "shift_averaged",
    "surgery_report",
]
