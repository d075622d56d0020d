"""The color ops of RandAugment, TrivialAugment and AugMix, each with an amount per sample, on the device.

They are those of PIL that AutoAugment named (Cubuk et al. 2019, https://arxiv.org/abs/1805.09501), by Kornia's
functions. An amount is what its op changes in its own unit, so that 0 is no change.

| op | unit of the amount |
|---|---|
| brightness, color, contrast, sharpness | factor minus 1, from -1 on |
| posterize | bits of 8 that are cleared |
| solarize | share of the range of values, from the bright end, that is inverted |
| autocontrast, equalize | none: the op is applied where the amount is not 0 |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Change = Callable[[Tensor, Tensor], Tensor]


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Multiply by ``1 + amount``."""
    from kornia.enhance import adjust_brightness_accumulative

    return adjust_brightness_accumulative(images, 1 + amount)


def color(images: Tensor, amount: Tensor) -> Tensor:
    """Move away from gray by the factor ``1 + amount``; images without three channels have no color to change."""
    from kornia.enhance import adjust_saturation_with_gray_subtraction

    return adjust_saturation_with_gray_subtraction(images, 1 + amount) if images.shape[1] == 3 else images


def contrast(images: Tensor, amount: Tensor) -> Tensor:
    """Move away from the mean gray value of the image by the factor ``1 + amount``."""
    from kornia.enhance import adjust_contrast_with_mean_subtraction

    return adjust_contrast_with_mean_subtraction(images, 1 + amount)


def sharpness(images: Tensor, amount: Tensor) -> Tensor:
    """Move away from a blurred image by the factor ``1 + amount``; a frame of one pixel stays."""
    from kornia.enhance import sharpness as sharpen

    return sharpen(images, 1 + amount) if min(images.shape[-2:]) > 2 else images


def posterize(images: Tensor, amount: Tensor) -> Tensor:
    """Clear the lowest ``amount`` of 8 bits, rounded to whole bits."""
    step = torch.pow(2.0, amount.round())[:, None, None, None]
    cleared = torch.floor((255 * images).round() / step) * step / 255  # Kornia's version cuts off where this rounds
    return torch.where(step > 1, cleared.to(images.dtype), images)


def solarize(images: Tensor, amount: Tensor) -> Tensor:
    """Invert the values of at least ``1 - amount``."""
    amount = amount[:, None, None, None]
    return torch.where((images >= 1 - amount) & (amount > 0), 1 - images, images)


def autocontrast(images: Tensor, amount: Tensor) -> Tensor:
    """Stretch the values of each channel to [0, 1]; a channel of one value stays."""
    low, high = images.amin(dim=(-2, -1), keepdim=True), images.amax(dim=(-2, -1), keepdim=True)
    stretched = (images - low) / torch.where(high > low, high - low, torch.ones_like(high))
    return torch.where((high > low) & (amount != 0)[:, None, None, None], stretched, images)


def equalize(images: Tensor, amount: Tensor) -> Tensor:
    """Make the histogram of each channel flat."""
    from kornia.enhance import equalize as flatten

    return torch.where((amount != 0)[:, None, None, None], flatten(images.contiguous()), images)


CHANGES: dict[str, Change] = {
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}


def change_colors(
    images: Tensor, names: tuple[str, ...], choice: Tensor, amount: Tensor, *, in_place: bool = False
) -> Tensor:
    """Apply to each sample the op of `CHANGES` that it chose; others, and those of amount 0, stay bit for bit.

    Only the samples of an op are computed, which waits for the device once. A compiled graph has no values to wait for:
    it computes every op for all samples, and selects.

    Args:
        images: floating ``(B, C, H, W)`` in [0, 1], to which the samples that change are clamped.
        names: what ``choice`` counts; names of other ops, such as ``rotate``, are left out.
        choice: ``(B,)`` int64.
        amount: ``(B,)``.
        in_place: whether ``images`` may be changed, so that the samples that stay need no copy.
    """
    if torch.compiler.is_compiling():
        return _change_all(images, names, choice, amount)
    samples: dict[str, list[int]] = {}
    for sample, number in enumerate(torch.where(amount != 0, choice, -1).tolist()):
        if number >= 0 and names[number] in CHANGES:
            samples.setdefault(names[number], []).append(sample)
    if not samples:
        return images
    out = images if in_place else images.clone()
    for name, found in samples.items():
        which = torch.tensor(found, device=images.device)
        out[which] = CHANGES[name](out[which].clamp_(0, 1), amount[which].to(images.dtype))
    return out


def _change_all(images: Tensor, names: tuple[str, ...], choice: Tensor, amount: Tensor) -> Tensor:
    """`change_colors` without reading values."""
    out, clamped = images, images.clamp(0, 1)
    for number, name in enumerate(names):
        if name in CHANGES:
            chosen = (choice == number) & (amount != 0)
            # 0 in the other samples, as their amounts are those of other ops.
            changed = CHANGES[name](clamped, torch.where(chosen, amount, 0.0).to(images.dtype))
            out = torch.where(chosen[:, None, None, None], changed, out)
    return out
