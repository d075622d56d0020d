"""Results of a measurement: the reports of all image sets, and the information to repeat it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from augkit.core.files import Environment
from augkit.core.json import jsonable
from augkit.invariance import InvarianceReport
from augkit.invariance.presets import PRESETS
from augkit.measure.analyses import Analyses


@dataclass(frozen=True)
class ImageSetResults:
    """Results on one image set.

    Attributes:
        data: name of the images.
        report: metrics, curves and flips.
        batch_size: images per forward pass.
        notes: sentences about exceptions, such as omitted files.
        analyses: the analyses of the first image set; None if none was chosen.
    """

    data: str
    report: InvarianceReport
    batch_size: int
    notes: tuple[str, ...] = ()
    analyses: Analyses | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        found = self.report.to_dict() | {"settings": self.settings_to_dict()}
        analyses = self.analyses.to_dict() if self.analyses is not None else {}
        return jsonable({"data": self.data, **found, **analyses})

    def settings_to_dict(self) -> dict[str, object]:
        """Settings of the report, batch size and notes, for JSON."""
        return jsonable(self.report.settings.to_dict() | {"batch_size": self.batch_size, "notes": list(self.notes)})


@dataclass(frozen=True)
class MeasureResults:
    """Results of `augkit.measure.measure`.

    Attributes:
        model: source of the network.
        split: split of the datasets.
        typical: results on the dataset's own images.
        ood: results on other images.
        preset: name of the published protocol, if one was chosen.
        weights_sha256: digest of the network's weights.
        folder: folder of ``results.json`` and ``report.html``; None where nothing was written.
        command: the command that repeats the measurement.
        environment: versions and machine.
    """

    model: str
    split: str
    typical: ImageSetResults
    ood: tuple[ImageSetResults, ...]
    preset: str | None
    weights_sha256: str
    folder: Path | None
    command: str
    environment: Environment

    @property
    def sets(self) -> dict[str, ImageSetResults]:
        """Results by the name of the images, the dataset's own first."""
        return {found.data: found for found in (self.typical, *self.ood)}

    def to_dict(self) -> dict[str, object]:
        """Return the content of ``results.json`` and of the output of ``--json``."""
        return copy.deepcopy(self._json)

    @cached_property
    def _json(self) -> dict[str, object]:
        out: dict[str, object] = {"model": self.model, "split": self.split, **self.typical.to_dict()}
        if self.ood:
            out["ood"] = {found.data: found.to_dict() for found in self.ood}
        if self.preset is not None:
            out["preset"] = {"name": self.preset, **PRESETS[self.preset].to_dict()}
        folder = None if self.folder is None else str(self.folder)
        out |= {"weights_sha256": self.weights_sha256, "folder": folder, "command": self.command}
        return {**out, "environment": self.environment}
