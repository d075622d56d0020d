"""Networks and layers whose architecture decides how a shift of the input reaches the output."""

from augkit.architectures.downsampling import DOWNSAMPLES, BlurPool2d, downsample
from augkit.architectures.networks import NETWORKS, ResNet, SmallCNN, build_model

__all__ = ["DOWNSAMPLES", "NETWORKS", "BlurPool2d", "ResNet", "SmallCNN", "build_model", "downsample"]
