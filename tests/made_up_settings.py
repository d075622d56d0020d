"""Settings of a measurement that was never made, for reports whose statistics are made up."""

from __future__ import annotations

from augkit.invariance import Plan
from augkit.invariance.report import MeasurementSettings

SETTINGS = MeasurementSettings(
    protocol="crop",
    kernel="sinc",
    axis="shift",
    max_shift=8.0,
    pairs=4,
    seed=0,
    images=60,
    image_size=[32, 32],
    input_size=[16, 16],
    background=0.0,
    lengths=[],
    plan=Plan(),
    views=9,
    views_of_pairs=8,
    channels="3",
    precision="float32",
    compiled=False,
    device="cpu",
    classes=4,
)
