"""Keypoints: moved back, in pixels, on views that both show them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from augkit import measure_outputs
from augkit.core.errors import InputError


class Brightest(nn.Module):
    """The brightest and the darkest pixel of a view, at every ``stride``-th pixel; with a score where asked."""

    def __init__(self, stride: int = 1, *, scored: bool = False, off: float = 0.0) -> None:
        super().__init__()
        self.stride, self.scored, self.off = stride, scored, off

    def forward(self, images: Tensor) -> Tensor:
        maps = images[:, 0, :: self.stride, :: self.stride]
        found = []
        for sign in (1, -1):
            at = (sign * maps).flatten(1).argmax(1)
            point = self.stride * torch.stack([at % maps.shape[-1], at // maps.shape[-1]], dim=1)
            found.append(point.to(images) + self.off * images[:, 0, 0, :2])
        points = torch.stack(found, dim=1)
        score = torch.full_like(points[..., :1], 0.9)
        return torch.cat([points, score], dim=2) if self.scored else points


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.rand(8, 1, 20, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("scored", [False, True])
def test_keypoints_that_move_with_the_image_have_no_error(noise: Tensor, scored: bool) -> None:
    report = measure_outputs(Brightest(scored=scored), noise, protocol="circular", max_shift=6)
    assert report.kind == "keypoints"
    for name in ("error", "far", "one_sided", "error_median", "error_95", "equivariance_error"):
        assert getattr(report, name).value == pytest.approx(0, abs=1e-5), name
    assert report.statistics["points"].sum() == 16  # a mean over 4 pairs, so all of them counted


def test_strided_keypoints_err(noise: Tensor) -> None:
    report = measure_outputs(Brightest(2), noise, protocol="circular", max_shift=4)
    assert report.error.low > 0.3
    assert report.error_median.value <= report.error_95.value
    assert 0 < report.far.value <= 1
    assert report.equivariance_error.value > 0


def test_numbers_are_those_of_a_slow_loop(noise: Tensor) -> None:
    class Fixed(nn.Module):
        """Keypoints that never move: every error is the shift itself."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[5.0, 5.0], [8.0, 6.0]]).expand(len(images), 2, 2)

    report = measure_outputs(Fixed(), noise, max_shift=3, pairs=5)
    shifts = report.settings.plan.displacements(0, 0, 8)
    columns = [pair for pair in report.settings.plan.layout.pairs]
    errors = [float((shifts[n, t, :2] - shifts[n, s, :2]).norm()) for n in range(8) for s, t in columns]
    assert report.error.value == pytest.approx(np.mean(errors), rel=1e-5)
    assert report.far.value == pytest.approx(np.mean(np.array(errors) > 1))
    assert report.error_median.value == pytest.approx(np.quantile(errors, 0.5, method="inverted_cdf"), rel=1e-5)
    # The two keypoints are sqrt(10) / 2 pixels from their mean.
    assert report.equivariance_error.value == pytest.approx(np.mean(errors) / (np.sqrt(10) / 2), rel=1e-5)


def test_keypoints_outside_of_either_view_are_left_out(noise: Tensor) -> None:
    class Corner(nn.Module):
        """A keypoint at the first pixel, that any move to the left or up takes out of the view."""

        def forward(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), 1, 2)

    report = measure_outputs(Corner(), noise, max_shift=3, pairs=6)
    moves = report.settings.plan.displacements(0, 0, 8)[:, 1:, :2]
    inside = ((moves >= -0.5) & (moves < 14 - 0.5)).all(-1).double().mean(1)
    torch.testing.assert_close(report.statistics["points"][:, 0], inside)
    assert not report.equivariance_error.defined  # a single keypoint does not differ from its mean


def test_keypoints_below_the_threshold_are_left_out(noise: Tensor) -> None:
    report = measure_outputs(Brightest(scored=True), noise, max_shift=2, keypoint_score=0.95)
    assert not report.error.defined
    assert not report.error_median.defined
    assert "No keypoint" in report.notes[0]


def test_other_shapes_are_one_line(noise: Tensor) -> None:
    class Tokens(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.new_zeros(len(images), 3, 5)

    with pytest.raises(InputError, match=r"expected keypoints \(B, K, 2\) or \(B, K, 3\), got \(1, 3, 5\)|got \(8, 3"):
        measure_outputs(Tokens(), noise, output="keypoints", max_shift=1)
