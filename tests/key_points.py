"""Key points of torchvision, which has them since 0.23."""

from __future__ import annotations

from typing import Any

import pytest
from torchvision import tv_tensors


def key_points(rows: Any, size: tuple[int, int]) -> Any:
    """Key points on a canvas ``(H, W)``; the test is skipped where torchvision has none."""
    if not hasattr(tv_tensors, "KeyPoints"):
        pytest.skip("this torchvision has no key points")
    return tv_tensors.KeyPoints(rows, canvas_size=size)
