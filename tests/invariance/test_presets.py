"""Published protocols: settings as documented, and numbers as in the original definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from augkit.invariance import Measurement, Network
from augkit.invariance.batch_stream import batches
from augkit.invariance.presets import PRESETS
from augkit.invariance.protocols import ProtocolOptions

IMAGE_SIZE = {"zhang2019": 64, "azulay-weiss2019": 24}


class Patches(nn.Module):
    """Which 8 x 8 phase of a stride-8 comb is brightest: anything but invariant."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, ::8, ::8].flatten(1)[:, :9] * 9


def measured(name: str) -> Measurement:
    preset = PRESETS[name]
    side = IMAGE_SIZE.get(name, 40)
    images = torch.rand(20, 1, side, side, generator=torch.Generator().manual_seed(0))
    options = ProtocolOptions(preset.protocol, preset.kernel, background=preset.background)
    measurement = Measurement(Network(Patches()), preset.plan, options)
    measurement.run(batches(images, torch.zeros(20, dtype=torch.int64), 7))
    return measurement


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_measure_and_are_documented(name: str) -> None:
    preset = PRESETS[name]
    assert preset.source
    assert "per image" in preset.differs or name in ("gruver2023", "azulay-weiss2019")
    report = measured(name).report()
    assert 0 < report.top1_change.value <= 1
    assert report.settings.protocol == preset.protocol


def test_zhang_draws_two_windows_of_the_margin() -> None:
    moved = PRESETS["zhang2019"].plan.displacements(0, 0, 2000)[:, 1:, :2]
    # An offset o of 0..31 into a margin of 32 moves the content by 16 - o.
    assert sorted((16 - moved).unique().tolist()) == list(range(32))
    assert measured("zhang2019").settings.input_size == [32, 32]


def test_azulay_and_weiss_step_diagonally_and_walk_down() -> None:
    plan = PRESETS["azulay-weiss2019"].plan
    moved = plan.displacements(0, 0, 30)
    assert len(plan.layout.pairs) == 8
    for first, second in plan.layout.pairs:
        assert torch.equal(moved[:, second, :2] - moved[:, first, :2], torch.ones(30, 2))
    path = moved[0, list(plan.layout.path), :2]
    assert torch.equal(path.diff(dim=0), torch.tensor([[0.0, 1.0]]).expand(30, 2))


def test_chaman_excludes_the_end_of_the_range() -> None:
    moved = PRESETS["chaman2021"].plan.displacements(0, 0, 3000)[:, 1:, :2]
    assert sorted(moved.unique().tolist()) == list(range(-32, 32))


def test_michaeli_compares_with_the_image_itself() -> None:
    plan = PRESETS["michaeli2023"].plan
    assert plan.layout.pairs == ((0, 1),)
    assert sorted(plan.displacements(0, 0, 2000)[:, 1, :2].unique().tolist()) == list(range(1, 32))
    assert len(plan.grid) == 4 + 9
    assert all(0 < v < 1 for place in plan.grid for v in place)


def test_the_preset_of_gruver_has_lie_derivatives() -> None:
    lie = PRESETS["gruver2023"].lie
    assert lie is not None
    assert lie.directions == ("x", "y", "scale", "rotation")
