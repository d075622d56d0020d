"""Measures the invariance of networks, by the command `python -m augkit.measure` or the function `measure`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.measure.networks import NetworksResults as NetworksResults
    from augkit.measure.networks import measure_networks as measure_networks
    from augkit.measure.output_results import OutputResults as OutputResults
    from augkit.measure.pipeline import measure as measure
    from augkit.measure.results import MeasureResults as MeasureResults
    from augkit.measure.settings import MeasureSettings as MeasureSettings
    from augkit.measure.side_by_side import NetworkTable as NetworkTable
    from augkit.measure.side_by_side import network_table as network_table

__getattr__, __dir__ = lazy(
    __name__,
    {
        "MeasureResults": "results",
        "MeasureSettings": "settings",
        "NetworkTable": "side_by_side",
        "NetworksResults": "networks",
        "OutputResults": "output_results",
        "measure": "pipeline",
        "measure_networks": "networks",
        "network_table": "side_by_side",
    },
)
