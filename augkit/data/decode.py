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
    """An image that cannot be used: its name, why, and whether the file itself is broken."""

    name: str
    reason: str
    corrupt: bool


def upright(image: Image.Image) -> Image.Image:
    """``image`` in mode L or RGB, turned as its EXIF says.

    16 bits are rounded to 8, palettes and CMYK become RGB, and what is transparent is put on white, as a page
    would show it.

    Raises:
        ValueError: pixels of 32 bits, whose range is unknown.
    """
    image = ImageOps.exif_transpose(image)
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
    return image.convert("L" if grey else "RGB")


def _is_16_bit(image: Image.Image) -> bool:
    # Older versions of Pillow open grey PNG files of 16 bits as 32-bit integers.
    low, high = image.getextrema()
    return int(low) >= 0 and int(high) <= 65535  # type: ignore[arg-type]


def pixels_of(image: Image.Image) -> np.ndarray:
    """An image of mode L or RGB as ``(C, H, W)`` uint8."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def decode(opener: Callable[[], Image.Image], form: Form, name: str) -> np.ndarray | Fault:
    """The image that ``opener`` opens as ``(C, H, W)`` uint8 of ``form``, or why it cannot be had."""
    picture = decode_upright(opener, name)
    if isinstance(picture, Fault):
        return picture
    if form.fit:
        picture = ImageOps.fit(picture, (form.width, form.height), Image.Resampling.LANCZOS)
    if picture.size != (form.width, form.height):
        got = f"{picture.size[0]} x {picture.size[1]}"
        wanted = (
            f"expected {form.width} x {form.height} pixels as {form.like}, got {got}; set data.image_size to resize"
        )
        return Fault(name, wanted, corrupt=False)
    if form.channels == 1 and picture.mode == "RGB" and not form.convert and not is_grey(picture):
        return Fault(name, f"expected a grey image as {form.like}, got colour; set channels to 1 or 3", corrupt=False)
    return pixels_of(picture.convert("L" if form.channels == 1 else "RGB"))


def decode_upright(opener: Callable[[], Image.Image], name: str) -> Image.Image | Fault:
    """The image that ``opener`` opens in mode L or RGB at its own size, or why it cannot be had."""
    try:
        with opener() as opened:
            return upright(opened)
    except (
        Exception
    ) as error:  # for a broken file Pillow's plugins raise any kind: OSError, struct.error, EOFError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Fault(name, f"cannot be read as an image ({reason})", corrupt=True)


def is_grey(image: Image.Image) -> bool:
    """Whether all channels of an image in mode L or RGB are equal."""
    array = np.asarray(image)
    return array.ndim == 2 or bool((array == array[..., :1]).all())
