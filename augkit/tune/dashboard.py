"""Notes and artifacts of a trial for optuna-dashboard: changed fields, a contact sheet, the response curve."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from augkit.augment.contact_sheet import contact_sheet
from augkit.core.errors import InputError
from augkit.core.figures import save_png
from augkit.core.images import save
from augkit.invariance import InvarianceReport
from augkit.train.recipe import Recipe, flat
from augkit.tune.figures import response
from augkit.tune.results import ResponsePoint
from augkit.tune.trial import TrialWorker

ARTIFACTS = "artifacts"  # folder within the folder of the search
SHOWN = 4  # images in the contact sheet
POINTS = 5  # shifts in the response curve


def annotate(worker: TrialWorker) -> Callable[[optuna.Trial, Recipe, InvarianceReport | None], None]:
    """Return a function that adds notes and artifacts to a trial that has ended.

    Raises:
        InputError: optuna-dashboard is not installed, or the worker has no folder for artifacts.
    """
    try:
        from optuna_dashboard import save_note
    except ImportError:
        raise InputError("--dashboard: expected optuna-dashboard; pip install 'augkit[dashboard]'") from None
    if worker.folder is None:
        raise InputError("--dashboard: expected --output, the folder for the artifacts")
    place = worker.folder / ARTIFACTS
    place.mkdir(parents=True, exist_ok=True)
    store = FileSystemArtifactStore(str(place))
    base = worker.space.recipe
    worker.lengths = [base.invariance.max_shift * (k + 1) / POINTS for k in range(POINTS)]
    step = max(1, len(worker.validation) // SHOWN)
    shown = worker.validation.on_canvas(base.data.canvas)[::step][:SHOWN]

    def add(trial: optuna.Trial, recipe: Recipe, report: InvarianceReport | None) -> None:
        save_note(trial, recipe_diff(base, worker.space.with_values(trial.user_attrs["values"])))
        with tempfile.TemporaryDirectory() as scratch:
            sheet, curve = Path(scratch) / "contact-sheet.png", Path(scratch) / "response.png"
            save(contact_sheet(recipe.policy, shown), sheet)
            upload_artifact(artifact_store=store, file_path=str(sheet), study_or_trial=trial)
            if report is not None and report.curve:
                changes = report.response("top1_change").items()
                points = [ResponsePoint(length, value) for length, value in changes]
                save_png(response({f"trial {trial.number}": points}), curve)
                upload_artifact(artifact_store=store, file_path=str(curve), study_or_trial=trial)

    return add


def recipe_diff(base: Recipe, recipe: Recipe) -> str:
    """Markdown table of the fields of ``recipe`` that differ from ``base``."""
    old, new = flat(base.model_dump()), flat(recipe.model_dump())
    rows = [f"| `{key}` | {old.get(key)} | {new[key]} |" for key in new if old.get(key) != new[key]]
    if not rows:
        return "The recipe without changes."
    return "\n".join(["| field | recipe | this trial |", "|---|---|---|", *rows])
