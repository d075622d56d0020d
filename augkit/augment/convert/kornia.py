"""`augkit.Augment.from_kornia`: Kornia's augmentations as one resampling, each with its own probability per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from augkit.augment.base import Size
from augkit.augment.color import is_color
from augkit.augment.convert.converted_op import ConvertedOp
from augkit.augment.convert.pipeline import ConvertedPipeline, Options
from augkit.augment.convert.rules import (
    AffineRule,
    CenterCropRule,
    CropRule,
    PerspectiveRule,
    Range,
    ResizedCropRule,
    ResizeRule,
    kornia_linear,
)

_KERNELS = {"NEAREST": "nearest", "BILINEAR": "bilinear", "BICUBIC": "bicubic"}
_PADDINGS = {"ZEROS": "zeros", "BORDER": "border", "REFLECTION": "reflection"}
_CROP_PADDINGS = {"constant": "zeros", "replicate": "border", "reflect": "reflection", "circular": "circular"}
_CONTAINERS = ("Sequential", "ImageSequential", "AugmentationSequential")
# Color ops that depend on neighboring pixels or positions.
_LOCAL = ("Blur", "Erasing", "Sharpness", "Box", "Clahe", "Equalize", "Noise", "Plasma", "Snow", "Rain", "Illumination")


def convert(module: nn.Module, options: Options) -> ConvertedPipeline:
    """Read ``module``, an augmentation of Kornia or a sequence of them."""
    found = ConvertedPipeline("from_kornia", options)
    _read(module, found)
    return found


def _read(module: nn.Module, found: ConvertedPipeline) -> None:
    name = type(module).__name__
    if name in _CONTAINERS:
        if getattr(module, "random_apply", False):
            found.refuse(name, "random_apply")
        if getattr(module, "same_on_batch", None) is not None:
            found.same_on_batch = bool(module.same_on_batch)
        for child in module.children():
            _read(child, found)
    elif name == "Normalize" and type(module).__module__.startswith("kornia."):
        flags = getattr(module, "flags", None) or {"mean": module.mean, "std": module.std}
        found.normalized(*(flags[key].flatten().tolist() for key in ("mean", "std")))
    elif is_color(module):
        found.color(module, local=any(part in name for part in _LOCAL))
    elif name in _READERS and type(module).__module__.startswith("kornia."):
        if module.p_batch != 1:
            found.refuse(name, "a probability for whole batches")
        _READERS[name](module, found)
    else:
        found.refuse(name, "no matrix" if type(module).__module__.startswith("kornia.") else "not an op of Kornia")


def _generator(module: nn.Module) -> Any:
    """The op's generator of parameters, which it holds as a submodule."""
    from kornia.augmentation.random_generator import RandomGeneratorBase

    return next(child for child in module.children() if isinstance(child, RandomGeneratorBase))


def _bounds(sampler: Any) -> Range:
    """The range of a uniform distribution; 0 without one."""
    return (0.0, 0.0) if sampler is None else (float(sampler.low), float(sampler.high))


def _moved(module: Any, found: ConvertedPipeline, rule: Any) -> None:
    flags = module.flags
    fill = flags.get("fill_value")
    mode = flags["padding_mode"].name if "padding_mode" in flags else "ZEROS"
    if "padding" not in found.options and (mode not in _PADDINGS or (fill is not None and bool(fill.any()))):
        found.refuse(rule.name, "a fill other than 0; choose padding=...")
    found.move(
        ConvertedOp(rule, module.p, same_on_batch=module.same_on_batch),
        _KERNELS[flags["resample"].name],
        _PADDINGS.get(mode, "zeros"),
    )


def _affine(module: Any, found: ConvertedPipeline) -> None:
    drawn = _generator(module)
    one = (1.0, 1.0)
    rule = AffineRule(
        "RandomAffine",
        kornia_linear,
        degrees=_bounds(drawn.degree_sampler),
        shift_x=_bounds(drawn.translate_x_sampler),
        shift_y=_bounds(drawn.translate_y_sampler),
        scale_x=one if drawn.scale_2_sampler is None else _bounds(drawn.scale_2_sampler),
        scale_y=None if drawn.scale_4_sampler is None else _bounds(drawn.scale_4_sampler),
        shear_x=_bounds(drawn.shear_x_sampler),
        shear_y=_bounds(drawn.shear_y_sampler),
    )
    _moved(module, found, rule)


def _rotation(module: Any, found: ConvertedPipeline) -> None:
    low, high = _bounds(_generator(module).sampler_dict["degrees"])
    # Its RandomRotation turns counter-clockwise, its RandomAffine clockwise.
    _moved(module, found, AffineRule("RandomRotation", kornia_linear, degrees=(-low, -high)))


def _shear(module: Any, found: ConvertedPipeline) -> None:
    drawn = _generator(module)
    bounds = (_bounds(drawn.shear_x_sampler), _bounds(drawn.shear_y_sampler))
    _moved(module, found, AffineRule("RandomShear", kornia_linear, shear_x=bounds[0], shear_y=bounds[1]))


def _translate(module: Any, found: ConvertedPipeline) -> None:
    drawn = _generator(module)
    bounds = (_bounds(drawn.translate_x_sampler), _bounds(drawn.translate_y_sampler))
    _moved(module, found, AffineRule("RandomTranslate", kornia_linear, shift_x=bounds[0], shift_y=bounds[1]))


def _perspective(module: Any, found: ConvertedPipeline) -> None:
    drawn = _generator(module)
    outwards = drawn.sampling_method == "area_preserving"
    _moved(module, found, PerspectiveRule("RandomPerspective", float(drawn.distortion_scale), outwards=outwards))


def _resized_crop(module: Any, found: ConvertedPipeline) -> None:
    drawn, corners = _generator(module), _matches_corners(module)
    (low, high), (narrow, wide) = ([float(one) for one in values] for values in (drawn.scale, drawn.ratio))
    ends = ((low, high), (narrow, wide))
    rule = ResizedCropRule("RandomResizedCrop", module.flags["size"], *ends, centered=False, corners=corners)
    kernel = _KERNELS[module.flags["resample"].name]
    found.move(ConvertedOp(rule, same_on_batch=module.same_on_batch), kernel)


def _matches_corners(module: Any) -> bool:
    return bool(module.flags["align_corners"]) and module.flags["resample"].name != "NEAREST"


def _resize(module: Any, found: ConvertedPipeline) -> None:
    size, side = module.flags["size"], module.flags["side"]

    def after(before: Size) -> Size:
        if not isinstance(size, int):
            return int(size[0]), int(size[1])
        aspect = before[1] / before[0]
        upright = aspect < 1.0
        if side == "vert" or (side == "short" and not upright) or (side == "long" and upright):
            return size, int(size * aspect)
        return int(size / aspect), size

    found.antialias = found.antialias or bool(module.flags["antialias"])
    rule = ResizeRule("Resize", after, corners=_matches_corners(module))
    found.move(ConvertedOp(rule), _KERNELS[module.flags["resample"].name])


def _center_crop(module: Any, found: ConvertedPipeline) -> None:
    rule = CenterCropRule("CenterCrop", module.flags["size"], lambda length, window: (length - window) // 2)
    found.move(ConvertedOp(rule))


def _crop(module: Any, found: ConvertedPipeline) -> None:
    flags = module.flags
    padding = flags["padding"]
    given = [0] if padding is None else [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = given * 4 if len(given) == 1 else given * 2 if len(given) == 2 else given
    padded = any(given) or flags["pad_if_needed"]
    if padded and flags["fill"] and flags["padding_mode"] == "constant" and "padding" not in found.options:
        found.refuse("RandomCrop", "a fill other than 0; choose padding=...")
    rule = CropRule("RandomCrop", flags["size"], (left, top, right, bottom), bool(flags["pad_if_needed"]))
    outside = _CROP_PADDINGS[flags["padding_mode"]] if padded else None
    found.move(ConvertedOp(rule, same_on_batch=module.same_on_batch), padding=outside)


def _horizontal_flip(module: Any, found: ConvertedPipeline) -> None:
    from augkit.augment.ops import RandomHorizontalFlip

    found.move(RandomHorizontalFlip(p=module.p, same_on_batch=module.same_on_batch))


def _vertical_flip(module: Any, found: ConvertedPipeline) -> None:
    from augkit.augment.ops import RandomVerticalFlip

    found.move(RandomVerticalFlip(p=module.p, same_on_batch=module.same_on_batch))


_READERS: dict[str, Callable[[Any, ConvertedPipeline], None]] = {
    "RandomAffine": _affine,
    "RandomRotation": _rotation,
    "RandomShear": _shear,
    "RandomTranslate": _translate,
    "RandomPerspective": _perspective,
    "RandomResizedCrop": _resized_crop,
    "RandomCrop": _crop,
    "Resize": _resize,
    "CenterCrop": _center_crop,
    "RandomHorizontalFlip": _horizontal_flip,
    "RandomVerticalFlip": _vertical_flip,
}
