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
    middle, least, most = SPEED["turns"]["over_bare"]
    passes = f"bare forward passes of the network as it is ({least:.2f} to {most:.2f})"
    assert f"logits takes {middle:.2f} times the processor time of the {passes}" in text
    assert f"{SPEED['turns']['over_folded'][0]:.2f} times that of passes with folded norms" in text


def test_the_guide_has_the_overhead_of_embeddings_and_maps() -> None:
    outputs, text = SPEED["outputs"], " ".join((ROOT / "docs" / "loops.md").read_text().split())

    def told(name: str) -> str:
        middle, least, most = outputs[name]["over_bare"]
        return f"{middle:.2f} times ({least:.2f} to {most:.2f})"

    assert f"Measuring its embeddings takes {told('embeddings of tf_efficientnet_lite0')}" in text
    deeplab, lraspp = (told(f"maps of {name}_mobilenet_v3_large") for name in ("deeplabv3", "lraspp"))
    assert f"take {deeplab} with DeepLab v3 on MobileNet v3, and {lraspp} with LRASPP" in text
    assert f"({outputs['images']} images, two pairs of shifts each, in batches of {outputs['batch']}, as" in text
    folded = [outputs[f"maps of {name}_mobilenet_v3_large"]["over_folded"][0] for name in ("deeplabv3", "lraspp")]
    assert "the two take {:.2f} and {:.2f} times".format(*folded) in text
    gains = [row["gain"][0] for row in (outputs[name] for name in outputs if " of " in name)]
    named = (f"{gain:.2f}" for gain in (gains[0], gains[2], gains[1]))
    assert "these three took {}, {} and {} times as long".format(*named) in text
    loaded = SPEED["runs"]["outputs"]["load_before"][0] > 2
    assert ("beside other work on the machine" in text) == loaded


def test_the_default_batch_is_within_a_tenth_of_the_fastest() -> None:
    for found in SPEED["batches"].values():
        rates = {int(size): row["images_per_cpu_second"] for size, row in found.items()}
        assert rates[BATCHES["cpu"]] >= 0.9 * max(rates.values())
