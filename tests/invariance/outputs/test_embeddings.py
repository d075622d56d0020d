"""Embeddings: laws, slow references, neighbors and answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_networks import Returns, embedder
from measured import photo_like
from torch import nn

from augkit.core.errors import InputError, InputTypeError
from augkit.invariance.outputs import measure_outputs
from augkit.invariance.outputs.numbers import quantiles
from augkit.invariance.plan import Pairs, Plan

IMAGES = photo_like(12, 14)
LABELS = torch.arange(12) % 3


def test_an_invariant_network_changes_nothing_and_a_strided_one_does() -> None:
    exact, strided = (
        measure_outputs(embedder(stride), IMAGES, LABELS, protocol="circular", class_embeddings=torch.randn(3, 6))
        for stride in (1, 3)
    )
    assert exact.kind == "embedding"
    assert exact.equivariance_error.value <= 1e-5
    assert exact.shift_variance.value <= 1e-9
    assert exact.cosine.value == pytest.approx(1.0, abs=1e-9)
    names = ("neighbour_change", "neighbours_lost", "knn_change", "zero_shot_change")
    assert [getattr(exact, name).value for name in names] == [0.0] * 4
    assert strided.equivariance_error.low > 0.01
    assert strided.neighbour_change.value > 0
    assert strided.cosine.high < 1


def test_a_slow_loop_gives_the_same_numbers() -> None:
    network, x = embedder(2, "zeros").double(), IMAGES.double()
    classes, k = torch.randn(3, 6).double(), 3
    report = measure_outputs(
        network, x, LABELS, plan=Plan(pairs=Pairs(1, 0, 0, step=(1.0, 0.0))), neighbors=k, class_embeddings=classes
    )
    a, b = (network(x[..., 1:13, 1 - s : 13 - s]).detach().numpy() for s in (0, 1))
    both, mean = np.concatenate([a, b]), a.mean(0)

    def cosine(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / np.sqrt((u @ u) * (v @ v)))

    def nearest(row: int, of: np.ndarray) -> list[int]:
        return sorted((n for n in range(12) if n != row), key=lambda n: -cosine(of[row], a[n]))[:k]

    def vote(numbers: list[int]) -> int:
        return int(np.bincount(LABELS.numpy()[numbers]).argmax())

    found = [(nearest(row, a), nearest(row, b)) for row in range(12)]
    zero_shot = [[max(range(3), key=lambda c: cosine(z, classes.numpy()[c])) for z in of] for of in (a, b)]
    within = np.mean([((u - v) ** 2).sum() / 2 for u, v in zip(a, b, strict=True)])
    apart = (((a + b) / 2 - both.mean(0)) ** 2).sum() / 11
    wanted = {
        "cosine": np.mean([cosine(u, v) for u, v in zip(a, b, strict=True)]),
        "equivariance_error": np.mean(np.linalg.norm(a - b, axis=1) / np.linalg.norm(a - mean, axis=1)),
        "shift_variance": within / (apart + within / 2),
        "neighbour_change": np.mean([one[0] != two[0] for one, two in found]),
        "neighbours_lost": np.mean([len(set(one) - set(two)) / k for one, two in found]),
        "knn_change": np.mean([vote(one) != vote(two) for one, two in found]),
        "knn_accuracy": np.mean([vote(one) == int(LABELS[row]) for row, (one, _) in enumerate(found)]),
        "zero_shot_change": np.mean(np.array(zero_shot[0]) != np.array(zero_shot[1])),
        "zero_shot_accuracy": np.mean(np.array(zero_shot[0]) == LABELS.numpy()),
    }
    assert {name: number.value for name, number in report.numbers.items()} == pytest.approx(wanted, rel=1e-9)
    assert 0 < report.neighbours_lost.value < 1


def test_an_output_that_depends_on_the_shift_alone_has_all_variance_between_views() -> None:
    """The place of a dot, the same in all images."""
    dot = torch.zeros(8, 1, 12, 12)
    dot[..., 6, 6] = 1.0
    network = Returns(
        lambda images: torch.stack([images.sum((1, 2)).argmax(-1), images.sum((1, 3)).argmax(-1)], -1) * 1.0
    )
    report = measure_outputs(network, dot, protocol="circular", pairs=40)
    assert report.shift_variance.value > 0.9
    assert not report.equivariance_error.defined  # no image differs from another


def test_numbers_do_not_depend_on_the_batch_size() -> None:
    network = embedder(2)
    whole, parts = (measure_outputs(network, IMAGES, LABELS, max_shift=2.0, batch_size=size) for size in (12, 5))
    for name, found in whole.numbers.items():
        assert getattr(parts, name).value == pytest.approx(found.value, rel=1e-5), name
        assert getattr(parts, name).high == pytest.approx(found.high, rel=1e-5), name


def test_equal_embeddings_are_undefined_and_not_invariant() -> None:
    report = measure_outputs(Returns(lambda images: torch.ones(len(images), 4)), IMAGES, max_shift=1.0)
    names = ("equivariance_error", "shift_variance", "neighbour_change", "neighbours_lost")
    assert not any(getattr(report, name).defined for name in names)


def test_a_gallery_is_images_or_embeddings() -> None:
    network, gallery = embedder(2), photo_like(7, 14, seed=1)
    labels = torch.arange(7) % 2
    of_images = measure_outputs(network, IMAGES, max_shift=2.0, gallery=gallery, gallery_labels=labels, neighbors=3)
    with torch.no_grad():
        embedded = network(gallery[..., 2:12, 2:12])
    of_embeddings = measure_outputs(
        network, IMAGES, max_shift=2.0, gallery=embedded, gallery_labels=labels, neighbors=3
    )
    assert of_images.settings.of_kind["gallery"] == 7
    for name, found in of_images.numbers.items():
        assert getattr(of_embeddings, name).value == pytest.approx(found.value, rel=1e-5)
    assert "knn_change" in of_images.numbers
    assert "knn_accuracy" not in of_images.numbers  # the images have no labels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gallery": IMAGES[:3]}, "gallery: expected at least 5 images to find 5 neighbors among, got 3"),
        ({"neighbors": 12}, "gallery: expected at least 12 images to find 12 neighbors among, got 11"),
        ({"neighbors": 0}, "neighbors: expected a whole number of 1 or more, got 0"),
        ({"gallery": IMAGES[..., :9]}, "gallery: expected images of"),
        ({"gallery": IMAGES, "gallery_labels": LABELS[:4]}, "gallery_labels: expected"),
        ({"gallery_labels": LABELS}, "gallery_labels: expected a gallery"),
        ({"gallery": torch.rand(9, 5)}, r"gallery: expected embeddings \(N, 6\), got \(9, 5\)"),
        ({"gallery": torch.full((9, 4), torch.nan)}, "gallery: expected finite embeddings"),
        ({"gallery": IMAGES, "gallery_labels": torch.rand(12)}, r"gallery_labels: expected integers \(12,\)"),
        ({"gallery": IMAGES, "gallery_labels": ["cat"] * 12}, r"gallery_labels: expected integers \(12,\), got list"),
        ({"class_embeddings": torch.zeros(3, 5)}, r"class_embeddings: expected embeddings \(N, 6\), got \(3, 5\)"),
        ({"class_embeddings": torch.zeros(1, 4)}, "class_embeddings: expected those of at least 2 classes"),
        ({"class_embeddings": torch.full((3, 4), torch.inf)}, "class_embeddings: expected finite embeddings"),
        ({"class_embeddings": np.zeros((3, 4))}, r"class_embeddings: expected a real tensor \(N, D\), got ndarray"),
        (
            {"class_embeddings": torch.eye(6)[:2], "targets": LABELS},
            "class_embeddings: expected one for each class, got 2 and label 2",
        ),
        ({"targets": ["cat"] * 12}, r"labels: expected integers \(12,\), got list"),
        ({"targets": torch.rand(12)}, r"labels: expected integers \(12,\), got torch.float32"),
        ({"targets": LABELS - 1}, "labels: expected class indices of at least 0"),
        ({"targets": 3}, "targets: expected one for each of 12 images, got int"),
    ],
)
def test_wrong_galleries_and_labels_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises((InputError, InputTypeError), match=message):
        measure_outputs(embedder(), IMAGES, max_shift=1.0, **options)


def test_a_gallery_of_another_width_is_refused_before_the_second_batch() -> None:
    network, seen = embedder(), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    with pytest.raises(InputError, match="gallery: expected embeddings"):
        measure_outputs(network, IMAGES, max_shift=1.0, batch_size=2, gallery=torch.rand(9, 5))
    assert sum(seen) < len(IMAGES)


@pytest.mark.parametrize("kind", ["embedding", "logits"])
def test_class_indices_may_be_a_list_or_an_array(kind: str) -> None:
    network = embedder()
    found = [
        measure_outputs(network, IMAGES, targets, output=kind, max_shift=1.0).to_dict()
        for targets in (LABELS, LABELS.tolist(), LABELS.numpy())
    ]
    assert found[0] == found[1] == found[2]


def test_few_images_have_no_neighbors_and_say_so() -> None:
    report = measure_outputs(embedder(), IMAGES[:4], max_shift=1.0)
    assert "neighbour_change" not in report.numbers
    assert report.notes == ("too few images for 5 neighbors each: these numbers are left out",)


def test_quantiles_are_the_smallest_values_with_that_share_at_or_below() -> None:
    values = torch.rand(9, 4)
    found = quantiles(values, (0.01, 0.25, 0.5))
    wanted = np.quantile(values.double().numpy(), (0.01, 0.25, 0.5), method="inverted_cdf")
    assert [each.value for each in found] == pytest.approx(wanted.tolist())
    assert all(each.low <= each.value <= each.high for each in found)


def test_the_interval_of_a_quantile_resamples_images_with_all_their_views() -> None:
    """Views of an image that are equal count as one: the interval is as wide as that of one view each."""
    values = torch.rand(40, 1)
    one, many = quantiles(values, (0.5,)), quantiles(values.expand(-1, 6), (0.5,))
    assert one == many


def test_linear_heads_are_embeddings_unless_named() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(14 * 14, 3))
    assert measure_outputs(network, IMAGES, protocol="circular").kind == "embedding"
    assert measure_outputs(network, IMAGES, protocol="circular", output="logits").kind == "logits"
