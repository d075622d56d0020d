"""`python -m augkit.tune` from the command line: what it writes, prints, refuses and resumes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy import make_terms

import augkit.compare
import augkit.tune
from augkit.compare import __main__ as compare
from augkit.core.cli import run
from augkit.core.jobs.storage import open_storage
from augkit.train import __main__ as train
from augkit.train.recipe import Recipe
from augkit.tune import __main__ as tune
from augkit.tune.optuna_study import SearchTerms, make_or_join
from augkit.tune.pipeline import _take_folder
from augkit.tune.results import JoinedSearch, SearchCost
from augkit.tune.space import Space

COMMANDS = {"train": train, "compare": compare, "tune": tune}


def call(name: str, *words: str) -> int:
    return run(COMMANDS[name].main, list(words))


@pytest.mark.slow
def test_the_functions_behind_the_commands_return_what_the_commands_write(
    tiny: Recipe, tiny_file: str, tmp_path: Path
) -> None:
    one = tiny.replaced(train=tiny.train.model_copy(update={"epochs": 1}))
    assert call("compare", tiny_file, "train.epochs=1", "--seeds", "1", "--output", str(tmp_path / "c"), "--quiet") == 0
    compared = augkit.compare.compare([one.control(), one], [0], tmp_path / "c", resume=True).to_dict()
    assert compared == json.loads((tmp_path / "c" / "results.json").read_text())
    assert list(compared) == ["control", "seeds", "table", "carry_over", "conclusions", "environment"]
    found = augkit.tune.tune(one, tmp_path / "t", trials=1, trial_epochs=1, seeds=1, fork=True)
    assert isinstance(found, augkit.tune.TuneResults)
    results = json.loads((tmp_path / "t" / "results.json").read_text())
    assert found.to_dict() == results
    for key, names in TUNE_KEYS.items():
        rows = results[key] if key else results
        for row in rows if isinstance(rows, list) else [rows]:
            assert list(row) == names.split(), key
    assert [list(trial) for trial in results["trials"]] == [CONTROL_KEYS.split(), TRIAL_KEYS.split()]
    assert (results["settings"]["fork"], results["search_cost"]["control_epochs"]) == (1, 2)
    assert "1 trials of 1 epochs, each from the control after epoch 1" in (tmp_path / "t" / "report.html").read_text()


# As written before results were dataclasses.
TUNE_KEYS = {
    "": "conclusion chosen finalists verified table decomposition carry_over response dose_response trials space"
    " objectives budget importance search_cost settings environment cost",
    "verified": "points accuracy_shift learned_invariance_shift sentence",
    "chosen": "number rule policy fields values others control",
    "finalists": "name number accuracy learned_invariance shift_information comparison per_seed chosen",
    "dose_response": "strength accuracy learned_invariance",
    "search_cost": "trials pruned answered_from_the_study failed epochs_run epochs_saved trial_seconds control_epochs"
    " measuring_seconds",
    "settings": "name trials trial_epochs goal sampler epochs seeds search_seed final_seeds protocol kernel max_shift"
    " pairs device fork",
}
CONTROL_KEYS = (
    "number control state accuracy learned_invariance values parameters front chosen feasible shift_information kappa"
    " seconds curve"
)
TRIAL_KEYS = (
    "number control state accuracy learned_invariance values parameters front chosen feasible curve shift_information"
    " kappa seconds preset same_as error worker"
)


def tune_words(tiny_file: str, folder: Path) -> list[str]:
    return [tiny_file, "--trials", "2", "--trial-epochs", "1", "--seeds", "1", "--output", str(folder)]


@pytest.mark.integration
def test_tune_writes_its_report_recipe_and_results(
    tiny_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tuned"
    assert call("tune", *tune_words(tiny_file, folder)) == 0
    out = capsys.readouterr()
    said = " ".join(out.out.split())
    assert "Does it carry over to atypical images?" in said
    assert ", 2 of 2" in out.err
    results = json.loads((folder / "results.json").read_text())
    assert said.startswith(results["conclusion"])
    assert max(map(len, out.out.partition("report: ")[0].splitlines())) <= 80
    assert len(results["trials"]) == 3
    assert [point["strength"] for point in results["dose_response"]] == [0.0, 0.5, 1.0]
    learned = [point["learned_invariance"]["value"] for point in results["dose_response"]]
    assert learned[0] == 0
    assert any(learned[1:])
    assert {len(curve) for curve in results["response"].values()} == {8}
    assert sum(trial["chosen"] for trial in results["trials"]) == 1
    assert results["verified"]["sentence"] in said
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    for words in (
        "Closing table",
        "Retrained at full length",
        "Hypervolume",
        "Parallel coordinates",
        "Dose-response",
        "Response curve",
        "Trials",
        results["conclusion"][:40],
        results["verified"]["sentence"],
        "retrained, 95 % interval",
    ):
        assert words in page
    best = Recipe.load(folder / "best.yaml")
    assert best.policy.model_dump() == results["chosen"]["fields"]
    assert call("train", str(folder / "best.yaml"), "--output", str(tmp_path / "again"), "--quiet") == 0
    for name in ("study.journal", "contact-sheet.png", "summary.png", "recipe.yaml", "environment.json"):
        assert (folder / name).stat().st_size > 50


@pytest.mark.integration
def test_tune_resumes_after_an_interrupt(tiny_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real Ctrl-C during the search, then the command line that it printed."""
    folder = tmp_path / "tuned"
    words = [*tune_words(tiny_file, folder), "train.epochs=1"]
    words[2] = "400"
    command = [sys.executable, "-m", "augkit.tune", *words]
    # A suite that a shell runs in the background inherits an ignored Ctrl-C, and would hand it on to the command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if ", 3 of 400" in line)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest[-500:]
    assert "interrupted; what was done is kept" in rest
    line = rest.strip().splitlines()[-1].strip()
    assert line.startswith("python -m augkit.tune --output")
    done = (folder / "study.journal").read_text()
    resumed = [word if word != "400" else "4" for word in line.split()[3:]]
    assert call("tune", *resumed, "--json", "--quiet") == 0
    results = json.loads(capsys.readouterr().out)
    assert (folder / "study.journal").read_text().startswith(done)
    assert results["settings"]["trials"] == 4
    assert call("tune", *resumed, "--quiet", "--trial-epochs", "2") == 2
    assert "epochs was 1, is 2" in capsys.readouterr().err


@pytest.mark.cluster
def test_an_interrupted_helper_of_a_search_joins_it_again(
    tiny_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --resume it would lead: take its own number of trials, and do the final runs a second time."""
    place = f"sqlite:///{tmp_path}/s.db"
    words = [*tune_words(tiny_file, tmp_path / "first"), "--storage", place, "--study", "s"]
    assert call("tune", *words, "--quiet") == 0

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("augkit.tune.pipeline._search", interrupted)
    monkeypatch.setattr("augkit.core.jobs.storage.Storage.is_remote", True)
    words = [*tune_words(tiny_file, tmp_path / "second"), "--storage", place, "--study", "s"]
    assert call("tune", *words, "--quiet") == 130
    again = [word for word in words if word not in ("--output", str(tmp_path / "second"))]
    line = capsys.readouterr().err.splitlines()[-1].split()
    assert line == ["python", "-m", "augkit.tune", *again, "--quiet"]


@pytest.mark.integration
def test_a_search_checks_its_storage_before_it_overwrites(
    tiny_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that does not answer, and a journal that holds the study already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("augkit.core.jobs.storage.ANSWER", 1.0)
    assert call("tune", *tune_words(tiny_file, Path("other")), "--quiet") == 0
    shutil.copytree("other", "mine")  # another finished search
    before = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    for storage in ("grpc://localhost:1", "other/study.journal"):
        place = ["--storage", storage, "--quiet"]
        words = [*tune_words(tiny_file, Path("mine")), *place, "--study", "augkit", "--overwrite"]
        assert call("tune", *words) == 2
        assert {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == before
        assert call("tune", *tune_words(tiny_file, Path("new")), *place) == 2
        assert list(Path("new").iterdir()) == [], "the same command can be tried again"


def test_a_folder_that_holds_no_search_is_not_resumed_with_the_default_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "mistyped"
    assert call("tune", "--output", str(place), "--resume") == 2
    assert (
        f"--resume: expected a folder of augkit.tune, there is no '{place / 'space.json'}'" in capsys.readouterr().err
    )
    assert not place.exists()
    place.mkdir()
    for text in ("{", "[]", '{"recipe": {}}'):
        (place / "space.json").write_text(text)
        assert call("tune", "--output", str(place), "--resume") == 2
        said = capsys.readouterr().err
        assert "space.json': cannot be read (" in said
        assert said.count("\n") == 1


def test_a_resume_that_is_refused_leaves_the_space_of_the_search(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the next resume, which reads the space from there, would be refused as well."""
    tree = tiny.replaced(policy={"shift": {"max_pixels": 2.0}})
    recipe, place = tmp_path / "recipe.yaml", tmp_path / "t"
    recipe.write_text(tree.to_yaml())
    wide, narrow = (f"policy.shift.max_pixels={{search: [0, {end}], default: 2.0}}" for end in (8, 4))
    space = Space.load(recipe, [wide])
    _take_folder(place, space, resume=False, overwrite=False)
    terms = SearchTerms(space=space.to_dict(), epochs=1)
    make_or_join(open_storage(place / "study.journal"), "augkit", terms, 1, join=False)
    before = (place / "space.json").read_bytes()
    words = ["--trial-epochs", "1", "--rungs", "none", "--output", str(place), "--resume", "--quiet"]
    assert call("tune", str(recipe), narrow, *words) == 2
    assert "policy.shift.max_pixels was [0, 8], is [0, 4]" in capsys.readouterr().err
    assert (place / "space.json").read_bytes() == before


def test_show_refuses_a_file_as_its_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_or_join(open_storage(tmp_path / "study.journal"), "augkit", make_terms(), 1, join=False)
    (tmp_path / "file").touch()
    assert call("tune", "--show", str(tmp_path), "--output", str(tmp_path / "file")) == 2
    assert "expected a folder, it is a file" in capsys.readouterr().err


def test_a_helper_names_the_study_that_it_joined(
    tiny_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it was not named on the command line."""
    cost = SearchCost(3, 0, 0, 0, 3, 0, 1.0)
    monkeypatch.setattr(tune, "tune", lambda *values, **named: JoinedSearch(cost))
    for words, name in ((["--study", "mine"], "mine"), ([], "augkit")):
        assert call("tune", tiny_file, "--output", str(tmp_path / "t"), *words) == 0
        assert capsys.readouterr().out == f"helped with study '{name}': 3 trials have finished\n"
