"""What all kinds of output share: recognition, views, bad input, worst cases, logits as an output."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from dense_networks import Returns, embedder, segmenter
from measured import photo_like
from torch import Tensor, nn

import augkit
from augkit.core.errors import InputError
from augkit.invariance.outputs import KINDS, OutputOptions, measure_outputs
from augkit.invariance.plan import Pairs, Plan, full_plan

IMAGES = photo_like(6, 12)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (lambda x: x.flatten(1), "embedding"),
        (lambda x: {"image_embeds": x.flatten(1), "last_hidden_state": x.flatten(2)}, "embedding"),
        (lambda x: SimpleNamespace(pooler_output=x.flatten(1)), "embedding"),
        (lambda x: {"out": x.expand(-1, 5, -1, -1), "aux": x}, "map"),
        (lambda x: x.expand(-1, 5, -1, -1), "map"),
        (lambda x: x[..., ::2, ::2], "map"),  # smaller than the input
        (lambda x: (x, x.flatten(1)), "image"),
        (lambda x: x.repeat_interleave(2, -1).repeat_interleave(2, -2), "image"),
    ],
)
def test_kinds_are_recognized_from_the_output(output: Callable[[Tensor], object], kind: str) -> None:
    assert measure_outputs(Returns(output), IMAGES, protocol="circular", pairs=1).kind == kind


@pytest.mark.parametrize("name", ["logits", "embedding"])
def test_a_named_kind_replaces_recognition(name: str) -> None:
    assert measure_outputs(embedder(), IMAGES, output=name, max_shift=1.0).kind == name


def test_logits_as_an_output_have_the_metrics_of_measure_invariance() -> None:
    network = nn.Sequential(embedder(2), nn.Linear(6, 4))
    labels, plan = torch.arange(6) % 4, Plan(pairs=Pairs(3, -2, 2))
    wanted = augkit.measure_invariance(network, IMAGES, labels, plan=plan)
    found = measure_outputs(network, IMAGES, labels, output="logits", plan=plan)
    for name in ("top1_change", "consistency", "mac", "js", "logit_change", "cosine_change"):
        assert getattr(found, name).value == pytest.approx(getattr(wanted, name).value, rel=1e-5), name
        assert getattr(found, name).low == pytest.approx(getattr(wanted, name).low, rel=1e-5), name


def grows() -> Callable[[Tensor], Tensor]:
    sides = iter(range(2, 99))
    return lambda images: images.new_zeros(len(images), 2, 12 * next(sides), 12)


def broken(images: Tensor) -> Tensor:
    out = images.expand(-1, 2, -1, -1).clone()
    out[-1, 0, 0, 0] = torch.nan
    return out


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        (broken, {}, "model: expected a finite output, got NaN or infinity, on images from 0 on"),
        (grows(), {}, r"model: expected outputs of one shape, got \(2, 36, 12\) and then \(2, 48, 12\)"),
        (lambda x: x[..., :7, :7], {}, "expected a map whose size divides its input's 12 x 12 pixels"),
        (lambda x: x.flatten(2), {}, r"expected a known output, got tokens \(1, 1, 144\)"),
        (lambda x: x.flatten(2)[:, :, :11].mT, {"output": "map"}, "expected tokens on a grid of the input's 12 x 12"),
        (lambda x: x.flatten(2), {"output": "embedding"}, r"expected embeddings \(B, D\), got tokens \(6, 1, 144\)"),
        (lambda x: x.flatten(1), {"output": "map"}, r"expected a map \(B, C, h, w\) for 6 images, got \(6, 144\)"),
        (lambda x: "text", {}, "expected a known output, got a str"),
        (lambda x: x.flatten(1).long(), {}, r"expected embeddings \(B, D\) in floating point, got int64"),
        (lambda x: x, {"output": "mpa"}, "unknown output 'mpa': did you mean 'map'?"),
        (
            lambda x: x,
            {"gallery": IMAGES},
            "gallery: it belongs to outputs of kind 'embedding', got one of kind 'image'",
        ),
        (lambda x: x, {"galery": IMAGES}, "unknown option 'galery'"),
        (lambda x: x, {"border": 1.0, "options": OutputOptions()}, "expected either one object or keywords"),
        (lambda x: x, {"map_kernel": "sinus"}, "unknown map_kernel 'sinus'"),
        (lambda x: x, {"border": -1.0}, "border: expected pixels of at least 0"),
        (lambda x: x, {"quantum": 0.0}, "quantum: expected pixels above 0"),
        (lambda x: x, {"max_scale": 1.1}, "max_scale belongs to axis 'scale'"),
        (lambda x: x, {"plan": Plan(), "pairs": 2}, "plan: it replaces"),
        (lambda x: x, {"plan": full_plan("scale", 1.2, 2)}, "plan: outputs are compared in pairs"),
        (lambda x: x, {"targets": torch.zeros(3)}, "targets: expected one for each of 6 images, got 3"),
        (lambda x: x, {"seed": -1}, "seed: expected a whole number of 0 or more"),
    ],
)
def test_bad_input_is_one_line(output: Callable[[Tensor], object], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_outputs(Returns(output), IMAGES, **({} if "plan" in options else {"max_shift": 0.0}), **options)


def test_a_negative_shift_is_one_line() -> None:
    with pytest.raises(InputError, match="max_shift: expected pixels of at least 0"):
        measure_outputs(segmenter(), IMAGES, max_shift=-1.0)


@pytest.mark.parametrize(("most", "quantum"), [(0.5, 1.0), (2.0, 3.0)])
def test_shifts_below_the_quantum_are_refused_not_measured_as_none(most: float, quantum: float) -> None:
    with pytest.raises(
        InputError, match=f"max_shift: expected at least the quantum of {quantum:g} pixels, got {most:g}"
    ):
        measure_outputs(segmenter(), IMAGES, max_shift=most, quantum=quantum)


def test_no_images_are_one_line() -> None:
    with pytest.raises(InputError, match="images: expected at least 1, got none"):
        measure_outputs(segmenter(), IMAGES[:0])


def test_batches_of_an_iterable_are_measured_as_one_tensor() -> None:
    network, labels = embedder(2), torch.arange(6) % 2
    whole = measure_outputs(network, IMAGES, labels, max_shift=2.0)
    parts = [(IMAGES[:4], labels[:4]), (IMAGES[4:], labels[4:])]
    assert {n: f.value for n, f in measure_outputs(network, parts, max_shift=2.0).numbers.items()} == pytest.approx(
        {n: f.value for n, f in whole.numbers.items()}, rel=1e-5
    )


def test_worst_cases_come_first_and_can_be_seen_again() -> None:
    report = measure_outputs(segmenter(2), IMAGES, protocol="circular")
    scores = [case.score for case in report.worst]
    assert scores == sorted(scores, reverse=True)
    assert len({case.image for case in report.worst}) == len(scores) > 0
    assert all(first == (0.0, 0.0) for first, _ in (case.shifts for case in report.worst))


def test_the_report_goes_to_json_under_its_names() -> None:
    report = measure_outputs(segmenter(2), IMAGES, protocol="circular")
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert found["kind"] == "map"
    assert set(found["pixel_top1_change"]) == {"value", "low", "high"}
    assert found["by_fraction"][0]["fraction"] == "0"
    assert found["settings"]["plan"]["pairs"]["quantum"] == 1.0
    with pytest.raises(AttributeError, match="OutputReport of kind 'map' has no number 'cosine'"):
        _ = report.cosine


def test_the_model_returns_to_its_mode_and_images_stay_as_they_are() -> None:
    network = segmenter().train()
    before = IMAGES.clone()
    measure_outputs(network, IMAGES, max_shift=1.0)
    assert network.training
    assert torch.equal(IMAGES, before)


def test_every_kind_has_the_equivariance_error() -> None:
    assert {kind.measure.rows[0].name for kind in KINDS.values()} == {"equivariance_error"}


@pytest.mark.parametrize("output", ["map", "image"])
def test_the_maps_of_earlier_batches_are_freed(output: str) -> None:
    """Memory does not grow with the number of images: at most the views of one batch are alive."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    class Watched(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            nonlocal most
            found = images.sin()
            alive.append(weakref.ref(found))
            most = max(most, sum(one() is not None for one in alive))
            return found

    measure_outputs(Watched(), torch.rand(24, 1, 12, 12), output=output, max_shift=1.0, pairs=2, batch_size=2)
    assert len(alive) >= 36
    assert most <= 3
