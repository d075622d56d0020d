"""Conversion of pipelines of Kornia, torchvision and albumentations to one `augkit.Augment`.

The geometric ops become one matrix, so that images are resampled once. A `ConvertedOp` draws the parameters of an op as
the source library does and computes the same matrix; color ops become those of Kornia.
"""
