"""Columns of a study's cell whose truth is known."""

from __future__ import annotations

import numpy as np


def bits_of(values: np.ndarray, images: str = "typical", said: float = 1.0) -> dict[str, np.ndarray]:
    """Columns of a set whose shift information per image is ``values``, and whose answers say ``said`` bits."""
    count = len(values)
    uniform = np.full((count, 4), 0.25)  # two bits, of which the answers leave 2 - said open
    named = {"shift_bits": said * values, "answer_bits": np.full(count, 2.0 - said), "answer_mean": uniform}
    return {f"{images}|{name}": column for name, column in named.items()}
