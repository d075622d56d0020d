"""Networks and layers whose architecture decides how a shift of the input reaches the output."""

from augkit.architectures.blocks import ACTIVATIONS, DOWNSAMPLES, Style
from augkit.architectures.downsampling import BlurPool2d, DenseMaxPool2d
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
from augkit.architectures.strided import AntialiasedLayer, PhaseSelector, PhaseUpsample
from augkit.architectures.surgery import SurgeryReport, antialias, surgery_report
from augkit.architectures.vgg import VGG

__all__ = [
    "ACTIVATIONS",
    "DOWNSAMPLES",
    "HEADS",
    "NETWORKS",
    "VGG",
    "AdaptivePolyphaseSampling",
    "AdaptivePolyphaseUpsampling",
    "AntialiasedLayer",
    "BlurPool2d",
    "DenseMaxPool2d",
    "LearnablePolyphaseSampling",
    "PhaseSelector",
    "PhaseUpsample",
    "ResNet",
    "SmallCNN",
    "SpatialPyramidPool2d",
    "Style",
    "SurgeryReport",
    "antialias",
    "build_head",
    "build_model",
    "initialise",
    "sample_phase",
    "surgery_report",
]
