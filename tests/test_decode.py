"""Whatever an image file says, what comes out is upright, opaque, 8 bits, grey or RGB."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, noise
from PIL import Image

from augkit.data.decode import Fault, Form, decode, upright

RGB = Form(6, 10, 3)
GREY = Form(6, 10, 1)


def from_file(path: Path, form: Form = RGB) -> np.ndarray:
    found = decode(partial(Image.open, path), form)
    assert isinstance(found, np.ndarray), found
    assert found.dtype == np.uint8
    return found


def test_rgb_and_grey_files_come_as_they_are(tmp_path: Path) -> None:
    colour, grey = noise(0, (6, 10, 3)), noise(1, (6, 10))
    Image.fromarray(colour).save(tmp_path / "c.png")
    Image.fromarray(grey).save(tmp_path / "g.png")
    assert np.array_equal(from_file(tmp_path / "c.png"), colour.transpose(2, 0, 1))
    assert np.array_equal(from_file(tmp_path / "g.png"), np.stack([grey] * 3))
    assert np.array_equal(from_file(tmp_path / "g.png", GREY), grey[None])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_upright(orientation: int, tmp_path: Path) -> None:
    wanted = noise(0, (6, 10, 3))
    # What a camera stores so that a viewer, doing as the EXIF orientation says, shows `wanted`.
    stored = {
        1: wanted,
        2: wanted[:, ::-1],
        3: wanted[::-1, ::-1],
        4: wanted[::-1],
        5: wanted.transpose(1, 0, 2),
        6: np.rot90(wanted, 1),
        7: wanted[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(wanted, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(from_file(tmp_path / "x.png"), wanted.transpose(2, 0, 1))


def test_16_bits_are_rounded_to_8(tmp_path: Path) -> None:
    values = np.array([0, 1, 128, 129, 257, 385, 386, 65406, 65407, 65535], dtype=np.uint16)
    Image.fromarray(np.tile(values, (6, 1))).save(tmp_path / "deep.png")
    expected = np.rint(values.astype(np.float64) / 257).astype(np.uint8)
    assert np.array_equal(from_file(tmp_path / "deep.png", GREY), np.tile(expected, (1, 6, 1)))


def test_16_bits_of_colour(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 10, 3)).astype(">u2")
    scanlines = b"".join(b"\0" + row.tobytes() for row in values)  # Pillow cannot write this kind

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10, 6, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(scanlines)) + part(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    found = from_file(tmp_path / "deep.png").transpose(1, 2, 0).astype(np.float64)
    assert np.abs(found - values.astype(np.float64) / 257).max() <= 1


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key"])
def test_what_is_transparent_is_put_on_white(kind: str, tmp_path: Path) -> None:
    if kind in ("RGBA", "LA"):
        image = Image.new(kind, (10, 6), (0,) * len(kind))
        image.putpixel((2, 1), (200,) * (len(kind) - 1) + (255,))
    elif kind == "palette":
        image = Image.new("P", (10, 6), 0)
        image.putpalette([0, 0, 0, 200, 200, 200])
        image.putpixel((2, 1), 1)
        image.info["transparency"] = 0
    else:
        image = Image.new("RGB", (10, 6), (0, 0, 0))
        image.putpixel((2, 1), (200, 200, 200))
        image.info["transparency"] = (0, 0, 0)
    image.save(tmp_path / "t.png")
    found = from_file(tmp_path / "t.png", GREY)
    expected = np.full((1, 6, 10), 255)
    expected[0, 1, 2] = 200
    assert np.array_equal(found, expected)


def test_half_transparent_is_half_white() -> None:
    image = Image.new("RGBA", (1, 1), (0, 100, 200, 128))
    alpha = 128 / 255
    expected = [value * alpha + 255 * (1 - alpha) for value in (0, 100, 200)]
    assert upright(image).getpixel((0, 0)) == pytest.approx(expected, abs=1)


def test_palettes_bits_and_cmyk(tmp_path: Path) -> None:
    palette = Image.new("P", (10, 6), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(from_file(tmp_path / "p.png")[:, 0, 0], [10, 20, 30])
    Image.new("1", (10, 6), 1).save(tmp_path / "b.png")
    assert np.array_equal(from_file(tmp_path / "b.png", GREY), np.full((1, 6, 10), 255))
    Image.new("CMYK", (10, 6), (255, 0, 0, 0)).save(tmp_path / "k.jpg", quality=100)
    assert np.abs(from_file(tmp_path / "k.jpg")[:, 3, 5].astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(mode: str, tmp_path: Path) -> None:
    image = Image.new(mode, (10, 6), 70000)
    image.save(tmp_path / "f.tiff")
    found = decode(partial(Image.open, tmp_path / "f.tiff"), GREY)
    assert isinstance(found, Fault)
    assert found.corrupt
    assert "32 bits" in found.reason


def test_truncated_and_foreign_files_are_faults(tmp_path: Path) -> None:
    whole = encoded(noise(0, (60, 100, 3)), "jpeg")
    for content in (whole[: len(whole) // 2], b"", b"\x89PNG\r\n\x1a\nno", b"text", b"II*\0\xff\xff\xff\xff"):
        path = tmp_path / "x.jpg"
        path.write_bytes(content)
        found = decode(partial(Image.open, path), Form(60, 100, 3))
        assert isinstance(found, Fault), content[:20]
        assert found.corrupt
        assert "\n" not in found.reason


def test_sizes_are_fitted_or_refused(tmp_path: Path) -> None:
    Image.fromarray(noise(0, (6, 14, 3))).save(tmp_path / "x.png")
    fitted = from_file(tmp_path / "x.png", Form(3, 3, 3, fit=True))
    shorter = Image.open(tmp_path / "x.png").resize((7, 3), Image.Resampling.LANCZOS)
    expected = np.asarray(shorter.crop((2, 0, 5, 3))).transpose(2, 0, 1)
    assert np.abs(fitted.astype(int) - expected.astype(int)).max() <= 1
    found = decode(partial(Image.open, tmp_path / "x.png"), Form(6, 6, 3, like="'first.png'"))
    assert isinstance(found, Fault)
    assert not found.corrupt
    assert found.reason == "expected 6 x 6 pixels as 'first.png', got 14 x 6; set data.image_size to resize"


def test_colour_among_grey_is_refused_unless_it_may_be_converted(tmp_path: Path) -> None:
    colour = noise(0, (6, 10, 3))
    Image.fromarray(colour).save(tmp_path / "x.png")
    found = decode(partial(Image.open, tmp_path / "x.png"), GREY)
    assert isinstance(found, Fault)
    assert not found.corrupt
    luma = np.rint(colour @ np.array([0.299, 0.587, 0.114]))
    grey = from_file(tmp_path / "x.png", Form(6, 10, 1, convert=True))
    assert np.abs(grey[0].astype(float) - luma).max() <= 1
    Image.fromarray(np.stack([luma.astype(np.uint8)] * 3, -1)).save(tmp_path / "same.png")
    assert np.array_equal(from_file(tmp_path / "same.png", GREY)[0], luma)
