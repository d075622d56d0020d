"""A tiny study from end to end: resumed, with an additional seed, with another recipe in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import augkit
from augkit.compare import __main__ as compare
from augkit.compare.study.cells import Cell, CellStore, cells_of, to_do
from augkit.compare.study.measurements import measure_accuracy, measure_network
from augkit.compare.study.pipeline import run_study, summary
from augkit.compare.study.results import StudyResults
from augkit.compare.study.schema import Measure, Study
from augkit.core.cli import run
from augkit.core.errors import InputError, RunError
from augkit.invariance import probes
from augkit.invariance.information import entropy, shift_information
from augkit.train.build import load_recipe_data
from augkit.train.load_model import load_model
from augkit.train.recipe import Recipe


def stamps(folder: Path) -> dict[str, int]:
    """Modification times of the files of a cell."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.glob("cells/*/**/*") if p.is_file()}


@pytest.mark.integration
def test_a_study_runs_is_resumed_and_accepts_an_additional_seed(layered_study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    first = run_study(Study.load(layered_study_file), folder)
    assert isinstance(first, StudyResults)
    results = first.to_dict()
    assert (results["cost"]["runs"], results["cost"]["loaded"]) == (6, 0)
    assert results["cost"]["failed"] == {}
    assert json.loads((folder / "results.json").read_text())["claims"] == results["claims"]
    verdicts = {row["id"]: row["verdict"] for row in results["claims"]}
    assert verdicts["x"] == "not run"
    assert verdicts[6] in ("supported", "undetermined", "refuted")
    claims = {row["id"]: row for row in results["claims"]}
    assert claims[6]["effect"]["low"] <= claims[6]["effect"]["value"] <= claims[6]["effect"]["high"]
    assert (claims[6]["n_seeds"], claims[6]["n_images"]) == (2, 60)
    assert claims[2]["figure"]["kind"] == "lines"
    assert claims[2]["parts"][1]["verdict"] == "reported"
    assert claims[3]["unit"] == "dB per downsampling"
    assert [arm["arm"] for arm in results["arms"]] == ["maxpool+none", "maxpool+shift"]
    assert set(results["arms"][1]["learned_invariance"]) <= {"typical", "inverted"}
    assert results["layers"][0]["names"][-1] == "logits"
    assert len(results["layers"][0]["db"]) == len(results["layers"][0]["names"])
    assert "Augmentation teaches invariance" in summary(first)

    before = stamps(folder)
    again = run_study(Study.load(layered_study_file), folder, resume=True).to_dict()
    assert stamps(folder) == before
    assert again["cost"]["loaded"] >= 4
    assert again["claims"] == results["claims"]

    more = run_study(Study.load(layered_study_file, seeds=3), folder, resume=True).to_dict()
    kept = stamps(folder)
    assert {key: kept[key] for key in before} == before
    assert {key.split("/")[1] for key in set(kept) - set(before)} == {
        "maxpool+none-seed2",
        "maxpool+shift-seed2",
        "no-network-seed2",
    }
    assert more["claims"][0]["n_seeds"] == 3


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_a_new_measure_is_taken_without_training_again(study_file: Path, finished_study: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_study, tmp_path / "out")
    before = stamps(folder)
    tree = yaml.safe_load(study_file.read_text())
    tree["measures"]["scale"] = {"axis": "scale", "reach": 1.2, "pairs": 1}
    tree["claims"] = [{**tree["claims"][0], "measure": "scale"}]
    study_file.write_text(yaml.safe_dump(tree))
    results = run_study(Study.load(study_file), folder, resume=True).to_dict()
    assert results["claims"][0]["effect"]["value"] is not None
    changed = {key.rpartition("/")[2] for key, value in stamps(folder).items() if before.get(key) != value}
    assert changed == {"scale.npz", "cell.json"}


@pytest.mark.integration
def test_a_cell_of_another_recipe_is_refused_before_any_work(
    study_file: Path, finished_study: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished_study, tmp_path / "out")
    before = stamps(folder)
    tree = yaml.safe_load(study_file.read_text())
    tree["overrides"]["optim.lr"] = 0.01
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"maxpool\+none-seed0' holds another recipe .*--output, or --overwrite"):
        run_study(Study.load(study_file), folder, resume=True)
    assert stamps(folder) == before


def test_impossible_measures_are_refused_before_training(study_file: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(study_file.read_text())
    tree["measures"]["scale"] = {"axis": "scale", "reach": 3.0}
    tree["claims"] = [{**tree["claims"][0], "measure": "scale"}]
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"arm maxpool\+\w+, measure 'scale': factor: .* has room for factors"):
        run_study(Study.load(study_file), tmp_path / "out")
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_a_measure_of_borders_that_no_shift_reaches_is_refused(study_file: Path, tmp_path: Path) -> None:
    """On a uniform canvas that is larger than window and image, a shift equals a circular one."""
    tree = yaml.safe_load(study_file.read_text())
    borders = {"protocol": "crop", "whole": True, "reach": 2.0, "pairs": 1}
    tree["measures"]["borders"] = borders
    tree["claims"] = [{**tree["claims"][0], "statistic": "variability", "measure": "borders"}]
    del tree["claims"][0]["control"]
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"'borders': .*images of 8 px shifted by 2 px do not leave windows of 12 px"):
        run_study(Study.load(study_file, seeds=1), tmp_path / "out")
    assert not (tmp_path / "out" / "cells").exists()
    tree["measures"]["borders"] = {**borders, "window": 8}
    study_file.write_text(yaml.safe_dump(tree))
    run_study(Study.load(study_file, seeds=1), tmp_path / "out")
    cell = tmp_path / "out" / "cells" / "maxpool+none-seed0"
    recipe, model, seen = Recipe.load(cell / "recipe.yaml"), load_model(str(cell)).model, set()
    model.register_forward_pre_hook(lambda network, inputs: seen.add(tuple(inputs[0].shape[-2:])))
    sets = {"typical": load_recipe_data(recipe).open_test(20)}
    measure_network(model, recipe, Measure(**tree["measures"]["borders"]), sets, torch.device("cpu"))
    assert seen == {(8, 8)}


@pytest.mark.integration
def test_columns_are_compact_and_complete(study_file: Path, finished_study: Path, tmp_path: Path) -> None:
    study, cpu = Study.load(study_file, seeds=1), torch.device("cpu")
    place, cells = CellStore(study, finished_study, cpu), cells_of(study)
    assert len(to_do(CellStore(study, tmp_path, cpu), cells)) == 3
    columns = place.columns(cells[0])["shift"]
    assert {"typical|js", "typical|correct", "typical|js@1", "inverted|changed"} <= set(columns)
    numbers = [values for key, values in columns.items() if not key.endswith("flips")]
    assert all(len(values) == 60 and values.dtype == np.float32 for values in numbers)
    assert columns["inverted|answer_mean"].shape == (60, 10)
    assert cells[0] not in to_do(place, cells)


@pytest.mark.integration
def test_answers_are_kept_so_that_a_new_measure_needs_no_network(study_file: Path, finished_study: Path) -> None:
    place = CellStore(Study.load(study_file, seeds=1), finished_study, torch.device("cpu"))
    cell = cells_of(place.study)[0]
    answers = place.answers(cell, "shift")
    assert (answers.shape, answers.dtype) == ((60, 5, 10), np.float16)  # the image itself, one pair and two lengths
    p = torch.from_numpy(answers).double().exp()
    columns = place.columns(cell)["shift"]
    again = shift_information(p[:, 1:3]).item()
    means = {name: torch.from_numpy(columns[f"typical|{name}"]).double() for name in ("shift_bits", "answer_bits")}
    whole = entropy(torch.from_numpy(columns["typical|answer_mean"]).double().mean(0)) - means["answer_bits"].mean()
    assert again == pytest.approx((means["shift_bits"].mean() / whole).item(), rel=1e-2)
    kept = place.path(cell) / "measured" / "shift.npz"
    assert kept.stat().st_size < 60 * 1500
    assert not [key for key in columns if key.endswith("log_probabilities")]


def test_correct_answers_of_a_network_of_another_task_are_stored_per_image(tiny: Recipe) -> None:
    dataset = augkit.load_dataset("digits", limit=200)
    model, images = augkit.fit(tiny, dataset=dataset).model, dataset.open_test(80)
    found = measure_accuracy(model, tiny, images, torch.device("cpu"))["typical|correct"]
    pixels = images.put_on_canvas(tiny.data.canvas).images.float() / 255
    with torch.inference_mode():
        logits = model((pixels - torch.tensor(tiny.data.mean)) / torch.tensor(tiny.data.std))
    expected = (logits.argmax(-1) == images.labels).float().numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.integration
def test_layer_loss_arises_at_pools_and_global_pooling_does_not_undo_it(
    layered_study_file: Path, finished_study: Path
) -> None:
    study = Study.load(layered_study_file, seeds=1)
    place = CellStore(study, finished_study, torch.device("cpu"))
    cell = next(cell for cell in cells_of(study) if cell.arm.name == "maxpool+none")
    found = place.columns(cell)["layers"]
    level = dict(zip(found["typical|names"].tolist(), found["typical|db"].tolist(), strict=True))
    pools = [name for name in level if name.endswith(".pool")]
    assert len(pools) >= 2
    assert level["penultimate"] > level[pools[-1]], "global pooling gains decibels"
    lost = [level[name.replace(".pool", ".act")] - level[name] for name in pools]
    assert found["typical|layer_loss"].shape == (32,)
    assert np.mean(found["typical|layer_loss"]) == pytest.approx(np.mean(lost), rel=1e-4)


@pytest.mark.integration
def test_layers_are_measured_with_unaligned_shifts(layered_study_file: Path, finished_study: Path) -> None:
    study = Study.load(layered_study_file, seeds=1)
    place = CellStore(study, finished_study, torch.device("cpu"))
    cell = next(cell for cell in cells_of(study) if cell.arm.name == "maxpool+none")
    model, recipe = load_model(place.path(cell)).model, cell.arm.recipe
    sets = place.image_sets(cell.arm)
    measure = Measure(axis="layers", grid="unaligned", pairs=1)
    found = measure_network(model, recipe, measure, sets, torch.device("cpu"))["typical|layer_loss"]
    shown = sets["typical"].take(torch.arange(32)).on_canvas(recipe.data.canvas)
    direct = probes.layer_loss(model, shown, draws=1, grid="unaligned", mean=recipe.data.mean, std=recipe.data.std)
    np.testing.assert_allclose(found, np.mean(list(direct.losses.values()), axis=0))
    assert not np.allclose(found, place.columns(cell)["layers"]["typical|layer_loss"])


def call(*words: str) -> int:
    return run(compare.main, list(words))


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_the_command_runs_and_resumes_a_study(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "out")
    assert call(str(study_file), "--seeds", "1", "--output", folder, "--json", "--quiet") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["name"] == "tiny"
    assert out.err == ""
    assert call(str(study_file), "--output", folder) == 2
    assert "add --resume" in capsys.readouterr().err
    assert call(str(study_file), "train.epochs=3", "--output", folder, "--resume") == 2
    assert "holds another recipe" in capsys.readouterr().err
    assert call(str(study_file), "train.epoch=3") == 2
    assert "did you mean 'train.epochs'" in capsys.readouterr().err
    assert call(str(study_file), "mnist5k") == 2
    assert "expected one study" in capsys.readouterr().err
    assert call("mnist5k", "--size", "quick") == 2
    assert "to studies, 'mnist5k' is none" in capsys.readouterr().err


@pytest.mark.integration
def test_finished_runs_are_compared_without_training(
    finished_study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells, before = finished_study / "cells", stamps(finished_study)
    words = [str(cells / f"maxpool+{policy}-seed{seed}") for policy in ("none", "shift") for seed in (0, 1)]
    assert call(*words, "--json", "--quiet", "--output", str(tmp_path / "finished")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["control"], found["seeds"]) == ("maxpool-none", [0, 1])
    assert stamps(finished_study) == before
    assert call(*words[:3]) == 2
    assert "there is no maxpool-shift seed 1" in capsys.readouterr().err
    assert call(*words[:2]) == 2
    assert "runs of two recipes or more" in capsys.readouterr().err


OWN = """
from torch import nn


def make() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 10))


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 10))
"""


def with_own_network(study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Study:
    (tmp_path / "ownnet.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    tree = yaml.safe_load(study_file.read_text())
    tree["architectures"]["mine"] = {"callable": f"ownnet:{name}"}
    tree["arms"] = [{"architecture": "mine", "policies": ["none", "shift"]}]
    tree["overrides"]["optim.lr"] = 0.02
    tree["claims"] = [{**tree["claims"][0], "arm": "mine+shift", "control": "mine+none"}]
    study_file.write_text(yaml.safe_dump(tree))
    return Study.load(study_file)


@pytest.mark.usefixtures("without_pages")
def test_a_network_of_your_own_is_trained_and_compared(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run_study(with_own_network(study_file, tmp_path, monkeypatch, "make"), tmp_path / "out").to_dict()
    (row,) = results["claims"]
    assert row["n_seeds"] == 2
    assert row["effect"]["value"] is not None
    weights = [
        torch.load(tmp_path / "out" / "cells" / f"mine+none-seed{seed}" / "checkpoint.pt", weights_only=False)["model"]
        for seed in (0, 1)
    ]
    assert list(weights[0]) == ["1.weight", "1.bias"]
    assert not torch.equal(weights[0]["1.weight"], weights[1]["1.weight"]), "each seed has weights of its own"


def test_a_network_that_does_not_accept_the_images_is_refused_before_training(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = with_own_network(study_file, tmp_path, monkeypatch, "flat")
    with pytest.raises(InputError, match=r"arm mine\+\w+, measure 'shift': "):
        run_study(study, tmp_path / "out")
    assert not (tmp_path / "out" / "cells").exists()


@pytest.mark.integration
def test_a_failed_cell_is_left_out_and_run_again_with_resume(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, work = tmp_path / "out", CellStore.work

    def fails(place: CellStore, cell: Cell, *rest: Any) -> dict[str, Any]:
        if cell.name == "maxpool+shift-seed1":
            raise RunError("the loss became NaN")
        return work(place, cell, *rest)

    monkeypatch.setattr(CellStore, "work", fails)
    assert call(str(study_file), "--output", str(folder), "--quiet") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 6 cells failed and are left out, such as maxpool+shift-seed1: the loss became NaN" in error
    results = json.loads((folder / "results.json").read_text())
    assert results["cost"]["failed"] == {"maxpool+shift-seed1": "the loss became NaN"}
    assert results["claims"][0]["n_seeds"] == 1
    for page in ("report.md", "report.html"):
        assert "maxpool+shift-seed1" in (folder / page).read_text()
    monkeypatch.setattr(CellStore, "work", work)
    assert call(str(study_file), "--output", str(folder), "--quiet", "--resume") == 0
    assert json.loads((folder / "results.json").read_text())["claims"][0]["n_seeds"] == 2


def test_a_study_ends_with_an_error_if_all_cells_fail(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(place: CellStore, cell: Cell, *rest: Any) -> dict[str, Any]:
        raise RunError(f"no luck with {cell.name}")

    monkeypatch.setattr(CellStore, "work", fails)
    with pytest.raises(RunError, match="no luck with"):
        run_study(Study.load(study_file), tmp_path / "out")


@pytest.mark.integration
def test_overwrite_checks_everything_before_it_deletes(study_file: Path, finished_study: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_study, tmp_path / "out")
    before = stamps(folder)
    tree = yaml.safe_load(study_file.read_text())
    tree["measures"]["shift"]["reach"] = 50.0
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match="margin"):
        run_study(Study.load(study_file, seeds=1), folder, overwrite=True)
    assert stamps(folder) == before
    tree["measures"]["shift"]["reach"] = 2.0
    study_file.write_text(yaml.safe_dump(tree))
    (tmp_path / "bad.journal").write_text("garbage")
    for storage in (tmp_path / "bad.journal", tmp_path / "nowhere" / "x.journal"):
        with pytest.raises(InputError, match="storage"):
            run_study(Study.load(study_file, seeds=1), folder, storage=str(storage), overwrite=True)
        assert stamps(folder) == before
    assert (tmp_path / "bad.journal").read_text() == "garbage"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "--resume: expected --output DIR"),
        (["--launcher", "ray"], "expected --storage with a URL"),
        (["--storage", "sqlite:///x.db", "--workers", "2"], "SQLite with several workers runs trials twice"),
        (["--workers", "0"], "expected an integer of at least 1"),
        (["--grace", "0"], "expected a number above 0"),
    ],
)
def test_bad_flags_give_a_one_line_error(
    words: list[str], message: str, study_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(str(study_file), *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
