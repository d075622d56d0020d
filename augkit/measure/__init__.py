"""Measures the invariance of networks, by the command `python -m augkit.measure` or the function `measure`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.measure.output_results import OutputResults as OutputResults
    from augkit.measure.pipeline import measure as measure
    from augkit.measure.results import MeasureResults as MeasureResults
    from augkit.measure.settings import MeasureSettings as MeasureSettings

__getattr__, __dir__ = lazy(
    __name__,
    {
        "MeasureResults": "results",
        "MeasureSettings": "settings",
        "OutputResults": "output_results",
        "measure": "pipeline",
    },
)
