"""Decodes an image of any format to uint8 pixels: upright, opaque, gray or RGB."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from augkit.augment.fit import fit_box

DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
GRAY_MODES = DEEP_MODES | {"1", "L", "LA", "La"}
ALPHA_MODES = frozenset({"LA", "PA", "RGBA", "RGBa"})
METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # metadata that may contain an orientation
RESIZE = "resize them (--image-size, or data.image_size of a recipe)"  # the remedy against several sizes
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Form:
    """The common form of all decoded images of a set.

    Attributes:
        height, width: pixels.
        channels: 1 for gray, 3 for RGB.
        fit: resize the shorter side and crop the center; otherwise an image of another size is an error.
        convert: convert color to gray where ``channels`` is 1; otherwise color is an error.
        like: the image that determined the size, for messages.
        max_megapixels: larger images are an error; Pillow's limit when None.
        crop_share: with ``fit``, the share of the shorter side that the cropped center shows, in (0, 1].
        whole: keep the whole image, with a shorter side of at most this many pixels; None to use the common size.
        decode_size: JPEG files are decoded at a half, a quarter or an eighth of their size where the shorter side keeps
            this many pixels; at their full size when None.
    """

    height: int
    width: int
    channels: int
    fit: bool = False
    convert: bool = False
    like: str = ""
    max_megapixels: int | None = None
    whole: int | None = None
    crop_share: float = 1.0
    decode_size: int | None = None


@dataclass(frozen=True)
class Fault:
    """An image that cannot be used: the reason, whether the file itself is broken, and its name."""

    reason: str
    corrupt: bool
    name: str = ""


def upright(image: Image.Image) -> Image.Image:
    """Return a copy of ``image`` in mode L or RGB, rotated as its EXIF metadata require.

    16 bits and floats are rounded to 8 bits by `eight_bits`, palettes and CMYK become RGB, and transparent pixels are
    blended with white, as in a browser.

    Raises:
        ValueError: pixels have 32 bits, whose range is unknown.
    """
    image.load()
    image = _turned(image)
    if image.mode in DEEP_MODES:
        return _shallow(image)
    gray = image.mode in GRAY_MODES
    image = in_mode(image, "LA") if image.mode == "La" else image
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        image = opaque
    return in_mode(image, "L" if gray else "RGB")


def _turned(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata raise many kinds of errors; the pixels may be intact
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: value for key, value in turned.info.items() if key not in METADATA}
    return turned


def _shallow(image: Image.Image) -> Image.Image:
    """Return a gray image of more than 8 bits in mode L."""
    values = np.asarray(image)
    if image.mode == "I" and len(values) and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16)  # Pillow opens PGM of 16 bits in this mode, and PNG in older versions
    pixels = eight_bits(values)
    if "transparency" in image.info:
        pixels = np.where(values == image.info["transparency"], np.uint8(255), pixels)
    return Image.fromarray(pixels)


def eight_bits(values: np.ndarray) -> np.ndarray:
    """Return pixels of any type as uint8, rounded to the nearest with halves up; uint8 is returned unchanged.

    False and True become 0 and 255. 16 bits are unsigned with a range of 0 to 65535, floats have a range of 0 to 1.
    Floats that are whole numbers up to 255 keep their values.

    Raises:
        ValueError: the type or the range of the values does not determine the value of white.

    >>> eight_bits(np.array([0, 128, 129, 65535], dtype=np.uint16)).tolist()
    [0, 0, 1, 255]
    >>> eight_bits(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "u" and size == 1:
        return values
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size == 2:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if kind == "f" and low >= 0 and high <= 1:
        return np.floor(np.multiply(values, 255, dtype=np.float64) + 0.5).astype(np.uint8)
    if kind == "f" and low >= 0 and high <= 255 and (values == np.floor(values)).all():
        return values.astype(np.uint8)
    raise ValueError(
        f"pixels of {8 * size} bits from {low:g} to {high:g}, expected 8 bits, 16 bits without a sign, or floats"
        " in [0, 1]"
    )


def picture_of(value: Any) -> Image.Image:
    """Return a dataset's image, a Pillow image or an array ``(H, W)`` or ``(H, W, C)`` of any type, as a Pillow image.

    Raises:
        ValueError, TypeError: the value is neither.
    """
    if isinstance(value, Image.Image):
        return value
    array = eight_bits(np.asarray(value))
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return ``image`` converted to ``mode``, without a copy where it has that mode."""
    return image if image.mode == mode else image.convert(mode)


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return an image of mode L or RGB as ``(C, H, W)`` uint8, a view."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def decode(opener: Callable[[], Image.Image], form: Form) -> np.ndarray | Fault:
    """Return the image that ``opener`` opens as ``(C, H, W)`` uint8 of ``form``, or the fault."""
    picture = decode_upright(opener, form.max_megapixels, form.decode_size)
    if isinstance(picture, Fault):
        return picture
    if form.whole is not None:
        picture = picture.resize(reduced_size(picture.size, form.whole), Image.Resampling.LANCZOS)
    elif form.fit:
        seen = fit_box(picture.size[::-1], (form.height, form.width), form.crop_share)
        picture = picture.resize((form.width, form.height), Image.Resampling.LANCZOS, box=seen)
    if form.whole is None and picture.size != (form.width, form.height):
        return wrong_size(picture.size, form)
    if form.channels == 1 and picture.mode == "RGB" and not form.convert and not is_gray(picture):
        return Fault(f"expected a gray image as {form.like}, got color; set channels to 1 or 3", corrupt=False)
    return pixels_of(in_mode(picture, "L" if form.channels == 1 else "RGB"))


def reduced_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return ``size`` reduced in proportion to a shorter side of at most ``shorter``.

    >>> reduced_size((400, 200), 50), reduced_size((40, 20), 50)
    ((100, 50), (40, 20))
    """
    factor = min(1.0, shorter / min(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def wrong_size(size: tuple[int, int], form: Form) -> Fault:
    """Return the fault of an image of ``size`` ``(W, H)`` that differs from that of ``form``."""
    expected, got = f"{form.width} x {form.height}", f"{size[0]} x {size[1]}"
    return Fault(f"expected {expected} pixels as {form.like}, got {got}; {RESIZE}", corrupt=False)


def decode_upright(
    opener: Callable[[], Image.Image], max_megapixels: int | None = None, least: int | None = None
) -> Image.Image | Fault:
    """Return the image that ``opener`` opens in mode L or RGB, or the fault.

    It has its own size; a JPEG file that keeps ``least`` pixels along its shorter side at a half, a quarter or an
    eighth has that size, which its decoder gives in less time.
    """
    with warnings.catch_warnings(), _largest(max_megapixels):
        warnings.simplefilter("ignore")  # Pillow's warnings about metadata and about sizes that are allowed here
        try:
            with opener() as opened:
                if least is not None:
                    _draft(opened, least)
                return upright(opened)
        except Image.DecompressionBombError as error:
            return _too_large(error)
        except Exception as error:  # Pillow's plugins raise many kinds: OSError, struct.error, EOFError
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            return Fault(f"cannot be read as an image ({reason})", corrupt=True)


def _draft(image: Image.Image, least: int) -> None:
    """Let the decoder of a JPEG file give the smallest fraction whose shorter side has ``least`` pixels; no others."""
    shorter = min(image.size)
    for fraction in (8, 4, 2):
        if -(-shorter // fraction) >= least:  # the decoder rounds up, where Pillow, asked for least, rounds down
            side = max(1, shorter // fraction)
            image.draft(None, (side, side))  # None keeps the mode
            return


def header_size(opener: Callable[[], Image.Image], max_megapixels: int | None = None) -> tuple[int, int] | None:
    """Return ``(W, H)`` from the file's header, without decoding; None where it cannot be opened."""
    with warnings.catch_warnings(), _largest(max_megapixels):
        warnings.simplefilter("ignore")
        try:
            with opener() as opened:
                return opened.size
        except Exception:  # decoding reports the fault
            return None


@contextlib.contextmanager
def _largest(megapixels: int | None) -> Iterator[None]:
    """Set Pillow's limit, a global of the process; Pillow rejects images with more than twice as many pixels."""
    before = Image.MAX_IMAGE_PIXELS
    if megapixels is not None:
        Image.MAX_IMAGE_PIXELS = megapixels * 10**6 // 2
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _too_large(error: Image.DecompressionBombError) -> Fault:
    sizes = [math.ceil(int(digits) / 10**6) for digits in re.findall(r"(\d+) pixels", str(error))]
    got, limit = (*sizes, 0, 0)[:2]
    remedy = f"set data.max_megapixels to {got} or more where the file can be trusted"
    return Fault(f"a picture of {got} megapixels, above the limit of {limit}; {remedy}", corrupt=False)


def is_gray(image: Image.Image) -> bool:
    """Whether all channels of an image in mode L or RGB are equal."""
    array = np.asarray(image)
    return array.ndim == 2 or bool((array == array[..., :1]).all())
