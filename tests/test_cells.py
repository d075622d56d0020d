"""A tiny study from end to end: resumed, with a seed more, with another recipe in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from augkit import compare
from augkit.cells import Workplace, cells_of, to_do
from augkit.command import run
from augkit.errors import InputError
from augkit.recipe import Recipe
from augkit.studies import Study
from augkit.studying import run_study, summary
from augkit.supervising import Spread


@pytest.fixture
def study_file(tiny: Recipe, tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(tiny.to_yaml())
    path = tmp_path / "study.yaml"
    tree: dict[str, Any] = {
        "name": "tiny",
        "title": "A tiny study",
        "recipe": str(tmp_path / "base.yaml"),
        "overrides": {"train.epochs": 6, "optim.lr": 0.2},
        "seeds": 2,
        "images": 60,
        "architectures": {"maxpool": {"model.downsample": "maxpool"}},
        "policies": {"shift": {"policy.shift.max_pixels": 2.0}},
        "arms": [{"architecture": "maxpool", "policies": ["none", "shift"]}],
        "measures": {
            "shift": {"images": ["typical", "inverted"], "lengths": [1, 3], "pairs": 1},
            "layers": {"axis": "layers", "pairs": 1},
        },
        "claims": [
            {
                "id": 6,
                "name": "Augmentation teaches invariance",
                "claim": "It removes variability.",
                "source": "Azulay & Weiss 2019",
                "statistic": "learned_invariance",
                "arm": "maxpool+shift",
                "control": "maxpool+none",
                "prediction": "positive",
            },
            {
                "id": 2,
                "name": "Far against near",
                "claim": "Variability grows.",
                "source": "Azulay & Weiss 2019",
                "parts": [
                    {"statistic": "growth", "arm": "maxpool+none", "near": 1, "far": 3, "prediction": "positive"},
                    {"statistic": "half_life", "arm": "maxpool+none", "prediction": "describe"},
                ],
            },
            {
                "id": 3,
                "name": "Layers",
                "claim": "Pools lose.",
                "source": "Zhang 2019",
                "statistic": "layer_loss",
                "arm": "maxpool+none",
                "measure": "layers",
                "prediction": "positive",
            },
            {
                "id": "x",
                "name": "Not there",
                "claim": "No such experiment.",
                "source": "nobody",
                "statistic": "probe",
                "probe": "no_such_probe",
                "key": "value",
                "prediction": "positive",
            },
        ],
    }
    path.write_text(yaml.safe_dump(tree))
    return path


def stamps(folder: Path) -> dict[str, int]:
    """When what a cell holds was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.glob("cells/*/**/*") if p.is_file()}


def test_a_study_runs_is_resumed_and_takes_a_seed_more(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    results = run_study(Study.load(study_file), folder)
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
    assert "Augmentation teaches invariance" in summary(results)

    before = stamps(folder)
    again = run_study(Study.load(study_file), folder, resume=True)
    assert stamps(folder) == before
    assert again["cost"]["loaded"] >= 4
    assert again["claims"] == results["claims"]

    more = run_study(Study.load(study_file, seeds=3), folder, resume=True)
    kept = stamps(folder)
    assert {key: kept[key] for key in before} == before
    assert {key.split("/")[1] for key in set(kept) - set(before)} == {
        "maxpool+none-seed2",
        "maxpool+shift-seed2",
        "no-network-seed2",
    }
    assert more["claims"][0]["n_seeds"] == 3


def test_a_new_measure_is_taken_without_training_again(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run_study(Study.load(study_file), folder)
    before = stamps(folder)
    tree = yaml.safe_load(study_file.read_text())
    tree["measures"]["scale"] = {"axis": "scale", "reach": 1.2, "pairs": 1}
    tree["claims"] = [{**tree["claims"][0], "measure": "scale"}]
    study_file.write_text(yaml.safe_dump(tree))
    results = run_study(Study.load(study_file), folder, resume=True)
    assert results["claims"][0]["effect"]["value"] is not None
    changed = {key.rpartition("/")[2] for key, value in stamps(folder).items() if before.get(key) != value}
    assert changed == {"scale.npz", "cell.json"}


def test_a_cell_of_another_recipe_is_refused_before_any_work(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    run_study(Study.load(study_file, seeds=1), folder)
    tree = yaml.safe_load(study_file.read_text())
    tree["overrides"]["optim.lr"] = 0.01
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"maxpool\+none-seed0' holds another recipe .*--output, or --overwrite"):
        run_study(Study.load(study_file), folder, resume=True)


def test_what_cannot_be_measured_is_known_before_training(study_file: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(study_file.read_text())
    tree["measures"]["scale"] = {"axis": "scale", "reach": 3.0}
    tree["claims"] = [{**tree["claims"][0], "measure": "scale"}]
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match=r"arm maxpool\+\w+, measure 'scale': factor: .* has room for factors"):
        run_study(Study.load(study_file), tmp_path / "out")
    assert not (tmp_path / "out" / "cells").exists()


def test_workers_do_the_same(study_file: Path, tmp_path: Path) -> None:
    study = Study.load(study_file, seeds=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers: sums of several threads differ, and training makes more of that
    try:
        alone = run_study(study, tmp_path / "alone")
    finally:
        torch.set_num_threads(threads)
    both = run_study(study, tmp_path / "both", spread=Spread(2))
    values = [[row["effect"] and row["effect"]["value"] for row in found["claims"]] for found in (alone, both)]
    assert [value is None for value in values[0]] == [value is None for value in values[1]]
    numbers = [[value for value in found if value is not None] for found in values]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


def test_columns_are_compact_and_complete(study_file: Path, tmp_path: Path) -> None:
    study = Study.load(study_file, seeds=1)
    place = Workplace(study, tmp_path, torch.device("cpu"))
    cells = cells_of(study)
    assert len(to_do(place, cells)) == 3
    place.work(cells[0])
    columns = place.columns(cells[0])["shift"]
    assert {"typical|js", "typical|correct", "typical|js@1", "inverted|changed"} <= set(columns)
    numbers = [values for key, values in columns.items() if not key.endswith("flips")]
    assert all(values.shape == (60,) and values.dtype == np.float32 for values in numbers)
    assert cells[0] not in to_do(place, cells)


def call(*words: str) -> int:
    return run(compare.main, list(words))


def test_the_command(study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "belong to studies, 'mnist5k' is none" in capsys.readouterr().err


def test_finished_runs_are_compared_without_training(
    study_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_study(Study.load(study_file), tmp_path / "out")
    cells = tmp_path / "out" / "cells"
    before = stamps(tmp_path / "out")
    words = [str(cells / f"maxpool+{policy}-seed{seed}") for policy in ("none", "shift") for seed in (0, 1)]
    assert call(*words, "--json", "--quiet", "--output", str(tmp_path / "finished")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["control"], found["seeds"]) == ("maxpool-none", [0, 1])
    assert stamps(tmp_path / "out") == before
    assert call(*words[:3]) == 2
    assert "there is no maxpool-shift seed 1" in capsys.readouterr().err
    assert call(*words[:2]) == 2
    assert "runs of two recipes or more" in capsys.readouterr().err
