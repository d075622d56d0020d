"""Shift information: laws, networks that only change confidence, and entropy-matched JS, with slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from augkit.invariance import InvarianceReport, Pairs, Plan, compare_invariance, learned_invariance, measure_invariance
from augkit.invariance.information import FACTORS, entropy, matched_js, shift_bits, shift_information
from augkit.invariance.metrics import jensen_shannon

IMAGES = torch.rand(120, 1, 20, 20, generator=torch.Generator().manual_seed(0))


def mutual_information(joint: np.ndarray) -> float:
    """Bits between the first axis and the second of a joint distribution, straight from the definition."""
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    inside = joint > 0
    return float((joint[inside] * np.log2(joint[inside] / (rows * columns)[inside])).sum())


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 4), st.integers(2, 6), st.floats(0.1, 30.0))
@settings(max_examples=25, deadline=None)
def test_it_is_a_ratio_of_mutual_informations(seed: int, images: int, views: int, classes: int, sharp: float) -> None:
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(sharp * rng.normal(size=(images, views, classes))).softmax(-1)
    joint = p.numpy() / (images * views)
    whole = mutual_information(joint.reshape(images * views, classes))
    of_shift = np.mean([mutual_information(p[n].numpy() / views) for n in range(images)])
    assert shift_information(p).item() == pytest.approx(of_shift / whole, abs=1e-9)


def test_perfect_shift_only_and_constant_answers() -> None:
    by_image = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 3, 4)
    assert shift_information(by_image).item() == 0
    assert shift_information(by_image.transpose(0, 1)).item() == 1
    assert math.isnan(shift_information(torch.full((5, 3, 4), 0.25)).item())


def test_answers_that_are_nearly_certain_keep_their_digits() -> None:
    certain = torch.tensor([[[40.0, 0.0], [42.0, 0.0]], [[0.0, 40.0], [0.0, 40.0]]], dtype=torch.float64).softmax(-1)
    p, q = certain[0]
    # By the definition with logarithms of 1 - x, which lose nothing.
    a, b = math.exp(-40), math.exp(-42)
    mean = (a + b) / 2
    small = [-(x * math.log(x) + (1 - x) * math.log1p(-x)) / math.log(2) for x in (mean, a, b)]
    assert shift_bits(torch.stack([p, q])).item() == pytest.approx(small[0] - (small[1] + small[2]) / 2, abs=1e-15)
    assert 0 <= shift_information(certain).item() < 1e-12


@pytest.mark.parametrize("views", [2, 4, 8])
def test_with_s_views_only_the_numerator_is_too_small_by_one_part_in_s(views: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(400, 1, 5, generator=generator, dtype=torch.float64)
    many = (2 * image + 0.3 * torch.randn(400, 256, 5, generator=generator, dtype=torch.float64)).softmax(-1)
    whole, few = shift_information(many), shift_information(many[:, :views])
    assert few.item() == pytest.approx(whole.item() * (1 - 1 / views), rel=0.04)


def test_two_views_give_the_jensen_shannon_divergence() -> None:
    p = torch.randn(9, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    torch.testing.assert_close(shift_bits(p), jensen_shannon(p[:, 0], p[:, 1]))
    assert entropy(torch.tensor([1.0, 0.0])).item() == 0


def test_matched_js_finds_the_network_behind_a_temperature() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(200, 1, 6, generator=generator) + torch.randn(200, 2, 6, generator=generator)
    logits = logits.double()

    def tables(x: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.stack([(factor * x).softmax(-1) for factor in FACTORS])
        return jensen_shannon(p[:, :, 0], p[:, :, 1]).mean(1), entropy(p[:, :, 0]).mean(1)

    js, bits = tables(logits)
    middle = len(FACTORS) // 2
    for factor in (0.21, 0.5, 0.93, 1.7, 6.0):
        scaled = tables(factor * logits)
        # Linear interpolation between factors a third of an octave apart.
        assert matched_js(*scaled, bits[middle]).item() == pytest.approx(js[middle].item(), rel=0.01)
    flat = torch.full((len(FACTORS),), math.log2(6), dtype=torch.float64)
    assert math.isnan(matched_js(0 * js, flat, bits[middle]).item())  # no factor makes a constant network sure


class Strided(nn.Module):
    """A small network that aliases; its logits are divided by ``temperature``."""

    def __init__(self, temperature: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        self.temperature = temperature
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(8, 1, 5, 5, generator=generator))
        self.last = nn.Parameter(torch.randn(4, 8 * 9, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(nn.functional.conv2d(images - images.mean((-1, -2), keepdim=True), self.first, stride=5))
        return maps[..., :3, :3].flatten(1) @ self.last.T / self.temperature


def measured(model: nn.Module, images: Tensor = IMAGES, pairs: int = 3) -> InvarianceReport:
    return measure_invariance(model, images, plan=Plan(pairs=Pairs(pairs, -2.0, 2.0)))


def test_a_temperature_is_not_taken_for_invariance() -> None:
    control = measured(Strided())
    for temperature in (2.0, 4.0, 8.0):
        found = compare_invariance(measured(Strided(temperature)), control)
        assert found.verdict in ("disputed", "undetermined")
        assert found.by["entropy_matched_js"].value == pytest.approx(0, abs=0.01)
        assert found.by["top1_change"].value == 0
    hot = measured(Strided(8.0))
    assert learned_invariance(hot, control, metric="js").low > 0.5  # which is what JS alone says of it


def test_constant_and_near_constant_networks_are_not_called_invariant() -> None:
    control, constant = measured(Strided()), measured(Strided(1e9))
    assert not constant.shift_information.defined
    assert compare_invariance(constant, control).verdict == "undefined"
    near = compare_invariance(measured(Strided(200.0)), control)
    assert near.verdict != "more"


def test_a_network_that_answers_at_random_is_all_shift() -> None:
    class Random(nn.Module):
        """Depends on every pixel, and on no image as a whole."""

        def forward(self, images: Tensor) -> Tensor:
            noise = torch.sin(1e5 * images.flatten(1).double() @ torch.linspace(1, 2, images[0].numel()).double())
            return 50 * torch.stack([torch.sin(noise * k * 1e4) for k in range(1, 5)], dim=-1).float()

    found = measured(Random(), pairs=4).shift_information
    assert found.value > 0.6
    assert not learned_invariance(measured(Random()), measured(Random())).value > 0


def test_an_invariant_network_scores_one_hundred_per_cent() -> None:
    class Mean(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            brightness = images.mean((-1, -2))
            return torch.cat([20 * brightness, -20 * brightness, 10 - 20 * brightness, 0 * brightness], dim=1)

    images = IMAGES * torch.linspace(0.2, 1, len(IMAGES))[:, None, None, None]
    control = measure_invariance(Strided(), images, protocol="circular", max_shift=3.0)
    exact = measure_invariance(Mean(), images, protocol="circular", max_shift=3.0)
    assert exact.shift_information.value == pytest.approx(0, abs=1e-9)
    found = compare_invariance(exact, control)
    assert found.verdict == "more"
    assert found.by["shift_information"].low > 0.9999


def test_kept_probabilities_reproduce_the_measure() -> None:
    plan = Plan(pairs=Pairs(3, -2.0, 2.0))
    found = measure_invariance(Strided(), IMAGES, plan=plan, keep_probabilities=True)
    assert found.log_probabilities is not None
    assert found.log_probabilities.shape == (len(IMAGES), len(plan.layout.columns), 4)
    views = sorted({column for pair in plan.layout.pairs for column in pair})
    again = shift_information(found.log_probabilities[:, views].double().exp())
    assert again.item() == pytest.approx(found.shift_information.value, rel=2e-3)
    assert measured(Strided()).log_probabilities is None
