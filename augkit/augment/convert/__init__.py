"""Pipelines of Kornia, torchvision and albumentations as one `augkit.Augment` (``Augment.from_kornia`` and its kin).

Their geometry becomes one matrix and is resampled once. `PeerMap` draws the parameters of an op as its library does
and makes the library's own matrix of them; color ops become Kornia's.
"""
