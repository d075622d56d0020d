"""Decoded images of any format are upright, opaque, 8 bits, gray or RGB."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from pictures import encoded, noise
from PIL import Image, TiffImagePlugin

from augkit.core.errors import InputError
from augkit.data import load_dataset, read_files
from augkit.data.decode import RESIZE, Fault, Form, decode, decode_upright, eight_bits, picture_of, upright
from augkit.data.stream import Reading

RGB = Form(6, 10, 3)
GRAY = Form(6, 10, 1)


def from_file(path: Path, form: Form = RGB) -> np.ndarray:
    found = decode(partial(Image.open, path), form)
    assert isinstance(found, np.ndarray), found
    assert found.dtype == np.uint8
    return found


def test_rgb_and_gray_files_come_as_they_are(tmp_path: Path) -> None:
    color, gray = noise(0, (6, 10, 3)), noise(1, (6, 10))
    Image.fromarray(color).save(tmp_path / "c.png")
    Image.fromarray(gray).save(tmp_path / "g.png")
    assert np.array_equal(from_file(tmp_path / "c.png"), color.transpose(2, 0, 1))
    assert np.array_equal(from_file(tmp_path / "g.png"), np.stack([gray] * 3))
    assert np.array_equal(from_file(tmp_path / "g.png", GRAY), gray[None])


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
    assert np.array_equal(from_file(tmp_path / "deep.png", GRAY), np.tile(expected, (1, 6, 1)))


def test_16_bits_of_color(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 10, 3)).astype(">u2")
    scanlines = b"".join(b"\0" + row.tobytes() for row in values)  # Pillow cannot write this kind

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10, 6, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(scanlines)) + part(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(png)
    found = from_file(tmp_path / "deep.png").transpose(1, 2, 0).astype(np.float64)
    assert np.abs(found - values.astype(np.float64) / 257).max() <= 1


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "color key"])
def test_transparent_pixels_are_blended_with_white(kind: str, tmp_path: Path) -> None:
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
    found = from_file(tmp_path / "t.png", GRAY)
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
    assert np.array_equal(from_file(tmp_path / "b.png", GRAY), np.full((1, 6, 10), 255))
    Image.new("CMYK", (10, 6), (255, 0, 0, 0)).save(tmp_path / "k.jpg", quality=100)
    assert np.abs(from_file(tmp_path / "k.jpg")[:, 3, 5].astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_of_unknown_range_are_refused(mode: str, tmp_path: Path) -> None:
    image = Image.new(mode, (10, 6), 70000)
    image.save(tmp_path / "f.tiff")
    found = decode(partial(Image.open, tmp_path / "f.tiff"), GRAY)
    assert isinstance(found, Fault)
    assert found.corrupt
    assert "pixels of 32 bits from 70000 to 70000" in found.reason


@given(arrays(np.uint16, (3, 4)))
def test_every_door_rounds_16_bits_alike(values: np.ndarray) -> None:
    expected = np.rint(values.astype(np.float64) / 257)
    assert np.array_equal(eight_bits(values), expected)
    assert np.array_equal(eight_bits(values.astype(">u2")), expected)
    assert np.array_equal(np.asarray(upright(Image.fromarray(values))), expected)
    assert np.array_equal(np.asarray(upright(Image.fromarray(values.astype(np.int32)))), expected)  # mode I
    assert np.array_equal(np.asarray(picture_of(values)), expected)
    assert np.array_equal(np.asarray(picture_of(np.stack([values] * 3, -1)))[..., 1], expected)
    maximum = io.BytesIO(b"P5 4 3 65535\n" + values.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(upright(Image.open(maximum))), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_fractions_or_whole_numbers(dtype: type) -> None:
    share = np.array([[0, 0.25, 0.5, 1]], dtype=dtype)
    assert eight_bits(share).tolist() == [[0, 64, 128, 255]]
    assert np.asarray(upright(Image.fromarray(share.astype(np.float32)))).tolist() == [[0, 64, 128, 255]]
    gray = noise(0, (4, 5))
    assert np.array_equal(eight_bits(gray.astype(dtype)), gray)
    assert np.array_equal(np.asarray(upright(Image.fromarray(gray).convert("F"))), gray)


def test_truth_values_are_black_and_white() -> None:
    assert eight_bits(np.array([False, True])).tolist() == [0, 255]
    assert picture_of(np.array([[[False], [True]]])).size == (2, 1)
    same = noise(0)
    assert eight_bits(same) is same


@pytest.mark.parametrize(
    "values", [[1.5, 300.0], [-0.1, 1.0], [np.nan, 0.5], [0.2, 3.2], np.array([1, 2]), np.array([1], np.int16)]
)
def test_pixels_of_unknown_range_are_errors(values: Any) -> None:
    with pytest.raises(ValueError, match=r"bits from .* expected 8 bits, 16 bits without a sign, or floats"):
        eight_bits(np.asarray(values))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_every_mode_shows_the_same_picture(mode: str) -> None:
    color = np.array([[[255, 255, 255], [0, 0, 0], [200, 40, 40], [30, 90, 160]]], np.uint8)
    image = Image.fromarray(color)
    if mode in ("1", "L", "LA", "La"):
        expected = np.asarray(image.convert("L").convert("1" if mode == "1" else "L").convert("L"))
        image = image.convert("L").convert("LA").convert("La") if mode == "La" else image.convert("L").convert(mode)
    elif mode == "LAB":
        image, expected = Image.new("LAB", (4, 1), (255, 128, 128)), np.full((1, 4, 3), 255)
    else:
        expected = color
        image = (image.quantize(4) if mode[0] == "P" else image.convert("RGBA" if mode == "RGBa" else mode)).convert(
            mode
        )
    found = np.asarray(upright(image)).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (10 if mode in ("HSV", "YCbCr", "LAB") else 1)


def test_a_transparent_value_of_16_bits_is_white(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 9, 257 * 200]], dtype=np.uint16)
    stored = io.BytesIO()
    Image.fromarray(values).save(stored, "PNG")
    name_and_value = b"tRNS" + struct.pack(">H", 257 * 9)  # not by `transparency=`, which older Pillow refuses
    chunk = struct.pack(">I", 2) + name_and_value + struct.pack(">I", zlib.crc32(name_and_value))
    header = 8 + 25  # signature and IHDR
    (tmp_path / "t.png").write_bytes(stored.getvalue()[:header] + chunk + stored.getvalue()[header:])
    assert from_file(tmp_path / "t.png", Form(1, 3, 1)).tolist() == [[[0, 255, 200]]]


def test_the_given_image_is_not_changed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = io.BytesIO()
    Image.fromarray(noise(0, (6, 10, 3))).save(stored, "PNG", exif=exif)
    image = Image.open(stored)
    turned = upright(image)
    assert (image.size, turned.size) == ((10, 6), (6, 10))
    assert image.getexif()[0x0112] == 6
    assert np.array_equal(np.asarray(upright(turned)), np.asarray(turned))  # it is not turned twice


def test_damaged_metadata_beside_whole_pixels_are_no_fault() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", TiffImagePlugin.IFDRational(72, 1)
    exif.get_ifd(0x8769)[0x829A] = TiffImagePlugin.IFDRational(1, 100)
    stored = io.BytesIO()
    Image.fromarray(noise(0, (6, 10, 3))).save(stored, "JPEG", exif=exif)
    content = bytearray(stored.getvalue())
    start = content.index(b"Exif") + 6
    rng = np.random.default_rng(0)
    shapes = set()
    for _ in range(400):
        damaged = bytearray(content)
        for place in rng.integers(start, start + len(exif.tobytes()) - 6, size=3):
            damaged[place] = rng.choice([0, 1, 2, 5, 7, 128, 255])
        found = decode_upright(partial(Image.open, io.BytesIO(bytes(damaged))))
        assert isinstance(found, Image.Image), found
        shapes.add(found.size)
    assert shapes == {(10, 6), (6, 10)}  # the orientation survives some of it


def test_the_limit_of_large_pictures_can_be_raised(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(4):
            Image.new("1", (1500, 1000)).save(tmp_path / name / f"{k}.png")
    before = Image.MAX_IMAGE_PIXELS
    message = r"0\.png': a picture of 2 megapixels, above the limit of 1; set data\.max_megapixels to 2 or more"
    for skip in (False, True):  # it is whole, so it is not left out
        with pytest.raises(InputError, match=message):
            load_dataset(f"folder:{tmp_path}", image_size=8, max_megapixels=1, skip_corrupt=skip)
    assert load_dataset(f"folder:{tmp_path}", image_size=8, max_megapixels=2).train.shape == (1, 8, 8)
    with pytest.raises(InputError, match=message):
        read_files([tmp_path / "a" / "0.png"], Reading(max_megapixels=1))
    assert before == Image.MAX_IMAGE_PIXELS


def test_pillows_own_limit_holds_where_none_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (1500, 1000)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # which it merely warns of
    assert read_files([tmp_path / "x.png"]).shape == (1, 1000, 1500)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**5)
    with pytest.raises(InputError, match="2 megapixels, above the limit of 1"):
        read_files([tmp_path / "x.png"])


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
    assert found.reason == f"expected 6 x 6 pixels as 'first.png', got 14 x 6; {RESIZE}"


def test_color_among_gray_is_refused_unless_it_may_be_converted(tmp_path: Path) -> None:
    color = noise(0, (6, 10, 3))
    Image.fromarray(color).save(tmp_path / "x.png")
    found = decode(partial(Image.open, tmp_path / "x.png"), GRAY)
    assert isinstance(found, Fault)
    assert not found.corrupt
    luma = np.rint(color @ np.array([0.299, 0.587, 0.114]))
    gray = from_file(tmp_path / "x.png", Form(6, 10, 1, convert=True))
    assert np.abs(gray[0].astype(float) - luma).max() <= 1
    Image.fromarray(np.stack([luma.astype(np.uint8)] * 3, -1)).save(tmp_path / "same.png")
    assert np.array_equal(from_file(tmp_path / "same.png", GRAY)[0], luma)


@pytest.mark.parametrize(("least", "size"), [(None, (640, 320)), (400, (640, 320)), (160, (320, 160)), (50, (160, 80))])
def test_jpeg_is_decoded_at_the_least_fraction_that_suffices(
    least: int | None, size: tuple[int, int], tmp_path: Path
) -> None:
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (320, 640, 3))).save(tmp_path / "x.jpg", quality=95)
    found = decode_upright(partial(Image.open, tmp_path / "x.jpg"), least=least)
    assert isinstance(found, Image.Image)
    assert found.size == size
    exact = Image.fromarray(np.broadcast_to(ramp, (320, 640))).resize(size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found)[..., 0].astype(int) - np.asarray(exact).astype(int)).max() <= 3


def test_turned_jpeg_and_other_formats_keep_the_decode_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(0, (120, 200, 3))).save(tmp_path / "x.jpg", exif=exif)
    Image.fromarray(noise(0, (120, 200, 3))).save(tmp_path / "x.png")
    assert from_file(tmp_path / "x.jpg", Form(8, 8, 3, whole=60, decode_size=60)).shape == (3, 100, 60)
    assert from_file(tmp_path / "x.jpg", Form(8, 8, 3, whole=50, decode_size=50)).shape == (3, 83, 50)
    assert from_file(tmp_path / "x.png", Form(8, 8, 3, whole=60, decode_size=60)).shape == (3, 60, 100)
    assert from_file(tmp_path / "x.png", Form(8, 8, 3, whole=500, decode_size=500)).shape == (3, 120, 200)
    assert from_file(tmp_path / "x.jpg", Form(8, 8, 3, fit=True, decode_size=60)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"decode_size": 224}, "an image_size with it, got none; set data.image_size"),
        ({"decode_size": 200, "image_size": 224}, "at least image_size / crop_share, 224 pixels, got 200"),
        ({"decode_size": 255, "image_size": 224, "crop_share": 0.875}, "at least .*, 256 pixels, got 255"),
        ({"decode_size": 1.5, "image_size": 1}, "a whole number of 1 or more, got 1.5"),
    ],
)
def test_a_decode_size_below_what_evaluation_shows_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=f"data.decode_size: expected {problem}"):
        load_dataset("digits", **settings)
