"""The metrics for torchmetrics: against the pure functions, over uneven batches and over two processes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed: pip install 'augkit[torchmetrics]'")

from torchmetrics import Metric, MetricCollection

from augkit.adapters.torchmetrics import (
    Consistency,
    JensenShannon,
    Kappa,
    MeanAbsoluteChange,
    PairMean,
    ShiftAccuracy,
    ShiftInformation,
    TopOneChange,
)
from augkit.core.errors import InputError, InputTypeError
from augkit.invariance import metrics
from augkit.invariance.information import shift_information

CLASSES = 4
OF_PAIRS = [row for row in metrics.ROWS if row.pairwise is not None]
MAKE: dict[str, Any] = {
    "change": TopOneChange,
    "consistency": Consistency,
    "mac": MeanAbsoluteChange,
    "js": JensenShannon,
    "kappa": lambda **options: Kappa(CLASSES, **options),
    "information": lambda **options: ShiftInformation(CLASSES, **options),
    "accuracy": ShiftAccuracy,
    "worst": lambda **options: ShiftAccuracy(worst=True, **options),
}


def pairs(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p, noise = (torch.randn(count, CLASSES, generator=generator) for _ in range(2))
    return p, p + 0.7 * noise, torch.randint(CLASSES, (count,), generator=generator)


def expected(name: str, p: Tensor, q: Tensor, labels: Tensor) -> float:
    """By the pure functions, from logits, in float64."""
    p, q = p.double().softmax(-1), q.double().softmax(-1)
    change = metrics.top1_change(p, q).mean()
    answers = torch.stack([p.argmax(-1), q.argmax(-1)])
    shares = torch.bincount(answers.flatten(), minlength=CLASSES).double() / answers.numel()
    right = (answers == labels).double()
    return {
        "change": change,
        "consistency": 1 - change,
        "mac": metrics.mean_absolute_change(p, q).mean(),
        "js": metrics.jensen_shannon(p, q).mean(),
        "kappa": metrics.kappa(change, shares),
        "information": shift_information(torch.stack([p, q], dim=1)),
        "accuracy": right.mean(),
        "worst": right.prod(0).mean(),
    }[name].item()


def update(name: str, metric: Any, p: Tensor, q: Tensor, labels: Tensor) -> None:
    metric.update(p, q, labels) if name in ("accuracy", "worst") else metric.update(p, q)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("logits", [True, False])
def test_uneven_batches_give_the_whole_sets_value(name: str, logits: bool) -> None:
    p, q, labels = pairs(11)
    given = (p, q) if logits else (p.softmax(-1), q.softmax(-1))
    metric = MAKE[name](logits=logits)
    for part in (slice(0, 7), slice(7, 10), slice(10, 11)):
        update(name, metric, given[0][part], given[1][part], labels[part])
    assert metric.compute().item() == pytest.approx(expected(name, p, q, labels), rel=1e-6)
    assert metric.count == (22 if name == "accuracy" else 11)
    metric.reset()
    update(name, metric, *given, labels)
    assert metric.compute().item() == pytest.approx(expected(name, p, q, labels), rel=1e-6)


@pytest.mark.parametrize("name", MAKE)
def test_several_shifts_of_an_image_and_half_precision_are_taken(name: str) -> None:
    p, q, labels = pairs(12)
    metric = MAKE[name](logits=True)
    update(name, metric, p.view(3, 4, CLASSES), q.view(3, 4, CLASSES), labels.view(3, 4))
    assert metric.compute().item() == pytest.approx(expected(name, p, q, labels), rel=1e-6)
    p, q = p.bfloat16(), q.bfloat16()
    metric = pickle.loads(pickle.dumps(MAKE[name](logits=True)))
    update(name, metric, p, q, labels)
    assert metric.compute().item() == pytest.approx(expected(name, p, q, labels), rel=1e-4)


def test_equal_answers_give_zero_and_only_mac_depends_on_their_order() -> None:
    p, q, _ = pairs(50)
    same = {name: MAKE[name](logits=True) for name in ("change", "mac", "js", "consistency")}
    for name, metric in same.items():
        metric.update(p, p)
        assert metric.compute() == (1 if name == "consistency" else 0)
    swapped = {name: (MAKE[name](logits=True), MAKE[name](logits=True)) for name in ("change", "js", "mac")}
    for name, (one, other) in swapped.items():
        one.update(p, q)
        other.update(q, p)
        assert (one.compute().item() == pytest.approx(other.compute().item(), rel=1e-5)) == (name != "mac")
    constant = Kappa(CLASSES)
    constant.update(torch.eye(CLASSES)[:1].expand(9, CLASSES), torch.eye(CLASSES)[:1].expand(9, CLASSES))
    assert constant.compute() == 0


def quiet_then_loud(update_one: Any) -> None:
    """A batch on which nothing changes and nothing is right, so that most sums stay 0, then one on which much does."""
    p, q, labels = pairs(40)
    wrong = (p.argmax(-1) + 1) % CLASSES
    update_one(p, p, wrong)
    update_one(p, q, labels)


def members() -> dict[str, Any]:
    """Each metric under each choice of options; all can be given the same logits, which are also distributions."""
    options = [{"logits": logits, "validate": validate} for logits in (True, False) for validate in (True, False)]
    return {f"{name}_{k}": make(**chosen) for name, make in MAKE.items() for k, chosen in enumerate(options)} | {
        "kappa_wide": Kappa(CLASSES, logits=True)
    }


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("form", ["plain", "nested", "clone"])
def test_a_metric_in_a_collection_equals_the_metric_alone(form: str, groups: bool) -> None:
    alone, inside = members(), members()
    if form == "nested":
        middle = len(inside) // 2
        halves = (dict(list(inside.items())[:middle]), dict(list(inside.items())[middle:]))
        collection = MetricCollection([MetricCollection(half) for half in halves], compute_groups=groups)
    else:
        collection = MetricCollection(inside, compute_groups=groups)
    collection = collection.clone(prefix="val/") if form == "clone" else collection

    def update_all(p: Tensor, q: Tensor, labels: Tensor) -> None:
        p, q = p.softmax(-1), q.softmax(-1)
        collection.update(p=p, q=q, labels=labels)
        for name, metric in alone.items():
            update(name.split("_")[0], metric, p, q, labels)

    for _ in range(2):
        quiet_then_loud(update_all)
        together = collection.compute()
        assert len(together) == len(alone)
        for name, metric in alone.items():
            key = f"val/{name}" if form == "clone" else name
            assert together[key].item() == pytest.approx(metric.compute().item(), rel=1e-6), name
            metric.reset()
        collection.reset()


@pytest.mark.parametrize("row", OF_PAIRS, ids=lambda row: row.name)
def test_every_metric_of_two_views_can_be_had_by_its_name(row: metrics.Metric) -> None:
    p, q, _ = pairs(11)
    metric = PairMean(row.name, logits=True)
    for part in (slice(0, 7), slice(7, 10), slice(10, 11)):
        metric.update(p[part], q[part])
    assert row.pairwise is not None
    given = (p.double(), q.double())
    views = given if row.pairwise.of == "logits" else tuple(each.softmax(-1) for each in given)
    assert metric.compute().item() == pytest.approx(row.pairwise.function(*views).mean().item(), rel=1e-6)
    assert metric.higher_is_better == row.higher_is_better
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_metrics_by_name_stand_apart_in_a_collection() -> None:
    given = {row.name: PairMean(row.name, logits=True) for row in OF_PAIRS}
    collection = MetricCollection(given)  # type: ignore[arg-type]
    quiet_then_loud(lambda p, q, labels: collection.update(p=p, q=q))
    values = [round(value.item(), 6) for value in collection.compute().values()]
    assert len(set(values)) == len(OF_PAIRS)


def test_a_metric_by_name_says_what_it_needs() -> None:
    with pytest.raises(InputError, match="unknown metric 'logit_chang': did you mean 'logit_change'"):
        PairMean("logit_chang")
    with pytest.raises(InputError, match="unknown metric 'kappa'"):
        PairMean("kappa")
    with pytest.raises(InputError, match="pass logits=True"):
        PairMean("logit_change")


def test_a_foreign_metric_with_the_same_states_stays_its_own() -> None:
    class Foreign(Metric):
        full_state_update = False

        def __init__(self) -> None:
            super().__init__()
            self.add_state("total", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
            self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

        def update(self, p: Tensor, q: Tensor) -> None:
            self.count += len(p)

        def compute(self) -> Tensor:
            return self.total / self.count

    class Mine(TopOneChange):
        def update(self, p: Tensor, q: Tensor) -> None:
            super().update(p, p)

    given = {"change": TopOneChange(logits=True), "foreign": Foreign(), "mine": Mine(logits=True)}
    collection = MetricCollection(given)  # type: ignore[arg-type]
    quiet_then_loud(lambda p, q, labels: collection.update(p=p, q=q))
    values = collection.compute()
    assert values["change"] > 0
    assert values["foreign"] == values["mine"] == 0


def test_every_metric_states_whether_higher_is_better() -> None:
    better = {name: MAKE[name]().higher_is_better for name in MAKE}
    assert [name for name, high in better.items() if high] == ["consistency", "kappa", "accuracy", "worst"]
    assert all(high is not None for high in better.values())


def test_counts_stay_exact_beyond_the_whole_numbers_of_float32() -> None:
    metric = TopOneChange()
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    metric.total += 2**24
    metric.count += 2**24
    metric.update(p, q)
    assert int(metric.total) == 2**24 + 1


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 4), "sum to 1; pass logits=True"),
        (torch.tensor([[-1.0, 2.0]]), torch.tensor([[0.5, 0.5]]), "sum to 1"),
        (torch.full((3, 4), torch.nan), torch.full((3, 4), 0.25), "finite"),
        (torch.full((3, 4), 0.25), torch.full((2, 4), 0.25), "same shape"),
        (torch.ones(3, 1), torch.ones(3, 1), "K at least 2"),
        (torch.full((4,), 0.25), torch.full((4,), 0.25), "same shape"),
    ],
)
def test_bad_input_gets_one_clear_line(p: Tensor, q: Tensor, message: str) -> None:
    for make in (TopOneChange, JensenShannon, MAKE["kappa"]):
        with pytest.raises(InputError, match=message) as caught:
            make().update(p, q)
        assert "\n" not in str(caught.value)


def test_wrong_types_classes_and_options_get_one_clear_line() -> None:
    p = torch.full((3, 4), 0.25)
    with pytest.raises(InputTypeError, match="floating tensors"):
        TopOneChange().update(torch.ones(3, 4, dtype=torch.long), p)
    with pytest.raises(InputTypeError, match=r"expected integers \(3,\)"):
        ShiftAccuracy().update(p, p, torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="expected 5 classes, got 4"):
        Kappa(5).update(p, p)
    with pytest.raises(InputError, match="num_classes"):
        Kappa(1)
    with pytest.raises(ValueError, match="Unexpected keyword arguments: `logit`"):
        TopOneChange(logit=True)
    unchecked = TopOneChange(validate=False)
    unchecked.update(torch.zeros(3, 4), torch.zeros(3, 4))
    assert unchecked.compute() == 0


def _worker(rank: int, folder: str) -> None:
    """One of two processes: the first has 7 pairs, the second 3 and then 1."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    p, q, labels = pairs(11)
    values = {}
    for name, make in MAKE.items():
        metric = make(logits=True)
        for part in ([slice(0, 7)], [slice(7, 10), slice(10, 11)])[rank]:
            update(name, metric, p[part], q[part], labels[part])
        values[name] = metric.compute().item()
    torch.save(values, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.cluster
def test_two_processes_agree_on_the_whole_sets_value(tmp_path: Path) -> None:
    if not torch.distributed.is_available():
        pytest.skip("torch is built without torch.distributed")
    torch.multiprocessing.spawn(_worker, (str(tmp_path),), nprocs=2)
    p, q, labels = pairs(11)
    for rank in range(2):
        values = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in MAKE:
            assert values[name] == pytest.approx(expected(name, p, q, labels), rel=1e-6)
