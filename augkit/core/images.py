"""Writes images as files and as data URLs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def data_url(picture: Image.Image) -> str:
    """Return an image as a ``data:`` URL."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return png_source(buffer.getvalue())


def png_source(content: bytes) -> str:
    """Return the bytes of a PNG file as a ``data:`` URL."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def save(picture: Image.Image, path: Path) -> None:
    """Write an image as PNG, for any file name."""
    picture.save(path, format="PNG", optimize=True)
