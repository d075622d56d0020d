"""The search of a policy for a function: what it finds, how it goes on, and what is refused in one line."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from optuna.storages import InMemoryStorage
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import augkit
from augkit.core.errors import InputError, RunError
from augkit.data import Images
from augkit.train.user_images import fingerprint
from augkit.tune import Goal
from augkit.tune.policy_results import PolicyResults

LOOPS = Path(__file__).parent.parent.parent / "docs" / "loops.md"
SHIFT = augkit.Policy(shift={"max_pixels": 1.0})


def shapes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Squares, crosses and bars at random places, ``(count, 1, 12, 12)`` in [0, 1], with labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 0.2 * torch.rand(count, 1, 12, 12, generator=generator)
    for image, label, (y, x) in zip(
        images, labels, torch.randint(3, 6, (count, 2), generator=generator).tolist(), strict=True
    ):
        if label == 0:
            image[0, y : y + 4, x : x + 4] = 1
        image[0, y + 2, x : x + 5] = 1 if label == 1 else image[0, y + 2, x : x + 5]
        image[0, y : y + 5, x + 2] = 1 if label else image[0, y : y + 5, x + 2]
    return images, labels


IMAGES, LABELS = shapes(60, 0)
HELD_OUT = shapes(60, 1)


def network(outputs: int = 3) -> nn.Module:
    layers = nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, outputs))


def plain(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
    """A loop of five lines that cannot go on from a checkpoint."""
    del start
    torch.manual_seed(seed)
    model, augment = network(), policy.augment()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(5 * epochs):
        loss = nn.functional.cross_entropy(model(augment(IMAGES)), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def search(train: Any = plain, validation: Any = HELD_OUT, **changed: Any) -> PolicyResults:
    fields = {"space": SHIFT, "trials": 1, "epochs": 2, "max_shift": 1.0, "pairs": 1, "floor": 0.0}
    return augkit.tune_policy(train, validation, **{**fields, **changed})


def calls_of(train: Callable[..., nn.Module]) -> tuple[list[tuple[augkit.Policy, int, int, list[str] | None]], Any]:
    """The calls of a function (policy, epochs, seed, files in ``start``), and the function that notes them."""
    calls: list[tuple[augkit.Policy, int, int, list[str] | None]] = []

    def noting(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        there = None if start is None else sorted(path.name for path in start.iterdir())
        calls.append((policy, epochs, seed, there))
        return train(policy, epochs=epochs, seed=seed, start=start)

    return calls, noting


def test_a_plain_loop_is_searched_and_reported(tmp_path: Path) -> None:
    calls, train = calls_of(plain)
    result = search(train, trials=4, seed=3, epochs=6)
    assert [call[1:] for call in calls] == [(6, 3, None)] * 5
    assert calls[0][0].is_identity, "the control comes first"
    assert result.best in [call[0] for call in calls]
    assert result.best == result.chosen.policy
    assert result.front
    scores = [(point.accuracy, point.learned_invariance) for point in result.front]
    assert scores == sorted(scores, key=lambda pair: (-pair[0], pair[1])), "no point dominates another"
    trials = {trial.number: trial for trial in result.search.trials if not trial.control}
    assert len(trials) == 4
    assert trials[result.chosen.number].chosen
    chosen = plain(result.best, epochs=6, seed=3, start=None)
    control = plain(augkit.Policy(), epochs=6, seed=3, start=None)
    settings: dict[str, Any] = {"max_shift": 1.0, "pairs": 1}
    mine, its = (augkit.measure_invariance(net, *HELD_OUT, **settings) for net in (chosen, control))
    assert result.chosen.accuracy == mine.accuracy.value
    learned = 1 - mine.shift_information.value / its.shift_information.value
    assert result.chosen.learned_invariance == pytest.approx(learned, abs=1e-4)
    page = result.report(tmp_path / "report.html").read_text()
    assert "Parallel coordinates" in page
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|www\.w3\.org\S*', "", page) or "<script src" not in page
    assert result.to_dict()["chosen"]["number"] == result.chosen.number


def test_a_mapping_may_have_ranges_and_a_dataset_gives_its_validation_split() -> None:
    data = augkit.load_dataset("digits", limit=100)
    seen: list[int] = []

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        seen.append(epochs)
        torch.manual_seed(seed)
        return network(10)

    space = {"shift": {"max_pixels": {"search": [0.5, 1.5]}, "p": 0.5}}
    result = search(train, data, space=space, trials=2, epochs=None)
    assert list(result.search.space) == ["policy.shift.max_pixels"]
    assert result.best.shift.p == 0.5
    assert set(seen) == {10}
    assert space == {"shift": {"max_pixels": {"search": [0.5, 1.5]}, "p": 0.5}}, "it is not changed"


def test_a_loop_that_keeps_a_checkpoint_goes_on_from_rung_to_rung(tmp_path: Path) -> None:
    def keeping(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        assert start is not None
        model = plain(policy, epochs=epochs, seed=seed, start=None)
        (start / f"epoch-{epochs}").touch()
        return model

    calls, train = calls_of(keeping)
    result = search(train, trials=3, epochs=None, rungs=(1, 2, 4), folder=tmp_path)
    left = [(epochs, files) for _, epochs, _, files in calls]
    whole = [(1, []), (2, ["epoch-1"]), (4, ["epoch-1", "epoch-2"])]
    assert left[:3] == whole, "the control, on each rung"
    assert sorted(left[3:], key=str) == sorted([*whole, (1, []), (1, [])], key=str)
    assert result.search.search_cost.epochs_run == 3 + 1 + 2
    assert [row.epochs for row in result.search.rungs] == [1, 2, 4]
    assert result.chosen.policy == result.front[0].policy, "only the top rung has a front"


def test_a_loop_that_keeps_nothing_trains_anew_and_the_cost_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    result = search(trials=3, epochs=None, rungs=(1, 2), quiet=False)
    assert result.search.search_cost.epochs_run == 3 * 1 + 2
    assert "so 1 configuration(s) began anew" in capsys.readouterr().err


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    for trials in (1, 2):
        found = search(trials=np.int64(trials), epochs=None, rungs=(np.int64(1), np.int64(2)), folder=tmp_path)
        assert found.search.search_cost.trials == trials


def test_the_same_call_again_goes_on_with_the_study(tmp_path: Path) -> None:
    calls, train = calls_of(plain)
    place = str(tmp_path / "journal")
    first = search(train, trials=2, storage=place)
    assert len(calls) == 3
    second = search(train, trials=4, storage=place)
    assert len(calls) == 5, "neither the control nor the first two trials are trained again"
    numbers = [[trial.number for trial in result.search.trials] for result in (first, second)]
    assert numbers[1][: len(numbers[0])] == numbers[0]
    assert search(train, trials=1, storage=place).search.to_dict() == second.search.to_dict()
    assert len(calls) == 5
    with pytest.raises(InputError, match=r"data.name was images-\w+, is images-\w+"):
        search(train, shapes(60, 2), trials=4, storage=place)


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    stops = [KeyboardInterrupt]

    def train(policy: augkit.Policy, **rest: Any) -> nn.Module:
        if not policy.is_identity and stops:
            raise stops.pop()
        return plain(policy, **rest)

    with pytest.raises(KeyboardInterrupt):
        search(train, trials=2, folder=tmp_path)
    assert search(train, trials=2, folder=tmp_path).search.search_cost.trials == 2


def leave_as_lightning() -> None:
    """What Lightning's ``Trainer.fit`` does after Ctrl-C."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.parametrize("where", ["train", "score"])
def test_an_interrupt_that_ends_as_an_exit_hands_the_trial_back(where: str, tmp_path: Path) -> None:
    left = [True, True]  # more than a trial has retries

    def train(policy: augkit.Policy, **rest: Any) -> nn.Module:
        if where == "train" and not policy.is_identity and left and left.pop():
            leave_as_lightning()
        return plain(policy, **rest)

    def score(model: nn.Module) -> float:
        if where == "score" and left and left.pop():
            leave_as_lightning()
        return 0.5

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            search(train, score=score, folder=tmp_path)
    cost = search(train, score=score, folder=tmp_path).search.search_cost
    assert (cost.trials, cost.failed) == (1, 0)


def test_a_score_stands_in_the_place_of_accuracy() -> None:
    scores = iter([0.5, 0.25, 0.75])
    result = search(score=lambda model: next(scores), validation=Images(HELD_OUT[0], None), trials=2)
    assert [trial.accuracy for trial in result.search.trials] == [0.5, 0.25, 0.75]
    assert result.search.trials[0].kappa is None
    bounded = search(score=lambda model: 0.5, trials=1, goal=Goal(mode="invariance", at_least=0.4))
    assert bounded.chosen.feasible
    assert len(bounded.front) == 1


def test_a_score_sees_the_network_in_evaluation_mode_as_accuracy_does() -> None:
    networks: list[nn.Module] = []

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        model = nn.Sequential(plain(policy, epochs=epochs, seed=seed, start=start), nn.BatchNorm1d(3), nn.Dropout())
        model[0].eval()  # a part that the loop has frozen
        networks.append(model)
        return model

    def accuracy(model: nn.Module) -> float:
        before = [buffer.clone() for buffer in model.buffers()]
        with torch.no_grad():
            found = [(model(HELD_OUT[0]).argmax(1) == HELD_OUT[1]).float().mean().item() for _ in range(2)]
        assert found[0] == found[1], "no dropout"
        assert all(map(torch.equal, before, model.buffers())), "no statistics of validation images"
        return found[0]

    search(train, score=accuracy)
    assert all(model.training and not model[0].training for model in networks), "every part is as it was"


def test_a_seed_that_does_not_repeat_is_a_warning_with_both_numbers() -> None:
    seeds = iter(range(9))

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        return plain(policy, epochs=epochs, seed=next(seeds), start=start)

    with pytest.warns(UserWarning, match=r"two calls with seed 0 gave networks whose .* is [\d.]+ and [\d.]+"):
        search(train, check_seed=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search(check_seed=True)


def failing(outcome: Callable[[int], Any], *, control: bool = False) -> Any:
    """A function whose trials, from the second on, or whose control, give ``outcome(epochs)``."""
    trials = iter(range(99))

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> Any:
        if policy.is_identity if control else (not policy.is_identity and next(trials)):
            return outcome(epochs)
        return plain(policy, epochs=epochs, seed=seed, start=start)

    return train


def undefined(_: int) -> nn.Module:
    model = network()
    nn.init.constant_(model[-1].bias, torch.nan)
    return model


def raising(_: int) -> nn.Module:
    raise ValueError("no such file")


def leaving(_: int) -> nn.Module:
    sys.exit("no data")


BAD = {
    "nothing": (lambda _: None, r"train: expected a torch.nn.Module, got NoneType; return the trained network"),
    "another shape": (lambda _: nn.Identity(), r"cannot be measured: model: expected logits \(\d+, K\), got"),
    "other classes": (lambda _: network(4), r"train: expected a network with 3 outputs as before, got 4"),
    "NaN": (undefined, r"cannot be measured: .*finite"),
    "an exit": (leaving, r"train raised SystemExit: no data \(test_policy_search.py:\d+\)"),
    "an error": (raising, r"train raised ValueError: no such file \(test_policy_search.py:\d+\)"),
}


@pytest.mark.parametrize("bad", BAD)
def test_three_bad_trials_in_a_row_end_the_search_with_their_reason(bad: str) -> None:
    outcome, words = BAD[bad]
    with pytest.raises(RunError, match=rf"\Athree trials failed in a row, the last one, trial \d+: .*{words}[^\n]*\Z"):
        search(failing(outcome), trials=5)


@pytest.mark.parametrize("bad", [name for name in BAD if name != "other classes"])
def test_a_bad_control_ends_the_search_at_once(bad: str) -> None:
    outcome, words = BAD[bad]
    with pytest.raises(RunError, match=rf"\Athe control could not be trained: .*{words}"):
        search(failing(outcome, control=True))


def test_outputs_that_change_between_rungs_are_refused() -> None:
    with pytest.raises(RunError, match="expected a network with 3 outputs as before, got 4"):
        search(failing(lambda epochs: network(2 + epochs), control=True), epochs=None, rungs=(1, 2))
    with pytest.raises(RunError, match="the model has 2 classes, got label 2"):
        search(failing(lambda epochs: network(2), control=True))


def test_one_bad_trial_fails_alone() -> None:
    left = [ValueError("once")]

    def train(policy: augkit.Policy, **rest: Any) -> nn.Module:
        if not policy.is_identity and left:
            raise left.pop()
        return plain(policy, **rest)

    result = search(train, trials=2)
    assert (result.search.search_cost.trials, result.search.search_cost.failed) == (2, 1)
    assert "train raised" in next(str(trial.error) for trial in result.search.trials if trial.state == "failed")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"train": 3}, r"train: expected a function train\(policy, \*, epochs, seed, start\), got int"),
        ({"train": lambda policy, epochs: None}, r"got one of \(policy, epochs\) \(got an unexpected keyword"),
        ({"validation": HELD_OUT[0]}, r"validation: expected \(images, labels\) or a dataset of augkit, got Tensor"),
        ({"validation": (HELD_OUT[0], None)}, "validation: expected labels, for accuracy, got none"),
        ({"validation": (HELD_OUT[0], LABELS[:5])}, r"validation: expected labels \(60,\), got \(5,\)"),
        ({"validation": (4 * HELD_OUT[0], LABELS)}, r"expected images in \[0, 1\], not normalized"),
        ({"validation": TensorDataset(*HELD_OUT)}, "or a dataset of augkit, got TensorDataset"),
        ({"validation": (HELD_OUT[0].numpy(), LABELS)}, r"of tensors, got \(ndarray, Tensor\)"),
        ({"validation": (HELD_OUT[0].long(), LABELS)}, "images of uint8 or floating numbers, got torch.int64"),
        ({"validation": (HELD_OUT[0] > 0.5, LABELS)}, "images of uint8 or floating numbers, got torch.bool"),
        ({"validation": (HELD_OUT[0], LABELS + 0j)}, "expected class indices from 0 as labels"),
        ({"mean": 0.5}, "data.mean: expected a valid list, got 0.5"),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 3}, "mean and std: expected 1 values each, got 3"),
        ({"canvas": 4}, "data.canvas: expected at least 12 pixels, got 4"),
        ({"validation": (HELD_OUT[0][0], LABELS)}, r"images \(N, C, H, W\), got \(1, 12, 12\)"),
        ({"space": augkit.Policy()}, "space: expected an op whose strength can be searched.*got no augmentation"),
        ({"space": augkit.Policy(shift={"max_pixels": 1}, strength=0)}, "space: expected an op whose strength"),
        ({"space": {"shifft": {}}}, "space: unknown key 'policy.shifft'"),
        ({"space": 3}, "space: expected an augkit.Policy or a mapping, got int"),
        ({"trials": 0}, "trials: expected a whole number of 1 or more, got 0"),
        ({"trials": "two"}, "trials: expected a whole number of 1 or more, got 'two'"),
        ({"epochs": 0}, "epochs of a trial: expected a whole number of 1 or more, got 0"),
        ({"rungs": ("a", "b")}, "rungs: expected a whole number of 0 or more, got 'a'"),
        ({"rungs": 3}, "rungs: expected two or more ascending numbers of epochs"),
        ({"timeout": "10"}, "timeout: expected seconds above 0, got '10'"),
        ({"timeout": float("inf")}, "timeout: expected seconds above 0, got inf"),
        ({"rungs": np.array([1, 2])}, "rungs: expected two or more ascending numbers of epochs"),
        ({"goal": "pareto"}, "goal: expected an augkit.tune.Goal, got 'pareto'"),
        ({"workers": 1.0}, "workers: expected a whole number or WorkerSettings, got 1.0"),
        ({"storage": InMemoryStorage()}, "storage: expected a file or URL as text, got InMemoryStorage"),
        ({"folder": __file__}, "test_policy_search.py': expected a folder, it is a file"),
        ({"folder": 3}, "expected an output folder, got int"),
        ({"timeout": -1}, "timeout: expected seconds above 0, got -1"),
        ({"rungs": "24"}, r"such as \(2, 4, 8\), got '24'"),
        ({"sampler": "best"}, "tune_policy: sampler"),
        ({"rungs": (2, 1), "epochs": None}, "expected two or more ascending numbers of epochs"),
        ({"max_shift": 9.0}, "max_shift 9 leaves no window in images of 12 x 12 pixels"),
        ({"goal": Goal(atypical=True)}, "expected uint8 images"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(changed: dict[str, Any], words: str) -> None:
    calls, train = calls_of(plain)
    with pytest.raises(InputError, match=words) as caught:
        search(**{"train": train, **changed})
    assert not calls
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_of_every_floating_type_are_measured_and_known_again(dtype: torch.dtype, tmp_path: Path) -> None:
    images = HELD_OUT[0].to(dtype)
    search(validation=(images, LABELS), folder=tmp_path)
    search(validation=(images.clone(), LABELS), folder=tmp_path)
    with pytest.raises(InputError, match=r"data\.name was images-"):
        search(validation=(images.flip(0), LABELS), folder=tmp_path)


def test_a_fingerprint_is_that_of_the_bytes_of_numpy() -> None:
    images, labels = HELD_OUT
    known = hashlib.sha256()
    for tensor in (images, labels):
        known.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    assert fingerprint(Images(images, labels)) == known.hexdigest()[:12]


def test_a_score_out_of_its_range_is_refused() -> None:
    with pytest.raises(RunError, match=r"score: expected a number in \[0, 1\], higher is better, got 7"):
        search(score=lambda model: 7)
