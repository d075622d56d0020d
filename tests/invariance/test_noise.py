"""Noise in place of displacements: its size, and that it depends on nothing but the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from augkit.core.errors import InputError
from augkit.invariance import lie_derivative, measure_invariance
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import make_protocol
from augkit.invariance.views import NoisyViews, Views

IMAGES = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(3))


def test_every_view_is_as_far_from_the_image_as_its_displacement_puts_it() -> None:
    plan = Plan(pairs=Pairs(2, -3.0, 3.0), lengths=(2.0,))
    views = Views(plan, make_protocol("embed", (8, 8), max_shift=3.0), IMAGES, plan.displacements(0, 0, 6))
    noisy, still = NoisyViews(views, 0, 0), views(0)
    assert torch.equal(noisy(0), still)
    for k in range(1, len(plan.layout.columns)):
        sizes = [(view - still).flatten(1).norm(dim=1) for view in (views(k), noisy(k))]
        torch.testing.assert_close(sizes[1], sizes[0], rtol=1e-4, atol=1e-5)
    first, second = ((noisy(k) - still).flatten(1) for k in (1, 2))
    assert torch.nn.functional.cosine_similarity(first, second).abs().max() < 0.4  # independent directions


def test_noise_does_not_depend_on_the_batch_size() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 64, 4))
    how = {"max_shift": 2.0, "protocol": "circular", "pairs": 2, "noise": True}
    reports = [measure_invariance(net, IMAGES, batch_size=size, **how) for size in (1, 4, 6)]  # type: ignore[arg-type]
    for report in reports[1:]:
        torch.testing.assert_close(report.statistics["js"], reports[0].statistics["js"], rtol=1e-4, atol=1e-7)


def test_an_exactly_invariant_network_is_sensitive_to_noise_alone() -> None:
    net = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    net.append(nn.Flatten())
    plan = Plan(pairs=Pairs(2, -2.0, 2.0, quantum=1.0))
    still, noisy = (
        measure_invariance(net, IMAGES, plan=plan, protocol="circular", noise=noise) for noise in (False, True)
    )
    assert still.logit_change.value < 1e-5
    assert noisy.logit_change.value > 1e-3
    assert noisy.fingerprint != still.fingerprint
    assert noisy.settings.to_dict()["noise"] is True
    assert "noise" not in still.settings.to_dict()


def test_a_mirrored_canvas_moves_with_the_image() -> None:
    """A whole shift shows another window of the image mirrored on all sides."""
    protocol = make_protocol("embed", (8, 8), max_shift=2.0, input_size=12, background="reflection")
    whole = np.pad(IMAGES.numpy(), ((0, 0), (0, 0), (7, 7), (7, 7)), mode="reflect")
    for x, y in ((0, 0), (2, -1), (-2, 1)):
        moved = protocol.shift(IMAGES, torch.tensor([[float(x), float(y)]] * 6))
        window = whole[:, :, 5 - y : 17 - y, 5 - x : 17 - x]
        np.testing.assert_allclose(moved.numpy(), window, atol=1e-6)
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 144, 3))
    with pytest.raises(InputError, match="expected a canvas that is constant, got background 'reflection'"):
        lie_derivative(net, IMAGES, protocol=protocol)
