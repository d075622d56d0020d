"""One encoded image, whatever its file says, to uint8 pixels: upright, opaque, 8 bits, grey or RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


@dataclass(frozen=True)
class Form:
    """What all decoded images of a set share.

    Attributes:
        height, width: pixels.
        channels: 1 for grey, 3 for RGB.
        fit: resize the shorter side and cut the centre; without it images of another size are refused.
        convert: make grey of colour where ``channels`` is 1; without it colour is refused.
        like: the image from which the size was taken, for messages.
    """

    height: int
    width: int
    channels: int
    fit: bool = False
    convert: bool = False
    like: str = ""


@dataclass(frozen=True)
class Fault:
    """An image that cannot be used: why, whether the file itself is broken, and its name."""

    reason: str
    corrupt: bool
    name: str = ""


def upright(image: Image.Image) -> Image.Image:
    """``image`` in mode L or RGB, turned as its EXIF says.

    16 bits are rounded to 8, palettes and CMYK become RGB, and what is transparent is put on white, as a page
    would show it.

    Raises:
        ValueError: pixels of 32 bits, whose range is unknown.
    """
    ImageOps.exif_transpose(image, in_place=True)
    grey = image.mode in GREY_MODES
    if image.mode == "F" or (image.mode == "I" and not _is_16_bit(image)):
        raise ValueError(f"pixels of 32 bits (mode {image.mode}), expected 8 or 16")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return in_mode(image, "L" if grey else "RGB")


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """``image`` converted to ``mode``; itself where it has it, which Pillow would copy."""
    return image if image.mode == mode else image.convert(mode)


def _is_16_bit(image: Image.Image) -> bool:
    # Older versions of Pillow open grey PNG files of 16 bits as 32-bit integers.
    low, high = image.getextrema()
    return int(low) >= 0 and int(high) <= 65535  # type: ignore[arg-type]


def pixels_of(image: Image.Image) -> np.ndarray:
    """An image of mode L or RGB as ``(C, H, W)`` uint8, a view."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def decode(opener: Callable[[], Image.Image], form: Form) -> np.ndarray | Fault:
    """The image that ``opener`` opens as ``(C, H, W)`` uint8 of ``form``, or why it cannot be had."""
    picture = decode_upright(opener)
    if isinstance(picture, Fault):
        return picture
    if form.fit:
        picture = ImageOps.fit(picture, (form.width, form.height), Image.Resampling.LANCZOS)
    if picture.size != (form.width, form.height):
        return wrong_size(picture, form)
    if form.channels == 1 and picture.mode == "RGB" and not form.convert and not is_grey(picture):
        return Fault(f"expected a grey image as {form.like}, got colour; set channels to 1 or 3", corrupt=False)
    return pixels_of(in_mode(picture, "L" if form.channels == 1 else "RGB"))


def wrong_size(picture: Image.Image, form: Form) -> Fault:
    """The fault of an image that does not have the size of ``form``."""
    expected, got = f"{form.width} x {form.height}", f"{picture.size[0]} x {picture.size[1]}"
    remedy = "set data.image_size to resize"
    return Fault(f"expected {expected} pixels as {form.like}, got {got}; {remedy}", corrupt=False)


def decode_upright(opener: Callable[[], Image.Image]) -> Image.Image | Fault:
    """The image that ``opener`` opens in mode L or RGB at its own size, or why it cannot be had."""
    try:
        with opener() as opened:
            opened.load()
            return upright(opened)
    except Exception as error:  # Pillow's plugins raise any kind for a broken file: OSError, struct.error, EOFError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Fault(f"cannot be read as an image ({reason})", corrupt=True)


def is_grey(image: Image.Image) -> bool:
    """Whether all channels of an image in mode L or RGB are equal."""
    array = np.asarray(image)
    return array.ndim == 2 or bool((array == array[..., :1]).all())
