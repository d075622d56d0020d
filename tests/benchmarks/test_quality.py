"""The measures of benchmarks/quality.py against cases whose answer is known."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.integration

FILE = Path(__file__).parent.parent.parent / "benchmarks" / "quality.py"


def load_benchmark():
    spec = importlib.util.spec_from_file_location("quality_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(FILE.parent))  # as where it is run, for what stands beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FILE.parent))
    return module


quality = load_benchmark()
CONTENDERS = {contender.name: contender for contender in quality.contenders()}


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).random((171, 235), dtype=np.float32)


def smooth_image() -> np.ndarray:
    y, x = np.mgrid[:160, :160] / 160
    return (0.5 + 0.2 * np.sin(2 * np.pi * 3 * x) + 0.2 * np.cos(2 * np.pi * 2 * y)).astype(np.float32)


def test_patches_are_cut_in_order_and_keep_away_from_the_seam():
    image = np.arange(100 * 164, dtype=np.float64).reshape(100, 164)
    cut = quality.patches(image)
    assert cut.shape == (2, 64, 64)  # (100 - 32) // 64 rows, (164 - 32) // 64 columns
    assert np.array_equal(cut[0], image[16:80, 16:80])
    assert np.array_equal(cut[1], image[16:80, 80:144])


def test_psnr_of_known_noise(noise):
    sigma = 0.02
    noisy = noise + np.random.default_rng(1).normal(0, sigma, noise.shape)
    found = float(quality.psnr(quality.squared_error(noise, noisy).mean()))
    assert found == pytest.approx(-20 * math.log10(sigma), abs=0.15)
    assert quality.psnr(np.array(0.0)) == math.inf


@pytest.mark.parametrize(("cycles", "share"), [(27, 1.0), (7, 0.0)])
def test_a_grating_lies_above_half_nyquist_or_below(cycles, share):
    x = np.arange(160)
    grating = np.tile(0.5 + 0.4 * np.sin(2 * np.pi * cycles * x / 64), (160, 1)).astype(np.float32)
    whole = ((quality.patches(grating) - quality.patches(grating).mean(axis=(1, 2), keepdims=True)) ** 2).sum()
    above = quality.energy_above_half_nyquist(grating, axis=1).sum()
    # Parseval: the sum over frequencies is 64 * 64 times the energy that the window lets through.
    windowed = 64 * 64 * whole * (np.hanning(66) ** 2).sum() ** 2 / 64**2
    assert above / windowed == pytest.approx(share, abs=0.005)
    # Along y nothing changes, so nothing is above half Nyquist.
    assert quality.energy_above_half_nyquist(grating, axis=0).sum() < 1e-3 * windowed


def test_bilinear_keeps_a_fifth_of_white_noise_above_half_nyquist(noise):
    bilinear = CONTENDERS["augkit bilinear"].shift
    kept = [
        quality.energy_above_half_nyquist(bilinear(noise, *pixels), axis).sum()
        / quality.energy_above_half_nyquist(noise, axis).sum()
        for axis, pixels in ((1, (0.5, 0.0)), (0, (0.0, 0.5)))
    ]
    # The mean of cos(pi f)^2 for f from 1/4 to 1/2 is 1/2 - 1/pi.
    assert kept == pytest.approx([0.5 - 1 / math.pi] * 2, abs=0.02)
    assert kept == pytest.approx([0.2, 0.2], abs=0.04)


@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders_move_whole_pixels_as_roll_does(name, noise):
    moved = CONTENDERS[name].shift(noise, 3.0, -2.0)
    assert moved.shape == noise.shape
    assert moved.dtype == np.float32
    assert np.abs(moved - np.roll(noise, (-2, 3), axis=(0, 1))).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in CONTENDERS if "nearest" not in name])
def test_contenders_move_right_and_down_by_fractions(name):
    image = smooth_image()
    truth = CONTENDERS["augkit fourier"].shift(image, 0.25, 0.75)
    assert np.abs(CONTENDERS[name].shift(image, 0.25, 0.75) - truth).max() < 5e-3
    assert np.abs(CONTENDERS[name].shift(image, -0.25, -0.75) - truth).max() > 2e-2


def test_walks_end_on_whole_pixels():
    steps = quality.random_walk(np.random.default_rng(3))
    assert steps.shape == (8, 2)
    assert np.abs(steps).max() <= 1
    assert steps.sum(axis=0) == pytest.approx(np.rint(steps.sum(axis=0)), abs=1e-12)


def test_fourier_on_an_odd_torus_loses_nothing_on_the_way(noise):
    fourier = CONTENDERS["augkit fourier"].shift
    steps = quality.random_walk(np.random.default_rng(0))
    assert quality.psnr(quality.there_and_back(fourier, noise, (0.3, -0.4)).mean()) > 100
    assert quality.psnr(quality.walk(fourier, noise, steps).mean()) > 90


def test_more_taps_lose_less(noise):
    names = ("bilinear", "bicubic", "lanczos3", "sinc")
    errors = [quality.there_and_back(CONTENDERS[f"augkit {k}"].shift, noise, (0.5, 0.5)).mean() for k in names]
    assert errors == sorted(errors, reverse=True)


def test_losses_are_found_and_ties_are_not():
    def contender(name, ours):
        return quality.Contender(name, "cubic", "4", lambda image, x, y: image, ours)

    rng = np.random.default_rng(0)
    base = {
        "round_trip_psnr": 36 + rng.normal(0, 0.1, 200),
        "steps_psnr": 30 + rng.normal(0, 0.1, 200),
        "energy_kept": 45 + rng.normal(0, 0.1, 200),
    }
    tie = {name: values + 1e-4 for name, values in base.items()}
    # 155 % is as wrong as 45 %: sharpening is no loss of ours.
    better = {**base, "round_trip_psnr": base["round_trip_psnr"] + 1, "energy_kept": 200 - base["energy_kept"]}
    entrants = [contender("mine", True), contender("tie", False), contender("better", False)]
    found = quality.losses(entrants, {"mine": base, "tie": tie, "better": better})
    assert [(one["peer"], one["measure"]) for one in found] == [("better", "round_trip_psnr")]
    assert found[0]["behind"]["value"] == pytest.approx(1.0)


def test_a_run_writes_results_that_leak_nothing(tmp_path, monkeypatch, noise):
    few = [CONTENDERS[name] for name in ("augkit nearest", "augkit bilinear", "augkit bicubic")]
    monkeypatch.setattr(quality, "contenders", lambda: few)
    monkeypatch.setattr(quality, "load_photographs", lambda: {"noise": noise})
    quality.main(["--output", str(tmp_path)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quality.json", "quality.md", "quality.png"]
    text = (tmp_path / "quality.json").read_text()
    results = json.loads(text)
    assert results["command"] == "python benchmarks/quality.py"
    assert results["n"]["patches"] == 6
    assert str(tmp_path) not in text
    assert results["rows"][0]["round_trip_psnr"]["value"] is None  # exact: infinite
    for row in results["rows"][1:]:
        assert row["steps_psnr"]["low"] <= row["steps_psnr"]["value"] <= row["steps_psnr"]["high"]
    assert "**augkit bicubic**" in (tmp_path / "quality.md").read_text()
