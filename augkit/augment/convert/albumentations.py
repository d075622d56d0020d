"""`augkit.Augment.from_albumentations`: albumentations 2 as one resampling, and color ops that Kornia has too.

Its geometry comes from OpenCV without antialias; boxes there are moved by the same matrix about the center of their
own coordinates, which is the same map along the edges of pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from augkit.augment.base import Size
from augkit.augment.convert.converted_op import ConvertedOp
from augkit.augment.convert.pipeline import ConvertedPipeline, Options
from augkit.augment.convert.rules import (
    AffineRule,
    CenterCropRule,
    CropRule,
    ResizedCropRule,
    ResizeRule,
    albumentations_linear,
)

_KERNELS = {0: "nearest", 1: "bilinear", 2: "bicubic", 3: "bilinear", 4: "lanczos3"}  # OpenCV's numbers
_AREA = 3  # the mean over an area, which is bilinear with antialias but for the shape of the window
_PADDINGS = {0: "zeros", 1: "border", 3: "circular", 4: "reflection"}


def convert(transform: Any, options: Options) -> ConvertedPipeline:
    """Read ``transform``, a transform or a ``Compose`` of albumentations."""
    found = ConvertedPipeline("from_albumentations", options)
    _read(transform, found)
    return found


def _read(transform: Any, found: ConvertedPipeline) -> None:
    name = type(transform).__name__
    if name in ("Compose", "Sequential") and hasattr(transform, "transforms"):
        if transform.p != 1:
            found.refuse(name, f"p={transform.p:g}, one coin for several ops")
        for one in transform.transforms:
            _read(one, found)
    elif name in _READERS and type(transform).__module__.startswith("albumentations."):
        _READERS[name](transform, found)
    else:
        found.refuse(name, _REASONS.get(name, "no matrix, and no equivalent in Kornia"))


def _kernel(transform: Any, found: ConvertedPipeline, *, resizes: bool = False) -> str:
    area = getattr(transform, "area_for_downscale", None) is not None or transform.interpolation == _AREA
    found.antialias = found.antialias or (resizes and area)
    kernel = _KERNELS.get(transform.interpolation)
    if kernel is None:
        found.refuse(type(transform).__name__, f"interpolation {transform.interpolation}")
    return kernel or "bilinear"


def _padding(transform: Any, found: ConvertedPipeline) -> str:
    name, mode, fill = type(transform).__name__, transform.border_mode, transform.fill
    if "padding" not in found.options:
        if mode not in _PADDINGS:
            found.refuse(name, f"border_mode {mode}; choose cv2.BORDER_REFLECT_101 or padding=...")
        elif mode == 0 and any(value != 0 for value in (fill if isinstance(fill, (tuple, list)) else [fill])):
            found.refuse(name, "fill other than 0; choose padding=...")
    return _PADDINGS.get(mode, "zeros")


def _affine(transform: Any, found: ConvertedPipeline) -> None:
    name = type(transform).__name__
    if transform.fit_output:
        found.refuse(name, "fit_output=True, a size that depends on the draw")
    pixels = transform.translate_px is not None
    shift = transform.translate_px or transform.translate_percent or {"x": (0.0, 0.0), "y": (0.0, 0.0)}
    rule = AffineRule(
        name,
        albumentations_linear,
        degrees=_range(transform.rotate),
        shift_x=_range(shift["x"]),
        shift_y=_range(shift["y"]),
        scale_x=_range(transform.scale["x"]),
        scale_y=None if transform.keep_ratio else _range(transform.scale["y"]),
        shear_x=_range(transform.shear["x"]),
        shear_y=_range(transform.shear["y"]),
        pixels=pixels,
        whole="inclusive" if pixels else "truncated",
        balanced=transform.balanced_scale,
    )
    found.move(ConvertedOp(rule, transform.p), _kernel(transform, found), _padding(transform, found))


def _rotate(transform: Any, found: ConvertedPipeline) -> None:
    if transform.crop_border:
        found.refuse("Rotate", "crop_border=True, a size that depends on the draw")
    rule = AffineRule("Rotate", albumentations_linear, degrees=_range(transform.limit))
    found.move(ConvertedOp(rule, transform.p), _kernel(transform, found), _padding(transform, found))


def _always(transform: Any, found: ConvertedPipeline) -> None:
    if transform.p != 1:
        found.refuse(type(transform).__name__, f"p={transform.p:g}, as sizes would differ")


def _resized_crop(transform: Any, found: ConvertedPipeline) -> None:
    _always(transform, found)
    rule = ResizedCropRule("RandomResizedCrop", _size(transform.size), _range(transform.scale), _range(transform.ratio))
    found.move(ConvertedOp(rule), _kernel(transform, found, resizes=True))


def _resize(transform: Any, found: ConvertedPipeline) -> None:
    _always(transform, found)
    out = (int(transform.height), int(transform.width))
    found.move(ConvertedOp(ResizeRule("Resize", lambda size: out)), _kernel(transform, found, resizes=True))


def _max_size(pick: Callable[[int, int], int]) -> Callable[[Any, ConvertedPipeline], None]:
    def read(transform: Any, found: ConvertedPipeline) -> None:
        name, most = type(transform).__name__, transform.max_size
        _always(transform, found)
        if not isinstance(most, int):
            found.refuse(name, "a max_size with several numbers")
            return

        def after(size: Size) -> Size:
            scale = most / pick(*size)
            return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

        found.move(ConvertedOp(ResizeRule(name, after)), _kernel(transform, found, resizes=True))

    return read


def _window(transform: Any, found: ConvertedPipeline) -> Size:
    _always(transform, found)
    if transform.pad_if_needed:
        found.refuse(type(transform).__name__, "pad_if_needed=True")
    return int(transform.height), int(transform.width)


def _crop(transform: Any, found: ConvertedPipeline) -> None:
    found.move(ConvertedOp(CropRule("RandomCrop", _window(transform, found))))


def _center_crop(transform: Any, found: ConvertedPipeline) -> None:
    rule = CenterCropRule("CenterCrop", _window(transform, found), lambda length, window: (length - window) // 2)
    found.move(ConvertedOp(rule))


def _horizontal_flip(transform: Any, found: ConvertedPipeline) -> None:
    from augkit.augment.ops import RandomHorizontalFlip

    found.move(RandomHorizontalFlip(p=transform.p))


def _vertical_flip(transform: Any, found: ConvertedPipeline) -> None:
    from augkit.augment.ops import RandomVerticalFlip

    found.move(RandomVerticalFlip(p=transform.p))


def _normalize(transform: Any, found: ConvertedPipeline) -> None:
    _always(transform, found)
    if transform.normalization != "standard":
        found.refuse("Normalize", f"normalization {transform.normalization!r}")
    if transform.max_pixel_value not in (1.0, 255.0):
        found.refuse("Normalize", f"max_pixel_value {transform.max_pixel_value:g}")
    found.normalized(
        *([value] if isinstance(value, float) else list(value) for value in (transform.mean, transform.std))
    )


def _to_float(transform: Any, found: ConvertedPipeline) -> None:
    if transform.p != 1:
        found.refuse("ToFloat", f"p={transform.p:g}, as values would differ by a factor")
    if transform.max_value not in (None, 1.0, 255.0):
        found.refuse("ToFloat", f"max_value {transform.max_value:g}")
    found.dtype = torch.float32


def _to_tensor(transform: Any, found: ConvertedPipeline) -> None:
    del transform, found


def _jitter(transform: Any, found: ConvertedPipeline) -> None:
    from kornia.augmentation import ColorJitter

    names = ("brightness", "contrast", "saturation", "hue")
    found.color(ColorJitter(**{name: _range(getattr(transform, name)) for name in names}, p=transform.p))


def _brightness_contrast(transform: Any, found: ConvertedPipeline) -> None:
    from kornia.augmentation import RandomBrightness, RandomContrast

    if not transform.brightness_by_max or transform.ensure_safe_range:
        found.refuse("RandomBrightnessContrast", "brightness_by_max=False or ensure_safe_range=True")
    limits = [_range(limit) for limit in (transform.contrast_limit, transform.brightness_limit)]
    if transform.p != 1 and all(low != 0 or high != 0 for low, high in limits):
        found.refuse("RandomBrightnessContrast", f"p={transform.p:g} of both, which share a coin; use ColorJitter")
    for made, (low, high) in zip((RandomContrast, RandomBrightness), limits, strict=True):
        if (low, high) != (0, 0):
            found.color(made((1 + low, 1 + high), clip_output=made is RandomBrightness, p=transform.p))


def _gray(transform: Any, found: ConvertedPipeline) -> None:
    from kornia.augmentation import RandomGrayscale

    if transform.method != "weighted_average":
        found.refuse("ToGray", f"method {transform.method!r}")
    if transform.num_output_channels != 3:
        found.refuse("ToGray", f"num_output_channels={transform.num_output_channels}; Kornia's keeps the channels")
    found.color(RandomGrayscale(p=transform.p))


def _invert(transform: Any, found: ConvertedPipeline) -> None:
    from kornia.augmentation import RandomInvert

    found.color(RandomInvert(p=transform.p))


def _gamma(transform: Any, found: ConvertedPipeline) -> None:
    from kornia.augmentation import RandomGamma

    low, high = _range(transform.gamma_limit)
    found.color(RandomGamma((low / 100, high / 100), p=transform.p))


def _blur(transform: Any, found: ConvertedPipeline) -> None:
    from kornia.augmentation import RandomGaussianBlur

    low, high = _range(transform.sigma_limit)
    if _range(transform.blur_limit) != (0, 0):
        found.refuse("GaussianBlur", "blur_limit other than 0, a window that cuts the Gaussian off")
    side = 2 * round(4 * high) + 1  # wide enough for the widest
    found.color(RandomGaussianBlur((side, side), (low, high), "reflect", p=transform.p), local=True)


def _range(values: Any) -> tuple[float, float]:
    low, high = (values, values) if isinstance(values, (int, float)) else values
    return float(low), float(high)


def _size(size: Any) -> Size:
    return int(size[0]), int(size[1])


_REASONS = {
    "ElasticTransform": "no matrix",
    "GridDistortion": "no matrix",
    "OpticalDistortion": "no matrix",
    "Perspective": "its zoom depends on rounded lengths; use augkit.RandomPerspective",
    "RandomRotate90": "use augkit.RandomQuarterTurn",
}
_READERS: dict[str, Callable[[Any, ConvertedPipeline], None]] = {
    "Affine": _affine,
    "ShiftScaleRotate": _affine,
    "Rotate": _rotate,
    "RandomResizedCrop": _resized_crop,
    "Resize": _resize,
    "SmallestMaxSize": _max_size(min),
    "LongestMaxSize": _max_size(max),
    "RandomCrop": _crop,
    "CenterCrop": _center_crop,
    "HorizontalFlip": _horizontal_flip,
    "VerticalFlip": _vertical_flip,
    "Normalize": _normalize,
    "ToFloat": _to_float,
    "ToTensorV2": _to_tensor,
    "ColorJitter": _jitter,
    "RandomBrightnessContrast": _brightness_contrast,
    "ToGray": _gray,
    "InvertImg": _invert,
    "RandomGamma": _gamma,
    "GaussianBlur": _blur,
}
