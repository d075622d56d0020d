"""Every output metric from made-up logits against slow numpy loops over P[n, s, k], and the laws of the definitions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from augkit.core.errors import InputError
from augkit.invariance import Estimate, Pairs, Plan
from augkit.invariance.accumulator import FLIPS, Accumulator, digest, smallest_integer
from augkit.invariance.batch_statistics import PAIR_STATISTICS, measure_batch
from augkit.invariance.flips import Flip
from augkit.invariance.information import FACTORS
from augkit.invariance.metrics import names_of
from augkit.invariance.plan import line_path, one_shift, square_grid
from augkit.invariance.report import estimates

PLAN = Plan(
    pairs=Pairs(2, -2.0, 2.0),
    grid=square_grid(1.0, 1.0),
    lengths=(0.5, 1.0),
    fractions=(0.0, 0.5),
    directions=(45.0,),
    scales=(0.9, 1.0),
    path=line_path(5),
    blur_control=True,
)


def made_up(seed: int, count: int, plan: Plan = PLAN, classes: int = 4, sharp: float = 2.0) -> Tensor:
    """Logits ``(N, S, K)``: one part shared by all views of an image."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(count, 1, classes, generator=generator)
    return sharp * (shared + torch.randn(count, len(plan.layout.columns), classes, generator=generator))


def accumulated(
    logits: Tensor, labels: Tensor | None = None, plan: Plan = PLAN, sizes: tuple[int, ...] = ()
) -> Accumulator:
    accumulator, start = Accumulator(plan.layout), 0
    moved = plan.displacements(0, 0, len(logits))
    for size in sizes or (len(logits),):
        part = slice(start, start + size)
        rows = logits[part]
        answers = measure_batch(plan.layout, lambda k, rows=rows: rows[:, k])
        accumulator.add(
            answers, moved[part], None if labels is None else labels[part], torch.arange(start, start + size)
        )
        start += size
    return accumulator


def metrics_of(logits: Tensor, labels: Tensor | None = None, plan: Plan = PLAN) -> dict[str, Estimate]:
    return estimates(accumulated(logits, labels, plan).statistics())


def entropy(p: np.ndarray) -> float:
    return -sum(float(v) * np.log2(v) for v in p if v > 0)


def js_of(p: np.ndarray, q: np.ndarray) -> float:
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def slow(logits: Tensor, labels: Tensor, plan: Plan) -> dict[str, float]:
    """Every metric by loops over images and pairs, straight from the definitions."""
    x, layout = logits.double().numpy(), plan.layout
    P = np.exp(x - x.max(-1, keepdims=True))
    P /= P.sum(-1, keepdims=True)
    k, y, out = P.argmax(-1), labels.numpy(), {}
    N, pairs = len(x), layout.pairs
    both = [(n, s, t) for n in range(N) for s, t in pairs]
    out["top1_change"] = np.mean([k[n, s] != k[n, t] for n, s, t in both])
    out["consistency"] = 1 - out["top1_change"]
    out["mac"] = np.mean([abs(P[n, s, k[n, s]] - P[n, t, k[n, s]]) for n, s, t in both])
    out["js"] = np.mean([js_of(P[n, s], P[n, t]) for n, s, t in both])
    seen = sorted({s for pair in pairs for s in pair})
    whole = entropy(P[:, seen].mean((0, 1))) - np.mean([entropy(P[n, s]) for n in range(N) for s in seen])
    of_shift = [entropy(P[n, seen].mean(0)) - np.mean([entropy(P[n, s]) for s in seen]) for n in range(N)]
    out["information"], out["shift_information"] = whole, np.mean(of_shift) / whole
    views = [k[n, s] for n in range(N) for pair in pairs for s in pair]
    chance = sum(np.mean([v == c for v in views]) ** 2 for c in range(P.shape[-1]))
    out["kappa"] = (out["consistency"] - chance) / (1 - chance)
    out["accuracy"] = np.mean([k[n, 0] == y[n] for n in range(N)])
    out["shifted_accuracy"] = np.mean([k[n, s] == y[n] for n in range(N) for pair in pairs for s in pair])
    out["logit_change"] = np.mean([np.abs(x[n, s] - x[n, t]).mean() for n, s, t in both])
    out["logit_change_max"] = np.mean([max(np.abs(x[n, s] - x[n, t]).max() for s, t in pairs) for n in range(N)])
    if layout.grid:
        out["worst_case"] = np.mean([any(k[n, g] != k[n, 0] for g in layout.grid) for n in range(N)])
        out["grid_accuracy"] = np.mean([k[n, g] == y[n] for n in range(N) for g in layout.grid])
        out["worst_accuracy"] = np.mean([all(k[n, g] == y[n] for g in (0, *layout.grid)) for n in range(N)])
    if layout.path:
        steps = list(pairwise(layout.path))
        out["jaggedness"] = np.mean([sum(k[n, a] != k[n, b] for a, b in steps) for n in range(N)])
    blurred = [c for c, column in enumerate(layout.columns) if column.blurred]
    for (first, _), b in zip(pairs, blurred, strict=False):
        for name, s, t in (("from_unshifted", 0, first), ("blur_matched", b, first), ("blur_only", 0, b)):
            js = np.mean([js_of(P[n, s], P[n, t]) for n in range(N)])
            change = np.mean([k[n, s] != k[n, t] for n in range(N)])
            out[f"{name}_js"] = out.get(f"{name}_js", 0.0) + js / len(blurred)
            out[f"{name}_top1_change"] = out.get(f"{name}_top1_change", 0.0) + change / len(blurred)
    return out


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_every_metric_agrees_with_loops(seed: int, classes: int) -> None:
    logits = made_up(seed, 7, classes=classes)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, 7))
    found, expected = metrics_of(logits, labels), slow(logits, labels, PLAN)
    gathered = set(names_of(lambda row: row.name not in expected and row.pairwise))  # a test of its own each
    assert set(found) == set(expected) | gathered
    for name, value in expected.items():
        if name == "shift_information" and not found[name].defined:
            continue  # seven images can leave its denominator within its noise
        assert found[name].value == pytest.approx(value, abs=1e-6), name
        assert found[name].low <= found[name].value + 1e-12
        assert found[name].high >= found[name].value - 1e-12


def test_curves_agree_with_loops() -> None:
    logits, labels = made_up(1, 9), torch.arange(9) % 4
    p = logits.double().softmax(-1).numpy()
    curves = accumulated(logits, labels).curves()
    assert {name: list(points) for name, points in curves.items()} == {
        "length": [0.5, 1.0],
        "fraction": [0.0, 0.5],
        "direction": [45.0],
        "scale": [0.9, 1.0],
    }
    for name, points in curves.items():
        for point, values in points.items():
            column = PLAN.layout.curves[name][point]
            for n in range(9):
                k = p[n, column].argmax()
                assert values["js"][n, 0] == pytest.approx(js_of(p[n, 0], p[n, column]), abs=1e-6)
                assert values["changed"][n, 0] == (k != p[n, 0].argmax())
                assert values["correct"][n, 0] == (k == labels[n])


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_uneven_batches_give_the_whole_sets_bits(seed: int) -> None:
    logits, labels = made_up(seed, 11), torch.arange(11) % 4
    whole, parts = accumulated(logits, labels), accumulated(logits, labels, sizes=(7, 3, 1))
    assert whole.flips == parts.flips
    for name, values in whole.statistics().items():
        assert torch.equal(values, parts.statistics()[name]), name


def test_identity_displacements_change_nothing() -> None:
    one = made_up(0, 8)[:, :1].expand(-1, len(PLAN.layout.columns), -1)
    found = metrics_of(one)
    for name in names_of(lambda row: row.pairwise or row.counts):
        assert found[name].value == found[name].high == 0, name
    assert found["consistency"].value == 1
    assert accumulated(one).flips == []


def test_a_constant_classifier_is_consistent_and_has_kappa_zero() -> None:
    found = metrics_of(torch.tensor([3.0, 0.0, 1.0, 0.0]).expand(10, len(PLAN.layout.columns), 4))
    assert found["consistency"].value == 1
    assert (found["kappa"].value, found["kappa"].low, found["kappa"].high) == (0, 0, 0)


def test_random_answers_change_as_their_shares_say() -> None:
    plan, shares = Plan(pairs=Pairs(20)), torch.tensor([0.5, 0.3, 0.2])
    answers = torch.multinomial(shares, 1000 * 41, replacement=True, generator=torch.Generator().manual_seed(0))
    found = metrics_of(50.0 * torch.nn.functional.one_hot(answers, 3).float().view(1000, 41, 3), plan=plan)
    assert found["top1_change"].value == pytest.approx(1 - float((shares**2).sum()), abs=0.01)
    assert found["kappa"].value == pytest.approx(0, abs=0.02)
    assert found["mac"].value <= 1
    assert found["js"].value <= 1


def test_swapping_s_and_t_changes_mac_alone() -> None:
    plan = Plan(pairs=Pairs(1))
    logits = made_up(2, 12, plan)
    found, swapped = metrics_of(logits, plan=plan), metrics_of(logits[:, [0, 2, 1]], plan=plan)
    assert found["mac"].value != pytest.approx(swapped["mac"].value, abs=1e-3)
    for name in set(found) - {"mac"}:
        assert found[name].value == pytest.approx(swapped[name].value, abs=1e-7), name


def test_each_view_is_computed_once_and_in_order() -> None:
    logits, asked = made_up(0, 3), []

    def logits_of(k: int) -> Tensor:
        asked.append(k)
        return logits[:, k]

    measure_batch(PLAN.layout, logits_of)
    assert asked == list(range(len(PLAN.layout.columns)))


def test_flips_are_the_most_confident_disagreements_one_per_image() -> None:
    plan = one_shift(1.0, 0.0)
    logits = torch.zeros(60, 2, 3)
    for n in range(60):
        logits[n, 0, 0] = logits[n, 1, 1 if n % 2 else 0] = n / 10
    flips = accumulated(logits, torch.full((60,), 2), plan, sizes=(13, 47)).flips
    assert [flip.image for flip in flips] == [59 - 2 * k for k in range(FLIPS)]
    best = flips[0].to_dict()
    assert best["shifts"] == [[0.0, 0.0], [1.0, 0.0]]
    assert best["answers"] == [0, 1]
    assert best["label"] == 2
    sure = float(torch.tensor([5.9, 0.0, 0.0]).softmax(0)[0])
    assert best["probabilities"] == pytest.approx([sure, sure], abs=1e-6)


def test_state_goes_through_a_file(tmp_path: object) -> None:
    logits, labels = made_up(4, 10), torch.arange(10) % 4
    whole, half = accumulated(logits, labels), accumulated(logits[:6], labels[:6])
    torch.save(half.state(), f"{tmp_path}/state.pt")
    again = Accumulator(PLAN.layout)
    again.restore(torch.load(f"{tmp_path}/state.pt", weights_only=True))
    rest = logits[6:]
    moved = PLAN.displacements(0, 0, 10)[6:]
    again.add(measure_batch(PLAN.layout, lambda k: rest[:, k]), moved, labels[6:], torch.arange(6, 10))
    assert (again.images, again.classes) == (10, 4)
    assert [flip.to_dict() for flip in again.flips] == [flip.to_dict() for flip in whole.flips]
    for name, values in whole.statistics().items():
        assert torch.equal(values, again.statistics()[name])


def test_a_state_of_fewer_statistics_goes_on_with_those() -> None:
    logits = made_up(4, 10)
    old = accumulated(logits[:6]).state()
    keep = [k for k, name in enumerate(accumulated(logits[:6]).names) if name not in set(PAIR_STATISTICS) - {"mac"}]
    old = {**old, "columns": {**old["columns"], "measures": old["columns"]["measures"][:, keep]}, "statistics": ["mac"]}
    again = Accumulator(PLAN.layout)
    again.restore(old)
    moved = PLAN.displacements(0, 0, 10)[6:]
    answers = measure_batch(PLAN.layout, lambda k: logits[6:, k], pair_statistics=again.pair_statistics)
    again.add(answers, moved, None, torch.arange(6, 10))
    whole = accumulated(logits).statistics()
    assert set(whole) - set(again.statistics()) == set(PAIR_STATISTICS) - {"mac"}
    for name, values in again.statistics().items():
        assert torch.equal(values, whole[name]), name
    with pytest.raises(InputError, match="start anew"):
        again.restore({**old, "statistics": ["unheard of"]})


def test_few_bytes_are_kept_of_an_image() -> None:
    accumulator = accumulated(made_up(0, 50, classes=1000), torch.zeros(50, dtype=torch.int64))
    size = sum(v.numel() * v.element_size() for v in accumulator.state()["columns"].values())
    views, numbers = len(PLAN.layout.columns), len(PLAN.layout.measures) + len(PAIR_STATISTICS) + 2 + 2 * len(FACTORS)
    assert size == 50 * (2 * views + 4 * numbers + 2 * 1000 + 8 + 4)  # mean probabilities in half precision
    assert smallest_integer(256) == torch.uint8
    assert smallest_integer(257) == torch.int16


@pytest.mark.parametrize(("classes", "dtype"), [(256, torch.float32), (257, torch.float16)])
def test_mean_probabilities_of_many_classes_are_kept_in_half_precision(classes: int, dtype: torch.dtype) -> None:
    assert accumulated(made_up(0, 3, classes=classes)).merged("mean").dtype == dtype


def test_invalid_batches_are_errors() -> None:
    logits = made_up(0, 3)
    with pytest.raises(InputError, match="finite logits"):
        accumulated(logits / 0)
    with pytest.raises(InputError, match="4 classes, got label 4"):
        accumulated(logits, torch.tensor([0, 4, 1]))
    accumulator = accumulated(logits)
    answers = measure_batch(PLAN.layout, lambda k: logits[:, k])
    with pytest.raises(InputError, match="for all batches or for none"):
        accumulator.add(answers, PLAN.displacements(0, 3, 3), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    wider = made_up(0, 3, classes=5)
    with pytest.raises(InputError, match="expected 4 logits as before, got 5"):
        accumulator.add(
            measure_batch(PLAN.layout, lambda k: wider[:, k]), PLAN.displacements(0, 3, 3), None, torch.arange(3)
        )


def test_digests_differ_between_images_and_do_not_depend_on_the_batch() -> None:
    images = torch.rand(5, 3, 6, 6)
    whole = digest(images)
    assert torch.equal(torch.cat([digest(images[:2]), digest(images[2:])]), whole)
    assert len(set(whole.tolist())) == 5
    images[3, 0, 0, 0] += 0.5
    assert (digest(images) != whole).tolist() == [False, False, False, True, False]


def test_a_flip_lists_scales_only_if_a_view_is_rescaled() -> None:
    shifted, scaled = ((1.0, 0.0, 1.0), (0.0, 2.0, 1.0)), ((0.0, 0.0, 1.0), (0.0, 0.0, 1.25))
    told = {
        (axis, name): Flip(3, 1, views, (1, 2), (0.9, 0.8), axis).to_dict()
        for axis in ("shift", "scale")
        for name, views in (("shifted", shifted), ("scaled", scaled))
    }
    assert told["shift", "shifted"] == {
        "index": 3, "label": 1, "shifts": [[1.0, 0.0], [0.0, 2.0]], "answers": [1, 2], "probabilities": [0.9, 0.8]
    }  # fmt: skip
    assert told["shift", "scaled"]["scales"] == told["scale", "scaled"]["scales"] == [1.0, 1.25]
    assert told["shift", "scaled"]["shifts"] == [[0.0, 0.0], [0.0, 0.0]]
    assert told["scale", "shifted"]["scales"] == [1.0, 1.0]
    assert "shifts" not in told["scale", "scaled"]
