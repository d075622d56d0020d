"""`augkit doctor`: it runs what it reports, and fails with exit code 1 if something that should work does not."""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from augkit.augment import geometry
from augkit.augment.backends import general, reference_check, separable
from augkit.console import checks, doctor
from augkit.console.checks import Check, Requirement
from augkit.console.command import main

CPU = torch.device("cpu")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the libraries, whose import takes seconds."""
    monkeypatch.setattr(checks, "ALL", (checks.devices, checks.backends, checks.storages, checks.memory, checks.extras))


def test_the_reference_is_that_of_torch() -> None:
    images = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    matrix = geometry.compose(
        geometry.rotate(torch.tensor([20.0, -70.0]), (7, 9)), geometry.shift(torch.tensor([[1.3, -0.4], [0.2, 2.0]]))
    ).double()
    inverse = torch.linalg.inv(matrix)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(6.0), indexing="ij")
    source = torch.einsum("bij,jhw->bhwi", inverse, torch.stack([x, y, torch.ones_like(x)]).double())
    grid = 2 * source[..., :2] / torch.tensor([8.0, 6.0]) - 1
    expected = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    assert torch.allclose(reference_check.bilinear(images, matrix, (8, 6)), expected, atol=1e-12)


@pytest.mark.parametrize("backend", reference_check.available(CPU))
def test_backends_pass(backend: reference_check.Backend) -> None:
    assert reference_check.largest_difference(backend, CPU) < reference_check.TOLERANCE / 10


@pytest.mark.parametrize("module", [separable, general])
def test_a_wrong_backend_fails(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    right = module.resample  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "resample", lambda *words, **how: right(*words, **how) + 1e-4)
    found = {check.name: check for check in checks.backends()}
    name = f"{module.__name__.rpartition('.')[2]} on cpu"  # type: ignore[attr-defined]
    assert found[name].state == "failed"
    assert "differs by 1.0e-04" in found[name].found
    monkeypatch.setattr(module, "resample", lambda *words, **how: torch.full((2, 3, 14, 12), math.nan))
    assert next(check for check in checks.backends() if check.name == name).state == "failed", "NaN is not small"


def test_a_backend_that_raises_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*words: object, **how: object) -> torch.Tensor:
        raise OSError("no compiler\nsecond line")

    monkeypatch.setattr(separable, "resample", breaks)
    found = next(check for check in checks.backends() if check.name == "separable on cpu")
    assert (found.state, found.found) == ("failed", "no compiler")


@pytest.mark.usefixtures("few")
def test_it_prints_a_sentence_then_a_block_of_80_columns(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("augkit ")
    assert "checks passed" in out.splitlines()[0] + out.splitlines()[1]
    assert max(map(len, out.splitlines())) <= 80
    for word in ("separable on cpu", "tolerance 1e-05", "6 of 6 trials", "threads"):
        assert word in out
    assert str(Path.home()) not in out
    assert os.getcwd() not in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_json_is_one_object_with_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["passed", "augkit", "system", "checks"]
    assert found["passed"] is True
    assert {check["state"] for check in found["checks"]} <= {"ok", "missing"}
    assert set(found["checks"][0]) == {"group", "name", "state", "found", "remedy"}


def test_a_failed_check_gives_exit_code_1_and_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(path: object, **options: object) -> object:
        raise OSError("locks are not supported")

    monkeypatch.setattr("augkit.core.jobs.storage.open_storage", breaks)
    monkeypatch.setattr(checks, "ALL", (checks.storages,))
    assert main(["doctor"]) == 1
    out = capsys.readouterr()
    assert "1 check failed: journal file" in " ".join(out.out.split())
    assert "locks are not supported; name a --storage" in out.out
    assert out.err == "augkit: error: doctor: 1 check failed: journal file\n"
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_a_journal_that_loses_a_trial_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_shared_journal", lambda: [0, 1, 2, 2, 4])
    found = next(checks.storages())
    assert (found.state, found.found) == ("failed", "5 of 6 trials of two writers are kept, each once")


def required(lines: list[str], versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that augkit requires ``lines`` and that ``versions`` are installed."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError
        return versions[name]

    monkeypatch.setattr(checks.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(checks.metadata, "version", version)


def test_libraries_are_those_of_the_package_and_must_be_new_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["json>=2", "no_such_thing>=1", "textwrap>=3", 'wandb>=0.17; extra == "wandb"', 'ruff; extra == "test"']
    required(lines, {"json": "2.1", "textwrap": "2.9"}, monkeypatch)
    found = {check.name: check for check in checks.libraries()}
    assert {name: check.state for name, check in found.items()} == {
        "json": "ok",
        "no_such_thing": "failed",
        "textwrap": "failed",
    }
    assert found["textwrap"].found == "2.9, expected >=3"
    assert found["no_such_thing"].remedy == "pip install 'no_such_thing>=1'"
    assert list(checks.extras()) == [
        Check("extras", "wandb", "missing", "wandb missing", "pip install 'augkit[wandb]'")
    ]
    required(lines, {"wandb": "0.16"}, monkeypatch)
    assert next(checks.extras()).found == "wandb 0.16 (>=0.17)", "too old for the extra, no fault of the installation"


def test_what_another_system_needs_is_not_missed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    required(["json>=2; sys_platform == 'amiga'", "textwrap>=3; sys_platform != 'amiga'"], {}, monkeypatch)
    assert [one.name for one in checks.requirements()] == ["textwrap"]


def test_a_library_that_cannot_be_imported_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "breaks_on_import.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    required(["breaks_on_import"], {"breaks_on_import": "1.0"}, monkeypatch)
    (found,) = checks.libraries()
    assert found.state == "failed"
    assert found.found == "1.0, cannot be imported: operator torchvision::nms does not exist"


def test_requirements_come_from_the_metadata_of_the_package() -> None:
    names = {one.name for one in checks.requirements() if not one.extra}
    if not names:
        pytest.skip("augkit is not installed")
    assert {"torch", "optuna", "pydantic"} <= names
    assert Requirement("torch", ">=1", "").met
    assert not Requirement("torch", ">=999", "").met


def test_every_hard_dependency_is_imported_under_a_name_that_it_installs() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split("[<>=;]", line)[0].lower() for line in project["dependencies"]]
    assert len(names) > 10
    installed = metadata.packages_distributions()
    for name in names:
        owners = {owner.lower() for owner in installed.get(checks.IMPORTED_AS.get(name, name), [])}
        assert name in owners, f"{name}: give its module's name in IMPORTED_AS"


def test_findings_name_what_failed() -> None:
    found = doctor.Findings("1", "here", [Check("a", "b", "failed", "x"), Check("a", "c", "ok", "y")])
    assert [check.name for check in found.failed] == ["b"]
    assert found.to_dict()["passed"] is False


@pytest.mark.integration
def test_the_whole_command_passes_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    groups = [check["group"] for check in json.loads(capsys.readouterr().out)["checks"]]
    assert {"libraries", "devices", "backends", "storages", "memory", "package", "extras"} == set(groups)


def test_every_group_yields_checks() -> None:
    def group_of(group: Iterator[Check]) -> set[str]:
        return {check.group for check in group}

    assert [group_of(group()) for group in (checks.memory, checks.recipes)] == [{"memory"}, {"package"}]
