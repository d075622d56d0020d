"""`python -m augkit.tune package.module:train`: what it writes, how it goes on, and what it refuses in one line."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from user_loops import LOOP

import augkit
from augkit.core.cli import run
from augkit.core.errors import InputError, RunError
from augkit.tune import __main__ as tune
from augkit.tune.policy_results import PolicyResults

MEASURING = ["invariance.max_shift=1", "invariance.pairs=1"]
BAD = """
from user_loop import *
del space
number = 3
def wrong(policy): ...
def nothing(policy, *, epochs, seed, start): return None
def late(policy, *, epochs, seed, start):
    import time
    time.sleep(30)
def other(policy, *, epochs, seed, start): return train(policy, epochs=epochs, seed=seed, start=start)
def text(): return "images"
def last(): return shapes(60, 2)[0].permute(0, 2, 3, 1), shapes(60, 2)[1]
def breaks(): raise OSError("no disk")
other_images = shapes(60, 2)
wide = augkit.Policy(shift={"max_pixels": 2.0}, rotate={"max_degrees": 5.0})
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a module `user_loop` and one, `bad_loop`, of mistakes."""
    (tmp_path / "user_loop.py").write_text(LOOP)
    (tmp_path / "bad_loop.py").write_text(BAD)
    (tmp_path / "broken_loop.py").write_text("import no_such_module")
    (tmp_path / "eager_loop.py").write_text(
        "from user_loop import *\naugkit.tune_policy(train, validation, space=space)"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("user_loop", "bad_loop", "eager_loop"):
        sys.modules.pop(name, None)


def call(*words: str, trials: int = 1) -> int:
    line = [words[0], *MEASURING, *words[1:], "--trials", str(trials), "--trial-epochs", "1", "--floor", "0", "--quiet"]
    return run(tune.main, line)


@pytest.mark.integration
def test_a_function_is_searched_resumed_and_shown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("user_loop:train", "--output", "out", "--json", trials=2) == 0
    first = json.loads(capsys.readouterr().out)
    assert list(first["search"]["space"]) == ["policy.shift.max_pixels", "policy.shift.p"]
    assert first["folder"] == "out"
    assert {"best.yaml", "results.json", "report.html", "study.journal", "environment.json"} <= {
        path.name for path in (place / "out").iterdir()
    }
    assert json.loads((place / "out" / "results.json").read_text()) == {k: v for k, v in first.items() if k != "folder"}
    best = augkit.Policy.from_yaml(place / "out" / "best.yaml")
    assert best.shift is not None
    assert best.shift.max_pixels == first["chosen"]["policy"]["shift"]["max_pixels"]
    assert call("user_loop:train", "--output", "out") == 2
    assert "'out' exists: add --resume" in capsys.readouterr().err
    assert call("user_loop:train", "--output", "out", "--resume", trials=3) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 trials" in said
    assert said.startswith("chosen: trial ")
    assert re.search(r"chosen: trial \d+, shift .*on the images that chose it", said)
    assert len(json.loads((place / "out" / "results.json").read_text())["search"]["trials"]) == 4
    assert run(tune.main, ["--show", "out"]) == 0
    assert "3 trials" in capsys.readouterr().out


def test_the_words_of_the_command_line_change_space_images_and_score(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bad_loop:other", "policy.shift.max_pixels={search: [0.5, 1]}", "--validation", "bad_loop:other_images"]
    assert call(*words, "--space", "bad_loop:wide", "--score", "user_loop:half", "--output", "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["search"]["space"]) == ["policy.shift.max_pixels"]
    assert found["chosen"]["accuracy"] == 0.5
    assert found["chosen"]["policy"]["rotate"]["max_degrees"] == 5.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("no_such_loop:train", "train 'no_such_loop:train': cannot be imported .No module named 'no_such_loop'"),
        ("broken_loop:train", "train 'broken_loop:train': cannot be imported .No module named 'no_such_module'"),
        ("eager_loop:train", "tune_policy is called while the module is imported; move the call below if __name__"),
        ("user_loop:trian", "train 'user_loop:trian': cannot be imported .*no attribute 'trian'"),
        ("bad_loop:number", r"train: expected a function train\(policy, \*, epochs, seed, start\), got int"),
        ("bad_loop:wrong", r"got one of \(policy\) \(got an unexpected keyword argument 'epochs'\)"),
        ("bad_loop:other", "space: expected 'space' in bad_loop, --space MODULE:NAME or policy.* overrides, got none"),
        ("user_loop:train --validation bad_loop:none", "validation 'bad_loop:none': cannot be imported"),
        (
            "user_loop:train --validation bad_loop:text",
            "validation: expected .images, labels. or a dataset of augkit, got str",
        ),
        ("user_loop:train --validation bad_loop:last", r"got \(60, 12, 12, 1\), which looks like \(N, H, W, C\); perm"),
        ("user_loop:train --validation bad_loop:breaks", r"calling it failed \(OSError: no disk\)"),
        ("user_loop:train --space bad_loop:number", "space: expected an augkit.Policy or a mapping, got int"),
        ("user_loop:train policy.shifft.max_pixels=1", "space: unknown key 'policy.shifft'"),
        ("user_loop:train optim.lr=0.1", "override 'optim.lr=0.1': expected policy.* or one of invariance.protocol"),
        ("user_loop:train invariance.max_shift=9", "max_shift 9 leaves no window"),
        (
            "user_loop:train mnist5k",
            "expected one function and dotted.key=value overrides, got .*mnist5k",
        ),
        ("mnist5k --score user_loop:half", "--score: expected a function, package.module:train"),
        ("user_loop:train --nproc-per-trial 2", "--nproc-per-trial: expected a recipe, because a function starts its"),
        ("user_loop:train --tune-control", "--tune-control: expected a recipe, because the control of a function has"),
        ("user_loop:train --no-tune-control", "--no-tune-control: expected a recipe"),
        ("user_loop:train --seeds 5", "--seeds: expected a recipe, because the best policies"),
        ("user_loop:train --device cuda", "--device: expected a recipe, because a function chooses its device itself"),
        ("user_loop:train --from runs/earlier", "--from: expected a recipe, because it does not apply to a function"),
        ("user_loop:train --timeout 1e12", "timeout: expected seconds above 0, got 1000000000000.0; None waits for"),
        ("user_loop:train --dashboard", "--dashboard: expected a recipe, because it does not apply to a function"),
        ("user_loop:train --score user_loop:space", r"score: expected a function score\(model\), got Policy"),
        ("user_loop:train --timeout 0", "--timeout: expected a number above 0, got '0'"),
        ("user_loop:train --resume", r"--resume: expected --output DIR"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_left(
    words: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(place.iterdir())
    assert call(*words.split()) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("\n") == 1
    assert re.search(message, out.err), out.err
    assert {path for path in place.iterdir() if path.name != "__pycache__"} <= before


@pytest.mark.integration
def test_a_study_of_another_function_or_other_images_is_refused_and_stays(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--storage", "kept.journal", "--space", "user_loop:space"]
    assert call("user_loop:train", *common, "--output", "out") == 0
    journal = (place / "kept.journal").read_bytes()
    capsys.readouterr()
    for words, message in (
        (["bad_loop:other", "--resume"], "expected 'user_loop.train', with which it was begun, got 'bad_loop.other'"),
        (["user_loop:train", "--resume", "--validation", "bad_loop:other_images"], "data.name was images-"),
        (["user_loop:train", "--resume", "policy.shift.p={search: [0, 0.5]}"], "policy.shift.p was"),
        (["user_loop:train"], "study 'augkit' exists: add --resume"),
    ):
        assert call(*words, *common, "--output", "other") == 2
        assert message in capsys.readouterr().err
        assert not list((place / "other").glob("*"))
    assert (place / "kept.journal").read_bytes().startswith(journal), "of Optuna, only the attempts are added"


def test_failures_of_the_function_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--space", "user_loop:space"]
    assert call("bad_loop:nothing", *words, "--output", "a") == 1
    assert "augkit: error: the control could not be trained: train: expected a torch.nn" in capsys.readouterr().err
    began = time.monotonic()
    assert call("bad_loop:late", *words, "--timeout", "0.2", "--output", "b") == 1
    assert "train: expected a network within 0.2 s (timeout), got none" in capsys.readouterr().err
    assert time.monotonic() - began < 15


@pytest.mark.integration
def test_a_late_trial_fails_alone_and_the_search_goes_on(place: Path) -> None:
    from user_loop import space, train, validation  # type: ignore[import-not-found]

    late = [30.0]

    def slow(policy: augkit.Policy, **rest: object) -> object:
        if not policy.is_identity and late:
            time.sleep(late.pop())
        return train(policy, **rest)

    given = {"space": space, "trials": 1, "epochs": 1, "max_shift": 1.0, "pairs": 1, "floor": 0.0}
    found = augkit.tune_policy(slow, validation, timeout=1.0, **given)  # type: ignore[arg-type]
    assert isinstance(found, PolicyResults)
    assert (found.search.search_cost.trials, found.search.search_cost.failed) == (1, 1)
    with pytest.raises(InputError, match="timeout: expected seconds above 0, got 0"):
        augkit.tune_policy(slow, validation, timeout=0, **given)  # type: ignore[arg-type]


def test_workers_need_a_function_that_they_can_import(place: Path) -> None:
    from user_loop import space, train, validation

    given = {"space": space, "trials": 1, "epochs": 1, "max_shift": 1.0, "pairs": 1, "workers": 2}
    main = type(train)(train.__code__, {"__name__": "__main__"}, "train")

    def local(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> None: ...

    for function, name in ((local, r"test_loop_command:test_workers\w+\.<locals>\.local"), (main, r"\w+:train")):
        with pytest.raises(InputError, match=rf"train: expected a function that can be imported by name.*got .*{name}"):
            augkit.tune_policy(function, validation, **given)
    with pytest.raises(InputError, match="score: expected a function that can be imported by name"):
        augkit.tune_policy(train, validation, score=lambda model: 0.5, **given)
    with pytest.raises(InputError, match="workers: expected a whole number of 1 or more, got 0"):
        augkit.tune_policy(train, validation, **{**given, "workers": 0})


def test_the_number_of_outputs_is_kept_for_the_next_process(place: Path) -> None:
    from user_loop import network, space, train, validation

    given = {"space": space, "epochs": 1, "max_shift": 1.0, "pairs": 1, "floor": 0.0, "folder": place / "f"}
    augkit.tune_policy(train, validation, trials=1, **given)

    def wider(policy: augkit.Policy, **rest: object) -> object:
        return network(4)

    wider.__module__, wider.__qualname__ = "user_loop", "train"
    with pytest.raises(RunError, match="expected a network with 3 outputs as before, got 4"):
        augkit.tune_policy(wider, validation, trials=5, **given)  # type: ignore[arg-type]


def test_a_study_whose_process_died_before_its_first_trial_is_begun_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from user_loop import space, train, validation

    given = {
        "space": space,
        "trials": 1,
        "epochs": 1,
        "max_shift": 1.0,
        "pairs": 1,
        "floor": 0.0,
        "folder": place / "f",
    }
    monkeypatch.setattr("augkit.core.jobs.worker.READY", 0.1)
    with monkeypatch.context() as dies:
        dies.setattr("augkit.tune.optuna_study._begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            augkit.tune_policy(train, validation, **given)
    assert augkit.tune_policy(train, validation, **given).search.search_cost.trials == 1
