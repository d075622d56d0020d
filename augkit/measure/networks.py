"""Several networks measured in the same way, each with a report of its own, and their table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from augkit.core.errors import InputError
from augkit.core.files import MARK, Environment, claim, environment, reserve, write
from augkit.core.json import jsonable
from augkit.data.files import check_kept
from augkit.invariance import Measurement
from augkit.measure.output_results import OutputResults
from augkit.measure.output_session import OutputSession
from augkit.measure.page import networks_page
from augkit.measure.pipeline import begin_measurement, load_network, measure
from augkit.measure.results import MeasureResults
from augkit.measure.session import MeasureSession
from augkit.measure.settings import MeasureSettings
from augkit.measure.side_by_side import NetworkTable, check_alike, network_table, shared_settings
from augkit.measure.state_files import STATE, WRITTEN, holds_measurement

TABLES = ("table.md", "table.tex", "table.csv")


@dataclass(frozen=True)
class NetworksResults:
    """Results of `measure_networks`.

    Attributes:
        networks: results by the name of the network.
        table: the networks side by side.
        folder: folder of ``table.md``, ``table.tex``, ``table.csv``, ``results.json``, ``report.html`` and a folder for
            each network; None where nothing was written.
        command: the command that repeats the measurement.
        environment: versions and machine.
    """

    networks: dict[str, MeasureResults | OutputResults]
    table: NetworkTable
    folder: Path | None
    command: str
    environment: Environment

    def to_dict(self) -> dict[str, object]:
        """Return the content of ``results.json`` and of the output of ``--json``."""
        folder = None if self.folder is None else str(self.folder)
        networks = {name: found.to_dict() for name, found in self.networks.items()}
        out = {"networks": networks, "table": self.table.to_dict(), "folder": folder, "command": self.command}
        return jsonable({**out, "environment": self.environment})


def measure_networks(
    models: Sequence[str],
    data: str | None = None,
    settings: MeasureSettings | None = None,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    command: str | None = None,
) -> NetworksResults:
    """Measure several networks as `measure` does one, and put them side by side.

    All are tried on one image before the first is measured, so that a wrong name or setting costs no time.

    Args:
        models: forms of a network, see `measure`, each once.
        data, settings, resume, overwrite, progress, command: see `measure`.
        output: folder for the table and its page, and for a folder of each network; nothing is written when None.

    Raises:
        InputError: as `measure`; a network is given twice; ``settings.weights`` with several networks; networks whose
            outputs or numbers of images differ.
        MeasureInterrupted: Ctrl-C was pressed; what was measured is kept in ``output``.
    """
    settings = settings or MeasureSettings()
    if not models or len(set(models)) != len(models):
        raise InputError(f"networks: expected each once, got {', '.join(models) or 'none'}")
    if settings.weights is not None and len(models) > 1:
        raise InputError(
            "--weights: expected one network; several come with weights by --pretrained, as runs or mod:fn"
        )
    settings.check()
    if output is not None and Path(output).exists():
        _check_folder(Path(output), resume=resume)
        reserve(Path(output), resume=resume, overwrite=overwrite)
        if overwrite and not resume:
            check_kept(Path(output), [source for model in models for source in settings.read(model, data)])
    begun = {}
    for model in models:
        loaded = load_network(model, settings)
        try:
            begun[model] = _shared(begin_measurement(model, loaded, data, settings, progress=False))
        except InputError as error:
            raise InputError(f"{model}: {error}") from None
    check_alike("networks", begun)  # the table would refuse them, but only after all were measured
    folder = None if output is None else claim(Path(output), resume=resume, overwrite=overwrite)
    if folder is not None:
        write(folder / MARK, json.dumps(environment(), indent=2))
    found = {}
    for model, name in zip(models, folder_names(models), strict=True):
        own = None if folder is None else folder / name
        found[model] = measure(
            model,
            data,
            settings,
            output=own,
            resume=resume and own is not None and (own / MARK).is_file(),
            progress=progress,
            command=command,
        )
    table = network_table({name: results.typical.report for name, results in found.items()})
    call = f"augkit.measure.measure_networks({list(models)!r}, {data!r}, ...)"
    results = NetworksResults(found, table, folder, call if command is None else command, environment())
    if folder is not None:
        for file, text in zip(TABLES, (table.markdown(), table.latex(), table.csv()), strict=True):
            write(folder / file, text)
        write(folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
        pages = {model: f"{name}/report.html" for model, name in zip(models, folder_names(models), strict=True)}
        write(folder / "report.html", networks_page(found, table, results.command, pages))
    return results


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Raise InputError if a table is to be resumed in a folder of other work, whose report and results it replaces."""
    if not resume or not folder.is_dir() or not any(folder.iterdir()):
        return
    own = [entry.name for entry in folder.iterdir() if entry.is_dir() and (entry / MARK).is_file()]
    if (folder / STATE).is_file() or not holds_measurement(folder, [*WRITTEN, *TABLES, *own], TABLES[0]):
        raise InputError(f"--resume: '{folder}' holds no table of networks to go on with")


def _shared(session: MeasureSession | OutputSession) -> dict[str, object]:
    """What a measurement that has begun must have in common with others: its images, and the settings of its table."""
    data, found = next(iter(session.sets.items()))
    measurement = session.measurements[data]
    kind = "logits"
    if not isinstance(measurement, Measurement):
        assert measurement.kind is not None  # found as it began
        kind = measurement.kind.name
    protocol = measurement.protocol
    shared = shared_settings(kind, protocol.name, protocol.kernel, session.plan)
    return {"data": data, **shared, "images": len(found)}


def folder_names(models: Sequence[str]) -> list[str]:
    """Return a name for the folder of each network, without characters that file systems refuse.

    >>> folder_names(["timm:resnet18", "runs/first", "runs:first"])
    ['timm-resnet18', 'runs-first', 'runs-first-2']
    """
    names: list[str] = []
    for model in models:
        plain = re.sub(r"[^\w.-]+", "-", model, flags=re.ASCII).strip("-.") or "network"
        number = 1 + sum(name == plain or name.startswith(f"{plain}-") for name in names)
        while f"{plain}-{number}" in names:
            number += 1
        names.append(f"{plain}-{number}" if plain in names else plain)
    return names
