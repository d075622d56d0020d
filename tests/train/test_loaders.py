"""Loaders of anybody's: what they give is brought to one form, or refused in one line before any update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)

import augkit
from augkit.core.errors import InputError
from augkit.core.random_streams import seeded
from augkit.train.batches import make_batches
from augkit.train.distributed import Process
from augkit.train.evaluate import evaluate
from augkit.train.loaders import labeled
from augkit.train.recipe import Recipe

CPU = torch.device("cpu")
COUNT, SIDE, CLASSES = 40, 12, 5
PIXELS = torch.randint(0, 256, (COUNT, 1, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(COUNT) % CLASSES
ONE_HOT = nn.functional.one_hot(LABELS, CLASSES)


@pytest.fixture
def plain(tiny: Recipe) -> Recipe:
    return tiny.replaced(policy={}, train={"epochs": 2, "batch_size": 8})


def net() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES))


def weights(run: Any) -> Tensor:
    return torch.cat([value.flatten() for value in run.model.state_dict().values()])


def train(recipe: Recipe, loader: Any, held_out: Any = None, **options: Any) -> Any:
    held_out = DataLoader(TensorDataset(PIXELS, LABELS), 20) if held_out is None else held_out
    return augkit.fit(recipe, model=net(), loader=loader, validation_loader=held_out, **options)


def pairs(images: Any, labels: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(images, labels), 8)


class Arrays:
    """Batches of numpy arrays."""

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Any]:
        return ((PIXELS[k : k + 8].numpy(), LABELS[k : k + 8].numpy()) for k in range(0, COUNT, 8))


INTEGERS = (torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
SAME_LABELS = {
    **{str(kind): lambda kind=kind: pairs(PIXELS, LABELS.to(kind)) for kind in INTEGERS},
    "column": lambda: pairs(PIXELS, LABELS[:, None]),
    "numpy": Arrays,
}


@pytest.mark.parametrize("form", SAME_LABELS)
def test_integer_labels_of_any_width_train_to_the_same_weights(form: str, plain: Recipe) -> None:
    loader = SAME_LABELS[form]()
    run, expected = train(plain, loader, loader), train(plain, pairs(PIXELS, LABELS), pairs(PIXELS, LABELS))
    assert torch.equal(weights(run), weights(expected))
    assert run.evaluation.loss == expected.evaluation.loss
    assert torch.equal(run.evaluation.confusion, expected.evaluation.confusion)


@pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.float64, torch.float16, torch.bool])
def test_one_hot_labels_are_those_classes(kind: torch.dtype, plain: Recipe) -> None:
    loader = pairs(PIXELS, ONE_HOT.to(kind))
    run, expected = train(plain, loader, loader), train(plain, pairs(PIXELS, LABELS), pairs(PIXELS, LABELS))
    torch.testing.assert_close(weights(run), weights(expected), atol=1e-6, rtol=1e-5)
    assert run.evaluation.loss == pytest.approx(expected.evaluation.loss, rel=1e-5)
    assert torch.equal(run.evaluation.confusion, expected.evaluation.confusion)
    mixed = plain.replaced(train={"epochs": 1, "mixup": 0.4})
    torch.testing.assert_close(
        weights(train(mixed, loader)), weights(train(mixed, pairs(PIXELS, LABELS))), atol=1e-6, rtol=1e-5
    )


def test_soft_labels_are_what_the_loss_is_taken_against(plain: Recipe) -> None:
    soft = torch.rand(COUNT, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1)
    network = net().requires_grad_(False)
    found = evaluate(network, pairs(PIXELS, soft), plain, CPU)
    logits = network((PIXELS / 255 - 0.5) / 0.5)
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits, soft)), rel=1e-5)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == soft.argmax(1)).double().mean()))


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_floating_images_of_any_width_are_trained_on(kind: torch.dtype, plain: Recipe) -> None:
    loader = pairs((PIXELS.double() / 255).to(kind), LABELS)
    run, expected = train(plain, loader, loader), train(plain, pairs(PIXELS, LABELS), pairs(PIXELS, LABELS))
    close = 1e-5 if kind.itemsize > 2 else 0.05
    torch.testing.assert_close(weights(run), weights(expected), atol=close, rtol=close)
    assert run.evaluation.loss == pytest.approx(expected.evaluation.loss, rel=close)


class Sized(IterableDataset[Any]):
    """Gives ``given`` batches' worth of images, and says that it has those of ``said``."""

    def __init__(self, given: int, said: int | None) -> None:
        self.given, self.said = given, said

    def __len__(self) -> int:
        if self.said is None:
            raise TypeError("no length")
        return 8 * self.said

    def __iter__(self) -> Iterator[Any]:
        return iter([(PIXELS[k], LABELS[k]) for k in range(8 * self.given)])


class Batches(list[Any]):
    """Batches with a length that may not be theirs."""

    def __init__(self, given: int, said: int) -> None:
        super().__init__((PIXELS[8 * k : 8 * k + 8], LABELS[8 * k : 8 * k + 8]) for k in range(given))
        self.said = said

    def __len__(self) -> int:
        return self.said


class Once(Batches):
    """Batches that come once only."""

    def __iter__(self) -> Iterator[Any]:
        while list.__len__(self):
            yield self.pop(0)


class Items(Dataset[Any]):
    """Single images with labels that are plain integers."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return PIXELS[index], int(LABELS[index])


FLOATING = PIXELS / 255
WRONG: dict[str, tuple[Any, str]] = {
    "unbatched": (lambda: DataLoader(Items(), batch_size=None), r"got one image \(1, 12, 12\); give the Data"),
    "unbatched int": (lambda: [(PIXELS[0], 3)], r"got one image \(1, 12, 12\)"),
    "no channel": (lambda: pairs(PIXELS[:, 0], LABELS), r"got \(8, 12, 12\); images.unsqueeze\(1\)"),
    "channels last": (
        lambda: pairs(PIXELS.permute(0, 2, 3, 1), LABELS),
        r"got \(8, 12, 12, 1\), whose channels are last; images\.permute\(0, 3, 1, 2\)",
    ),
    "no image": (lambda: [(PIXELS[:0], LABELS[:0])], r"at least 1 image in every batch, got \(0, 1, 12, 12\)"),
    "flat": (lambda: pairs(PIXELS.flatten(1), LABELS), r"expected images \(B, C, H, W\), got \(8, 144\)"),
    "wide integers": (lambda: pairs(PIXELS.long(), LABELS), "uint8, or floating in .* got int64"),
    "up to 255": (lambda: pairs(PIXELS.float(), LABELS), r"expected images in \[0, 1\], or uint8, got up to 255;"),
    "normalized": (lambda: pairs((FLOATING - 0.13) / 0.31, LABELS), r"\[0, 1\], got -0\.419 to 2\.81; leave Normalize"),
    "mirrored": (lambda: pairs(FLOATING * 2 - 1, LABELS), r"\[0, 1\], got -1 to 1; leave Normalize out"),
    "not a number": (lambda: pairs(FLOATING * float("nan"), LABELS), "finite images, got values from nan"),
    "three means": (lambda: pairs(PIXELS, LABELS), r"data\.mean has 3 values, the images have 1 channels"),
    "too many classes": (lambda: pairs(PIXELS, LABELS + 1), "5 classes, expected labels from 0 to 4, got 1 to 5"),
    "below 0": (lambda: pairs(PIXELS, LABELS - 1), "from 0 to 4, got -1 to 3"),
    "too few columns": (lambda: pairs(PIXELS, ONE_HOT[:, :4] + 0.01), r"5 classes, expected \(B, 5\), got 4|sum to 1"),
    "several classes": (lambda: pairs(PIXELS, ONE_HOT | ONE_HOT.roll(1, 1)), "rows sum to 1"),
    "floating labels": (lambda: pairs(PIXELS, LABELS.float()), r"got \(8,\) float32; labels\.long\(\)"),
    "label maps": (lambda: pairs(PIXELS, LABELS[:, None, None].expand(-1, 2, 2)), r"got \(8, 2, 2\) int64"),
    "fewer labels": (lambda: [(PIXELS[:8], LABELS[:7])], r"as many labels as images, got \(7,\) and 8"),
    "three values": (lambda: [(PIXELS[:8], LABELS[:8], 1)], r"two tensors, got 3 values \(Tensor, Tensor, int\)"),
    "dict": (lambda: [{"pixel_values": PIXELS, "labels": LABELS}], "got a dict of pixel_values, labels; give a pair"),
    "images alone": (lambda: [PIXELS[:8]], "two tensors, got Tensor"),
    "empty": (list, "expected at least 1 batch, its length is 0|at least 1 labeled image, got none"),
    "dropped": (lambda: DataLoader(Items(), 64, drop_last=True), "its length is 0|1 labeled image, got none"),
}


@pytest.mark.parametrize("role", ["loader", "validation_loader"])
@pytest.mark.parametrize("form", WRONG)
def test_what_cannot_be_meant_is_said_before_training(form: str, role: str, plain: Recipe) -> None:
    make, message = WRONG[form]
    if form == "three means":
        plain = plain.replaced(data={**plain.data.model_dump(), "mean": [0.5] * 3, "std": [0.5] * 3})
    steps: list[int] = []
    loaders = (make(), None) if role == "loader" else (pairs(PIXELS, LABELS), make())
    with pytest.raises(InputError, match=message) as caught:
        train(plain, *loaders, on_step=lambda step, steps_in_all: steps.append(step))
    assert steps == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (DataLoader(Sized(5, None), 8), "expected one with a length, such as a DataLoader, got DataLoader without"),
        (iter([(PIXELS, LABELS)]), "expected one with a length, such as a DataLoader, got list_iterator"),
        (3, "expected one with a length"),
    ],
)
def test_loaders_without_a_length_are_refused(loader: Any, message: str, plain: Recipe) -> None:
    with pytest.raises(InputError, match=message):
        train(plain, loader)


def test_batches_for_validation_must_come_again(plain: Recipe) -> None:
    for once in (iter([(PIXELS, LABELS)]), ((a, b) for a, b in [(PIXELS, LABELS)])):
        with pytest.raises(InputError, match="validation_loader: expected batches that can be gone through again"):
            train(plain, pairs(PIXELS, LABELS), once)
    with pytest.raises(InputError, match="validation_loader: expected batches, such as a DataLoader, got int"):
        train(plain, pairs(PIXELS, LABELS), 3)


def test_batches_that_begin_again_at_their_end_are_evaluated_whole(plain: Recipe) -> None:
    class Resetting:
        """As loaders of DALI do."""

        place = 0

        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Resetting:
            return self

        def __next__(self) -> tuple[Tensor, Tensor]:
            self.place += 1
            if self.place > 5:
                self.place = 0
                raise StopIteration
            return PIXELS[8 * self.place - 8 : 8 * self.place], LABELS[8 * self.place - 8 : 8 * self.place]

    run = train(plain, Resetting(), Resetting())
    assert int(run.evaluation.confusion.sum()) == COUNT
    assert torch.equal(weights(run), weights(train(plain, pairs(PIXELS, LABELS))))


def test_labels_of_a_dataset_that_the_network_does_not_know_are_said_before_training(plain: Recipe) -> None:
    data = augkit.load_dataset("digits", limit=100)
    small = nn.Sequential(nn.Flatten(), nn.Linear(256, 5))
    with pytest.raises(InputError, match="the network has 5 classes, expected labels from 0 to 4, got 0 to 9"):
        augkit.fit(plain, model=small, dataset=data)


def test_an_epoch_is_as_long_as_the_loader_says(plain: Recipe) -> None:
    run = train(plain, Batches(given=5, said=3))
    assert [row["step"] for row in run.history] == [3, 6]
    assert torch.equal(weights(run), weights(train(plain, pairs(PIXELS[:24], LABELS[:24]))))
    short = train(plain, Batches(given=3, said=4))
    assert [row["step"] for row in short.history] == [4, 8]
    begun_again = [Batches(5, 5)[k] for k in (0, 1, 2, 0)]
    assert torch.equal(weights(short), weights(train(plain, begun_again)))
    with pytest.raises(InputError, match="expected 4 batches, as its length says, got 3 and then none"):
        train(plain, Once(given=3, said=4))
    with pytest.raises(InputError, match="expected 4 batches, as its length says, got 0 and then none"):
        train(plain, Batches(given=0, said=4))


def test_normalized_images_are_taken_where_the_recipe_does_not_normalize(plain: Recipe) -> None:
    bare = plain.replaced(data={**plain.data.model_dump(), "mean": [0.0], "std": [1.0]})
    loader = pairs((FLOATING - 0.5) / 0.5, LABELS)
    expected = train(plain, pairs(FLOATING, LABELS), pairs(FLOATING, LABELS))
    torch.testing.assert_close(weights(train(bare, loader, loader)), weights(expected))
    with pytest.raises(InputError, match="or uint8, got up to 255"):
        train(bare, pairs(PIXELS.float(), LABELS))
    overshoot = pairs((FLOATING * 1.4 - 0.2), LABELS)
    assert train(plain, overshoot, overshoot).history, "what resampling adds is no mistake"


@given(st.integers(1, 4), st.integers(2, 6), st.sampled_from(["classes", "column", "one-hot"]), st.booleans())
def test_forms_of_one_batch_are_one(batch: int, classes: int, form: str, array: bool) -> None:
    truth = torch.arange(batch) % classes
    given_as = {"classes": truth, "column": truth[:, None], "one-hot": nn.functional.one_hot(truth, classes)}[form]
    images = torch.rand(batch, 3, 5, 4, dtype=torch.float64)
    pair = (np.asarray(images), np.asarray(given_as)) if array else (images, given_as)
    found, labels = labeled(pair)
    assert torch.equal(found, images.float())
    assert torch.equal(labels.argmax(1) if labels.ndim == 2 else labels, truth)


class Spy(DistributedSampler[Any]):
    """Keeps the orders that it gave."""

    def __iter__(self) -> Iterator[Any]:
        order = list(super().__iter__())
        self.orders = [*getattr(self, "orders", []), order]
        return iter(order)


class Own(BatchSampler):
    """A sampler of batches that wants to know the epoch itself."""

    epochs: tuple[int, ...] = ()

    def set_epoch(self, epoch: int) -> None:
        self.epochs = (*self.epochs, epoch)


def test_every_sampler_is_told_the_epoch(plain: Recipe) -> None:
    data = TensorDataset(PIXELS, LABELS)
    spy = Spy(data, num_replicas=1, rank=0)
    batches = Own(spy, 8, drop_last=False)
    train(plain.replaced(train={"epochs": 3}), DataLoader(data, batch_sampler=batches))
    assert batches.epochs == (0, 1, 2)
    assert make_batches(DataLoader(data, batch_sampler=batches), plain, CPU, Process()).images_per_step == 8
    assert len({tuple(order) for order in spy.orders}) == len(spy.orders) == 3
    alone = Spy(data, num_replicas=1, rank=0)
    train(plain.replaced(train={"epochs": 3}), DataLoader(data, 8, sampler=alone))
    assert alone.orders == spy.orders


class Jittered(Dataset[Any]):
    """Draws when it is read."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return (FLOATING[index] * torch.rand(()) * float(np.random.rand())).clamp(0, 1), LABELS[index]  # noqa: NPY002


def test_every_epoch_of_a_loader_draws_other_numbers(plain: Recipe) -> None:
    feed = make_batches(DataLoader(Jittered(), 8), plain, CPU, Process())
    first, second, rest = (torch.cat([batch.images for batch in feed.epoch(*place)]) for place in ((0,), (1,), (1, 3)))
    factors = {tuple(batch.amax((1, 2, 3)).tolist()) for batch in (*first.split(8), *second.split(8))}
    assert len(factors) == 10
    assert torch.equal(second[24:], rest)
    other = make_batches(DataLoader(Jittered(), 8), plain, CPU, Process(rank=1))
    assert not torch.equal(first, torch.cat([batch.images for batch in other.epoch(0)]))


def drawn_loader(workers: int = 0) -> DataLoader[Any]:
    data = Jittered()
    return DataLoader(data, 8, sampler=RandomSampler(data, replacement=True), num_workers=workers)


def test_what_a_loader_draws_is_named_by_the_seed(plain: Recipe, tmp_path: Any) -> None:
    recipe = plain.replaced(train={"epochs": 2, "batch_size": 8, "checkpoint_steps": 3})

    def stop(step: int, steps: int) -> None:
        if step == 8:
            raise KeyboardInterrupt

    before = torch.get_rng_state()
    whole = train(recipe, drawn_loader(), drawn_loader())
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, drawn_loader(), drawn_loader(), output=tmp_path / "run", on_step=stop)
    resumed = train(recipe, drawn_loader(), drawn_loader(), output=tmp_path / "run", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    assert not torch.equal(weights(whole), weights(train(recipe, drawn_loader(), drawn_loader(), seed=1)))


@pytest.mark.integration
def test_workers_of_a_loader_draw_what_the_seed_names(plain: Recipe) -> None:
    held_out = drawn_loader()
    first, second = (train(plain, drawn_loader(workers=1), held_out) for _ in range(2))
    assert torch.equal(weights(first), weights(second))
