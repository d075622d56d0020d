"""What the guide says of the speed of measuring is what was measured."""

from __future__ import annotations

import json
from pathlib import Path

from augkit.measure.settings import BATCHES

ROOT = Path(__file__).parent.parent.parent
SPEED = json.loads((ROOT / "benchmarks" / "results" / "measure-cpu.json").read_text())["speed"]


def test_the_guide_has_the_numbers_of_the_results() -> None:
    before, after = (SPEED["turns"][mode] for mode in ("before", "after"))
    text = " ".join((ROOT / "docs" / "loops.md").read_text().split())
    rates = f"{after['images_per_cpu_second']:.1f} images per second of processor time instead of "
    assert rates + f"{before['images_per_cpu_second']:.1f}" in text
    assert f"a peak of {after['peak_mib']} MiB instead of {before['peak_mib']}" in text
    assert f"{SPEED['turns']['images']} images, {SPEED['turns']['rounds']} rounds" in text


def test_the_default_batch_is_within_five_percent_of_the_fastest() -> None:
    for found in SPEED["batches"].values():
        rates = {int(size): row["images_per_cpu_second"] for size, row in found.items()}
        assert rates[BATCHES["cpu"]] >= 0.95 * max(rates.values())
