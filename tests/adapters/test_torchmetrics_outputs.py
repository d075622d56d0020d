"""The equivariance error of maps as a metric of torchmetrics."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dense_networks import segmenter
from measured import photo_like
from torch import Tensor

import augkit
from augkit.adapters.torchmetrics import EquivarianceError
from augkit.core.errors import InputError
from augkit.invariance.plan import Pairs, Plan

MAPS = torch.rand(3, 2, 8, 8)
STILL = torch.zeros(3, 2)


@pytest.mark.parametrize(("stride", "circular"), [(1, False), (2, False), (2, True)])
def test_uneven_batches_give_the_number_of_measure_outputs(stride: int, circular: bool) -> None:
    network, images, step = segmenter(stride), photo_like(7, 36), (1.0, -2.0)
    plan = Plan(pairs=Pairs(1, 0, 0, step=step))
    protocol = "circular" if circular else "crop"
    kernel = "lanczos3"
    wanted = measure(network, images, plan, protocol, None if circular else kernel)
    if circular:
        first, second = images, images.roll((-2, 1), (-2, -1))
    else:
        first, second = images[..., 2:34, 2:34], images[..., 4:36, 1:33]
    metric = EquivarianceError(circular=True) if circular else EquivarianceError(kernel=kernel)
    with torch.no_grad():
        for rows in (slice(0, 2), slice(2, 7)):
            metric.update(network(first[rows]), network(second[rows]), torch.tensor([step]).expand(7, 2)[rows] / stride)
    assert metric.compute().item() == pytest.approx(wanted, rel=1e-5)


def measure(network: torch.nn.Module, images: Tensor, plan: Plan, protocol: str, kernel: str | None) -> float:
    report = augkit.measure_outputs(network, images, plan=plan, protocol=protocol, map_kernel=kernel)
    return report.equivariance_error.value


def test_constant_maps_are_left_out() -> None:
    metric = EquivarianceError()
    metric.update(torch.ones(3, 2, 8, 8), MAPS, STILL)
    assert metric.compute().isnan()
    metric.update(MAPS, MAPS, STILL)
    metric.update(MAPS[:0], MAPS[:0], STILL[:0])  # an empty batch adds nothing
    assert metric.compute() == 0


@pytest.mark.parametrize(
    ("first", "second", "pixels", "message"),
    [
        (MAPS, MAPS[:, :1], STILL, "expected two maps of one shape"),
        (MAPS, MAPS, STILL[:2], r"expected two maps of one shape and \(B, 2\)"),
        (MAPS[0], MAPS[0], STILL, r"expected floating maps \(B, C, h, w\)"),
        (MAPS.long(), MAPS, STILL, "expected floating maps"),
        (MAPS / 0, MAPS, STILL, "first and second: expected finite values"),
        (MAPS, MAPS, STILL / 0, "pixels: expected finite values"),
        (MAPS, MAPS, [[0.0, 0.0]] * 3, r"pixels: expected a real tensor \(B, 2\), got list"),
        (MAPS, MAPS, STILL.to(torch.complex64), "pixels: expected a real tensor"),
        (MAPS, MAPS, STILL.bool(), "pixels: expected a real tensor"),
        (MAPS, MAPS.to("meta"), STILL, "expected tensors on one device, got cpu and meta"),
        (MAPS.to_sparse(), MAPS, STILL, "first and second: expected a dense tensor"),
    ],
)
def test_bad_input_gets_one_clear_line(first: Tensor, second: Tensor, pixels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EquivarianceError().update(first, second, pixels)


def test_unknown_kernels_are_named() -> None:
    with pytest.raises(InputError, match="unknown kernel 'sinus'"):
        EquivarianceError(kernel="sinus")
    with pytest.raises(InputError, match="unknown kernel 'nearest'"):
        EquivarianceError(kernel="nearest", circular=True)
