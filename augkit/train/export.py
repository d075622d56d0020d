"""A run in files that other programs read: ``model.safetensors`` and ``config.json``.

The checkpoint of a run also holds the optimizer; these hold what a user of the network needs. ``recipe.yaml`` stands
beside them in the folder, and `augkit.train.card` adds the model card.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import augkit
from augkit.core.errors import InputError
from augkit.core.files import write
from augkit.core.records import Record
from augkit.data import Dataset
from augkit.invariance import Estimate
from augkit.train.build import NetworkInput
from augkit.train.checkpoint import FILE, Checkpoint, kept_epoch, read_checkpoint
from augkit.train.constraint import shift_information
from augkit.train.history import Interval, interval_of
from augkit.train.page import hits, wilson
from augkit.train.run import Run

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class RunFacts(Record):
    """Content of ``config.json``: what a network takes and gives, and what its validation split showed.

    Attributes:
        augkit: version that wrote the files.
        seed: seed of the run.
        epochs: number of epochs that were trained.
        classes: names of the classes, in the order of the outputs.
        channels, side: of the input (pixels); None for a custom network.
        model: name of the class of a custom network; None for one that a recipe builds.
        images: validation images; None where they were not counted.
        accuracy: share of them that is classified correctly, with its 95 % interval where they were counted.
        shift_information: on validation images, with its interval; None where it was not measured.
    """

    augkit: str
    seed: int
    epochs: int
    classes: list[str]
    channels: int | None
    side: int | None
    model: str | None
    images: int | None
    accuracy: Interval | None
    shift_information: Interval | None


def export_run(run: Run, dataset: Dataset) -> Path:
    """Write ``model.safetensors``, ``config.json`` and the model card into the folder of a run, and return the folder.

    Shift information is that of the epoch of the weights; where the recipe does not measure it during training, it is
    measured here, on ``invariance.images`` validation images.

    Raises:
        InputError: the run has no folder, or entries of its network are not tensors.
    """
    from augkit.train.card import write_card

    if run.folder is None:
        raise InputError("export_run: expected a run with a folder, got one without; give fit an output")
    right, total = hits(run.evaluation.confusion.tolist())
    low, high = wilson(right, total)
    measured = run.row.get("shift_information") or _measured(run, dataset)
    checkpoint = read_checkpoint(run.folder / FILE)
    counted = RunFacts(
        **_known(checkpoint, run.seed),
        images=total,
        accuracy={"value": right / max(1, total), "low": low, "high": high},
        shift_information=measured,
    )
    _write(run.folder, checkpoint, counted)
    write_card(run.folder)
    return run.folder


def export_folder(folder: Path) -> RunFacts:
    """Write ``model.safetensors`` and ``config.json`` from the checkpoint of a finished run, where they are missing.

    Without the images, accuracy and shift information are those of the epoch of the weights, accuracy without an
    interval.

    Raises:
        InputError: the folder is not that of a run.
    """
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return read_facts(folder)
    if not (folder / FILE).is_file():
        raise InputError(f"run '{folder}': expected a folder of augkit.train, with {FILE} or {WEIGHTS}; there is none")
    checkpoint = read_checkpoint(folder / FILE)
    rows = checkpoint.get("history", [])
    row: Mapping[str, Any] = rows[kept_epoch(rows, checkpoint.get("best")) - 1] if rows else {}
    known = row.get("validation_accuracy")
    facts = RunFacts(
        **_known(checkpoint, int(checkpoint.get("recipe", {}).get("seed", 0))),
        images=None,
        accuracy=None if known is None else {"value": known, "low": None, "high": None},
        shift_information=row.get("shift_information"),
    )
    _write(folder, checkpoint, facts)
    return facts


def read_facts(folder: Path) -> RunFacts:
    """Read ``config.json``.

    Raises:
        InputError: it is missing, or was not written by augkit.
    """
    path = folder / CONFIG
    try:
        return RunFacts(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise InputError(f"run '{folder}': expected {CONFIG}, there is none") from None
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"'{path}': expected a file that augkit wrote beside {WEIGHTS} ({reason})") from None


def network_input(facts: RunFacts) -> NetworkInput:
    """Return what the network takes and gives."""
    return NetworkInput(facts.classes, facts.channels, facts.side, facts.model)


def _known(checkpoint: Checkpoint, seed: int) -> Mapping[str, Any]:
    kept: Mapping[str, Any] = checkpoint.get("input", {"classes": []})
    return {
        "augkit": augkit.__version__,
        "seed": seed,
        "epochs": len(checkpoint.get("history", [])),
        "classes": list(kept["classes"]),
        "channels": kept.get("channels"),
        "side": kept.get("side"),
        "model": kept.get("model"),
    }


def _measured(run: Run, dataset: Dataset) -> Interval | None:
    device = next(run.model.parameters()).device
    try:
        found: Estimate = shift_information(run.model, run.recipe, dataset.validation, device)
    except InputError:  # such as images that are too small for the protocol of the recipe
        return None
    return interval_of(found)


def _write(folder: Path, checkpoint: Checkpoint, facts: RunFacts) -> None:
    from safetensors.torch import save_file

    tensors = _tensors(checkpoint["model"])
    write(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write(folder / CONFIG, json.dumps(facts.to_dict(), indent=2, allow_nan=False) + "\n")


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The entries of a state dict, each with memory of its own, as safetensors wants them."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise InputError(f"model: entry '{name}' is {type(value).__name__}; {WEIGHTS} holds tensors alone")
    return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
