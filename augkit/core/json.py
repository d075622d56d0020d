"""Results as JSON."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def jsonable(value: Any) -> Any:
    """Convert a value to plain data for `json.dumps`: results by ``to_dict``, numpy numbers, NaN and infinity as None.

    >>> jsonable({"a": (1, math.nan), 2.5: np.float32(0.5)})
    {'a': [1, None], '2.5': 0.5}
    """
    if hasattr(value, "to_dict"):
        return jsonable(value.to_dict())
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
