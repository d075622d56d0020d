"""Publishing a run: what `augkit push` uploads, through `huggingface_hub` without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import augkit
from augkit.console.command import main
from augkit.core.errors import InputError, RunError
from augkit.data import Dataset
from augkit.train.export import CONFIG, WEIGHTS, export_run
from augkit.train.hub import FILES
from augkit.train.loop import Run
from augkit.train.recipe import Recipe


@pytest.fixture(scope="module")
def trained(tiny: Recipe, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its exported files; tests that change the folder copy it."""
    recipe = tiny.replaced(data={**tiny.data.model_dump(), "mean": [0.3], "std": [0.4]})
    run = augkit.fit(recipe, output=tmp_path_factory.mktemp("runs") / "a run", dataset=digits)
    export_run(run, digits)
    return run


@pytest.fixture
def folder(trained: Run, tmp_path: Path) -> Path:
    assert trained.folder is not None
    return Path(shutil.copytree(trained.folder, tmp_path / "run"))


class FakeApi:
    """`huggingface_hub.HfApi` without a network; keeps what it was given."""

    pushed: dict[str, dict[str, bytes]]
    made: list[tuple[str, bool]]

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> Any:
        from huggingface_hub import RepoUrl

        assert exist_ok
        self.made.append((name, private))
        return RepoUrl(f"https://huggingface.co/{name if '/' in name else f'me/{name}'}")

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        assert commit_message
        self.pushed[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    hub = pytest.importorskip("huggingface_hub")
    FakeApi.pushed, FakeApi.made = {}, []
    monkeypatch.setattr(hub, "HfApi", FakeApi)
    return FakeApi


def test_a_pushed_run_holds_no_optimizer_and_no_folder_and_loads_again(
    trained: Run, folder: Path, api: type[FakeApi], tmp_path: Path, digits: Dataset
) -> None:
    recipe = trained.recipe.replaced(data={**trained.recipe.data.model_dump(), "root": str(tmp_path / "data")})
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    found = augkit.push_to_hub(folder, "digits-run", private=True)
    assert (found.url, api.made) == ("https://huggingface.co/me/digits-run", [("digits-run", True)])
    files = api.pushed["me/digits-run"]
    assert set(files) == set(found.files) == set(FILES)
    assert {name: len(content) for name, content in files.items()} == found.files
    for name, content in files.items():
        assert str(tmp_path).encode() not in content, name
        assert str(Path.home()).encode() + b"/" not in content, name
        assert b"momentum_buffer" not in content, name
    place = tmp_path / "downloaded"
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    loaded, expected, images = augkit.load_run(place), augkit.load_run(folder), digits.validation.images[:5]
    with torch.no_grad():
        assert torch.equal(loaded.network(loaded.transform(images)), expected.network(expected.transform(images)))
    assert 'snapshot_download("digits-run")' in files["README.md"].decode()


def test_a_dry_run_publishes_nothing(folder: Path, api: type[FakeApi], capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["push", str(folder), "me/x", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("would be published as me/x:")
    assert all(name in shown for name in FILES)
    assert main(["push", str(folder), "me/x", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["url"] is None
    assert (api.pushed, api.made) == ({}, [])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_the_hub_refuses_is_one_line(
    folder: Path, api: type[FakeApi], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(folder), "a name"]) == 2
    assert "push 'a name': expected user/model" in capsys.readouterr().err
    assert main(["push", str(folder.parent), "me/x"]) == 2
    assert "expected a folder of augkit.train" in capsys.readouterr().err

    def fails(self: FakeApi, name: str, **options: Any) -> None:
        raise OSError("401 Client Error\nUnauthorized")

    monkeypatch.setattr(FakeApi, "create_repo", fails)
    with pytest.raises(RunError, match="push 'me/x': 401 Client Error Unauthorized; is there a login"):
        augkit.push_to_hub(folder, "me/x")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"huggingface_hub is not installed; pip install 'augkit\[hub\]'"):
        augkit.push_to_hub(folder, "me/x")


@pytest.mark.integration
def test_train_measure_and_push_from_the_command_line(
    tiny_file: str, tmp_path: Path, api: type[FakeApi], capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", tiny_file, "train.epochs=1", "--output", run, "--quiet"]) == 0
    assert {WEIGHTS, CONFIG, "README.md"} <= {path.name for path in Path(run).iterdir()}
    assert f"card:   {run}/README.md" in capsys.readouterr().out
    words = ["--limit", "40", "--pairs", "1", "--no-curves", "--output", f"{run}/measured", "--quiet"]
    assert main(["measure", run, *words]) == 0
    assert main(["push", run, "me/x", "--measured", f"{run}/measured"]) == 0
    card = api.pushed["me/x"]["README.md"].decode()
    assert "| digits | test |" in card
    assert "40 images of the split test" in card
    assert str(tmp_path) not in card
