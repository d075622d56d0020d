"""Results of a measurement of outputs beyond logits, and the information to repeat it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from augkit.core.files import Environment
from augkit.core.json import jsonable
from augkit.invariance.outputs import OutputReport
from augkit.measure.analyses import Analyses


@dataclass(frozen=True)
class OutputSetResults:
    """Results on one image set.

    Attributes:
        data: name of the images.
        report: numbers, curves and worst cases.
        batch_size: images per forward pass.
        notes: sentences about exceptions, such as omitted files.
        analyses: the analyses of the first image set; None if none was chosen.
    """

    data: str
    report: OutputReport
    batch_size: int
    notes: tuple[str, ...] = ()
    analyses: Analyses | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        found = self.report.to_dict()
        found["settings"] = self.settings_to_dict()
        analyses = self.analyses.to_dict() if self.analyses is not None else {}
        return jsonable({"data": self.data, **found, **analyses})

    def settings_to_dict(self) -> dict[str, object]:
        """Settings of the report, batch size and notes, for JSON."""
        return jsonable(self.report.settings.to_dict() | {"batch_size": self.batch_size, "notes": list(self.notes)})


@dataclass(frozen=True)
class OutputResults:
    """Results of `augkit.measure.measure` for outputs beyond logits.

    Attributes:
        model: source of the network.
        split: split of the datasets.
        sets: results by the name of the images, the dataset's own first.
        weights_sha256: digest of the network's weights.
        folder: folder of ``results.json`` and ``report.html``; None where nothing was written.
        command: the command that repeats the measurement.
        environment: versions and machine.
    """

    model: str
    split: str
    sets: dict[str, OutputSetResults]
    weights_sha256: str
    folder: Path | None
    command: str
    environment: Environment

    @property
    def typical(self) -> OutputSetResults:
        """Results on the dataset's own images."""
        return next(iter(self.sets.values()))

    def to_dict(self) -> dict[str, object]:
        """Return the content of ``results.json`` and of the output of ``--json``."""
        first, *others = self.sets.values()
        out: dict[str, object] = {"model": self.model, "split": self.split, **first.to_dict()}
        if others:
            out["ood"] = {found.data: found.to_dict() for found in others}
        folder = None if self.folder is None else str(self.folder)
        out |= {"weights_sha256": self.weights_sha256, "folder": folder, "command": self.command}
        return {**out, "environment": self.environment}
