"""The model card of a run, ``README.md``: accuracy and measured invariance, how it was trained, and its limits.

The text begins with metadata in the form of the Hugging Face Hub (https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkit.core import yaml_text
from augkit.core.errors import InputError
from augkit.core.files import write
from augkit.core.schema import Tree
from augkit.invariance.metrics import METRICS
from augkit.train.export import RunFacts, export_folder
from augkit.train.load_model import load_model
from augkit.train.portable import portable_recipe, portable_text
from augkit.train.recipe import Recipe

CARD = "README.md"
MEASURED = "measured"  # folder within a run where a measurement is looked for
SHOWN = ("accuracy", "shift_information", "top1_change", "js")
Row = tuple[str, str, Mapping[str, Any]]  # images, split, and estimates by metric


def write_card(folder: Path, measured: Path | None = None) -> Path:
    """Write the model card of a run into its folder, and return its path; arguments as of `model_card`."""
    write(folder / CARD, model_card(folder, measured))
    return folder / CARD


def model_card(folder: Path, measured: Path | None = None, repository: str | None = None) -> str:
    """Return the model card of a run.

    Args:
        folder: folder of the run.
        measured: folder of `augkit.measure` with a measurement of this run; ``measured`` in ``folder`` when None, if it
            is there.
        repository: name on the hub from which readers of the card load the run; a folder when None.

    Raises:
        InputError: the folder is not that of a run, or the measurement is one of another network.
    """
    facts, recipe = export_folder(folder), Recipe.load(folder)
    found = _measurement(folder, measured)
    rows = [_validation(facts, recipe), *_rows(found)]
    rows = [row for row in rows if row[2]]
    title = f"{recipe.name}: {recipe.model.name} on {portable_recipe(recipe).data.name}"
    sections = [
        f"# {title}",
        f"Trained by [augkit](https://pypi.org/project/augkit/) with the augmentation `{recipe.policy}`.",
        "## Accuracy and measured invariance",
        _table(rows),
        _how(found, recipe),
        "## Use",
        _use(repository),
        f"Classes, in the order of the outputs: {_listed(facts.classes)}.",
        "## Training",
        _training(folder, recipe, facts),
        "## Limits",
        _limits(recipe, facts),
    ]
    return f"---\n{yaml_text.dump(_metadata(recipe, rows))}---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def _use(repository: str | None) -> str:
    place, also = '"FOLDER"', ""  # the card does not name a folder of the machine
    if repository is not None:
        place, also = f'snapshot_download("{repository}")', "\nfrom huggingface_hub import snapshot_download"
    return f"""```python
import augkit{also}

run = augkit.load_run({place})
logits = run.network(run.transform(image))  # a picture of Pillow, its file, or a tensor
run.classes[int(logits.argmax())]
```"""


def _validation(facts: RunFacts, recipe: Recipe) -> Row:
    found = {"accuracy": facts.accuracy, "shift_information": facts.shift_information}
    name = portable_recipe(recipe).data.name
    return name, "validation", {key: value for key, value in found.items() if value is not None}


def _measurement(folder: Path, measured: Path | None) -> Mapping[str, Any]:
    """Content of ``results.json`` of a measurement of the run; empty if there is none."""
    place = (folder / MEASURED if measured is None else measured) / "results.json"
    if measured is None and not place.is_file():
        return {}
    try:
        found: Mapping[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        digest = found["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"measured '{place.parent}': expected a folder of augkit.measure with results.json") from None
    from augkit.invariance import Network

    if digest != Network(load_model(str(folder)).model).digest:
        raise InputError(
            f"measured '{place.parent}': expected a measurement of '{folder}', it is of other weights;"
            f" augkit measure {folder} --output {folder / MEASURED}"
        )
    return found


def _rows(found: Mapping[str, Any]) -> list[Row]:
    if not found:
        return []
    sets = {found["data"]: found, **found.get("ood", {})}
    return [
        (portable_text(name), found["split"], {key: one[key] for key in SHOWN if key in one})
        for name, one in sets.items()
    ]


def _table(rows: list[Row]) -> str:
    if not rows:
        return "Nothing was measured."
    names = [name for name in SHOWN if any(name in found for *_, found in rows)]
    titles = [METRICS[name].heading(METRICS[name].title, percent=False) for name in names]
    lines = [f"| images | split | {' | '.join(titles)} |", f"|---|---|{'---|' * len(names)}"]
    for images, split, found in rows:
        texts = [_estimate(found[name]) if name in found else "–" for name in names]
        lines.append(f"| {images} | {split} | {' | '.join(texts)} |")
    meanings = "; ".join(f"*{title}*: {METRICS[name].meaning}" for name, title in zip(names, titles, strict=True))
    return "\n".join(lines) + f"\n\nValue and 95 % interval over images; {meanings}."


def _estimate(found: Mapping[str, float | None]) -> str:
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.4f}" if low is None or high is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _how(found: Mapping[str, Any], recipe: Recipe) -> str:
    """How invariance was measured, and the command that repeats it."""
    given = recipe.invariance
    said = (
        f"Validation images were shifted by up to {given.max_shift:g} px along each axis (protocol {given.protocol}),"
        f" at most {given.images:,} of them."
    )
    if not found:
        return said
    settings = found["settings"]
    most = f"shifts of up to {settings['max_shift']:g} px" if "max_shift" in settings else "displacements"
    return (
        f"{said} {settings['images']:,} images of the split {found['split']} were measured under {most} (protocol"
        f" {settings['protocol']}, kernel {settings['kernel']}):\n\n```bash\n{portable_text(found['command'])}\n```"
    )


def _training(folder: Path, recipe: Recipe, facts: RunFacts) -> str:
    lines = [
        f"{facts.epochs} epochs with seed {facts.seed}. `recipe.yaml` trains it again. Fields without their default:"
    ]
    try:
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        environment = {}
    command = str(environment.get("command", ""))
    if command.startswith("python -m augkit"):  # not a script of the user, which is not published
        lines.append(f"```bash\n{portable_text(command)}\n```")
    versions = {name: version for name, version in environment.get("versions", {}).items() if version}
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    fields = portable_recipe(recipe).model_dump(exclude_defaults=True, exclude_none=True)
    lines.append(f"```yaml\n{yaml_text.dump(fields)}```")
    return "\n\n".join(filter(None, lines))


def _limits(recipe: Recipe, facts: RunFacts) -> str:
    data = portable_recipe(recipe).data
    size = "" if facts.side is None else f" of {facts.side} x {facts.side} pixels"
    return (
        f"- One run with one seed: another seed gives other numbers.\n"
        f"- It knows {len(facts.classes)} classes, from images{size} of `{data.name}`; on other images its answers are"
        " not tested, unless the table has them.\n"
        f"- Invariance holds for the displacements that were measured, up to {recipe.invariance.max_shift:g} px; the"
        " table says nothing about rotation, scale or larger shifts.\n"
        "- Read every invariance beside the accuracy: a network that always gives one answer is perfectly invariant."
    )


def _listed(classes: list[str], most: int = 50) -> str:
    more = f" and {len(classes) - most:,} more (`config.json`)" if len(classes) > most else ""
    return ", ".join(f"`{name}`" for name in classes[:most]) + more


def _metadata(recipe: Recipe, rows: list[Row]) -> Tree:
    """The metadata of the hub, with one result per metric and image set."""
    data = portable_recipe(recipe).data.name
    found: Tree = {
        "library_name": "augkit",
        "pipeline_tag": "image-classification",
        "tags": ["augkit", "image-classification", "data-augmentation", "translation-invariance"],
        "metrics": ["accuracy"],
    }
    if data.startswith("hf:"):
        found["datasets"] = [data.removeprefix("hf:")]
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": images, "type": images, "split": split},
            "metrics": [
                {"type": name, "name": METRICS[name].title, "value": round(one["value"], 6)}
                for name, one in estimates.items()
                if one.get("value") is not None
            ],
        }
        for images, split, estimates in rows
    ]
    found["model-index"] = [{"name": recipe.name, "results": results}]
    return found
