"""Publishes a run on the Hugging Face Hub: weights, recipe, history and model card, and nothing else."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from augkit.core.errors import InputError, RunError
from augkit.core.files import write
from augkit.core.records import Record
from augkit.train.card import CARD, model_card
from augkit.train.export import CONFIG, WEIGHTS, export_folder
from augkit.train.portable import portable_recipe, portable_text
from augkit.train.recipe import Recipe

RECIPE, HISTORY = "recipe.yaml", "metrics.jsonl"
FILES = (CARD, WEIGHTS, CONFIG, RECIPE, HISTORY)


@dataclass(frozen=True)
class PushedRun(Record):
    """What was published, or would be.

    Attributes:
        name: repository on the hub.
        url: its address; None for a dry run.
        files: bytes by file.
    """

    name: str
    url: str | None
    files: dict[str, int]


def push_to_hub(
    folder: str | Path,
    name: str,
    *,
    private: bool = False,
    measured: str | Path | None = None,
    dry_run: bool = False,
) -> PushedRun:
    """Publish a finished run as a model repository of the Hugging Face Hub, by ``huggingface_hub``.

    Published are `FILES`. The checkpoint, with the state of the optimizer, stays where it is, and so do reports and
    ``environment.json``; absolute paths in recipe, card and command are cut to their last part.

    Args:
        folder: folder of the run.
        name: ``user/model`` or ``organization/model``; ``model`` is the user's own.
        private: whether a new repository is private.
        measured: a measurement of this run for its card, see `augkit.train.card.model_card`.
        dry_run: only make the files, and say which.

    Raises:
        InputError: the folder is not that of a run, the name is not one of the hub, or ``huggingface_hub`` is missing.
        RunError: the hub refused, or cannot be reached.
    """
    hub = _hub()
    try:
        hub.utils.validate_repo_id(name)
    except ValueError as error:  # its HFValidationError is one
        raise InputError(f"push '{name}': expected user/model ({' '.join(str(error).split())[:160]})") from None
    path = Path(folder).expanduser()
    with tempfile.TemporaryDirectory() as place:
        stage(path, Path(place), None if measured is None else Path(measured), name)
        files = {file.name: file.stat().st_size for file in sorted(Path(place).iterdir())}
        url = None if dry_run else _upload(hub, name, Path(place), private)
    return PushedRun(name, url, files)


def stage(folder: Path, place: Path, measured: Path | None, name: str) -> None:
    """Write the published files of a run to ``place``."""
    facts = export_folder(folder)
    recipe = portable_recipe(Recipe.load(folder))
    write(place / CARD, model_card(folder, measured, repository=name))
    write(place / WEIGHTS, lambda path: path.write_bytes((folder / WEIGHTS).read_bytes()))
    named = replace(facts, classes=[portable_text(one) for one in facts.classes])
    write(place / CONFIG, json.dumps(named.to_dict(), indent=2, allow_nan=False) + "\n")
    write(place / RECIPE, recipe.to_yaml(f"augkit {facts.augkit}"))
    if (folder / HISTORY).is_file():
        write(place / HISTORY, (folder / HISTORY).read_text(encoding="utf-8"))


def _upload(hub: Any, name: str, place: Path, private: bool) -> str:
    try:
        api = hub.HfApi()
        made = api.create_repo(name, private=private, exist_ok=True)  # its name has the user where ``name`` lacks one
        api.upload_folder(repo_id=made.repo_id, folder_path=str(place), commit_message="Run of augkit")
    except Exception as error:  # of the network, of the hub, or a missing login
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"push '{name}': {reason}; is there a login (hf auth login) that may write there?") from None
    return str(made)


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.utils
    except ImportError:
        raise InputError("push: huggingface_hub is not installed; pip install 'augkit[hub]'") from None
    return huggingface_hub
