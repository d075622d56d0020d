"""Writes the files of a preview: a sheet of strengths, a figure of the kernels, and a page with both."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.core.figures import save_png
from augkit.core.files import claim, environment, write
from augkit.core.images import save
from augkit.core.progress import Display
from augkit.preview.kernels import HalfPixel, kernel_figure, kernel_results, part_of
from augkit.preview.page import preview_page
from augkit.preview.strengths import QUANTILES, STRENGTHS, TILE, draw_sheet, strength_rows
from augkit.preview.subject import Subject, reduced
from augkit.train.build import choose_device

STAGES = 3  # of a `Display`


@dataclass(frozen=True)
class PreviewSettings:
    """Settings of a preview.

    Attributes:
        strengths: strength of each column, in [0, 1].
        quantiles: quantile of the draws in each line of an op, in [0, 1).
        device: device of the resampling, such as ``cuda``; chosen automatically when None.
    """

    strengths: tuple[float, ...] = STRENGTHS
    quantiles: tuple[float, ...] = QUANTILES
    device: str | None = None


@dataclass(frozen=True)
class PreviewResult:
    """The result of a preview.

    Attributes:
        folder: folder of the files.
        files: names of the files.
        source: title of the image.
        size: channels, height and width of the displayed image.
        policy: the displayed policy.
        settings: settings of the preview.
        kernels: measurements of each kernel for half a pixel.
    """

    folder: Path
    files: tuple[str, ...]
    source: str
    size: tuple[int, int, int]
    policy: Policy
    settings: PreviewSettings
    kernels: tuple[HalfPixel, ...]

    def to_dict(self) -> dict[str, object]:
        """The output of the command with ``--json``."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "source": self.source,
            "image": dict(zip(("channels", "height", "width"), self.size, strict=True)),
            "policy": self.policy.model_dump(exclude_none=True),
            "strengths": list(self.settings.strengths),
            "quantiles": list(self.settings.quantiles),
            "kernels": {result.kernel: _numbers(result) for result in self.kernels},
        }


def preview(
    subject: Subject,
    folder: Path,
    settings: PreviewSettings | None = None,
    *,
    overwrite: bool = False,
    display: Display | None = None,
) -> PreviewResult:
    """Write ``preview.png``, ``kernels.png`` and ``preview.html`` to ``folder``.

    Args:
        subject: the image and the policy, as `augkit.preview.find_subject` finds them.
        folder: output folder, created if it is missing.
        settings: settings of the preview; the defaults of `PreviewSettings` when None.
        overwrite: replace earlier results of augkit in the folder.
        display: display of the progress, with `STAGES` steps; none when None.

    Raises:
        InputError: the folder is not empty, a strength or quantile is out of bounds, or the device is unknown.
    """
    settings, display = settings or PreviewSettings(), display or Display(STAGES, quiet=True)
    device = choose_device(settings.device)
    display.stage("drawing the ops", "the kernels")
    small, policy = reduced(subject.image, TILE), subject.policy
    rows = strength_rows(small.to(device), policy, settings.strengths, settings.quantiles)
    title = f"{subject.title}, {small.shape[2]} × {small.shape[1]} px: {_resampling(policy)}"
    sheet = draw_sheet(rows, title, settings.strengths, settings.quantiles)
    display.advance(1)
    display.stage("drawing the kernels")
    part = part_of(subject.image)
    kernels = kernel_results(part.to(device))
    figure = kernel_figure(part, kernels)
    display.advance(1)
    display.stage("writing")
    claim(folder, overwrite=overwrite)
    info = environment()
    write(folder / "preview.png", lambda path: save(sheet, path))
    write(folder / "kernels.png", lambda path: save_png(figure, path))
    first, second = ((folder / name).read_bytes() for name in ("preview.png", "kernels.png"))
    page = preview_page(subject.title, policy.to_yaml(), _notes(subject, small), first, second, info["command"])
    write(folder / "preview.html", page)
    write(folder / "environment.json", json.dumps(info, indent=2))
    display.advance(1)
    channels, height, width = small.shape
    files = ("preview.html", "preview.png", "kernels.png")
    return PreviewResult(folder, files, subject.title, (channels, height, width), policy, settings, tuple(kernels))


def _resampling(policy: Policy) -> str:
    return f"kernel {policy.kernel}, padding {policy.padding}"


def _notes(subject: Subject, small: Tensor) -> list[str]:
    notes = [f"{_resampling(subject.policy).capitalize()}."]
    if small.shape != subject.image.shape:
        height, width = subject.image.shape[-2:]
        notes.append(
            f"The image of {width} × {height} pixels was reduced to {small.shape[2]} × {small.shape[1]} first, so a"
            " pixel of the ranges is a pixel of what is shown; the kernels were tried on the image at full size."
        )
    missing = [name for name in op_specs() if name not in subject.policy.own_ops]
    if missing:
        notes.append(f"Not in this policy: {', '.join(missing)}.")
    if subject.policy.strength != 1:
        notes.append(f"The policy itself trains at strength {subject.policy.strength:g}.")
    return notes


def _numbers(result: HalfPixel) -> dict[str, float | None]:
    finite = result.psnr if math.isfinite(result.psnr) else None
    return {"round_trip_psnr": finite, "kept_above_half_nyquist": result.kept}
