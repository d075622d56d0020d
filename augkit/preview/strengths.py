"""A sheet of the effect of a policy at increasing strengths: tiles, captions, and the picture of them.

Nothing is random here. Each op is a function of uniform draws in [0, 1); every draw is set to the same quantile, as in
the debugging mode of the augmentation of Karras et al. 2020 (https://arxiv.org/abs/2006.06676).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from augkit.augment.base import RandomGeometry
from augkit.augment.compose import Augment
from augkit.augment.op_spec import Matrix, OpSettings
from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.core.errors import InputError

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
QUANTILES = (0.1, 0.9)
TILE = 224  # target length of a tile's longer side, pixels
LEGEND, LABEL, GAP, CAPTION = 300, 76, 10, 26
INK, SOFT, LINE = "#222222", "#666666", "#c8c8c8"


@dataclass(frozen=True)
class Row:
    """One op, or the composed policy, at Q quantiles of its draws and S strengths.

    Attributes:
        name: name of the op, or ``policy``.
        range: the range of the op at strength 1, with its unit.
        tiles: ``(Q, S, C, H, W)`` uint8.
        captions: effect on each tile, ``[q][s]``.
    """

    name: str
    range: str
    tiles: Tensor
    captions: list[list[str]]


def strength_rows(
    image: Tensor, policy: Policy, strengths: Sequence[float] = STRENGTHS, quantiles: Sequence[float] = QUANTILES
) -> list[Row]:
    """Return one row for each op of the policy, then one for all ops together.

    Args:
        image: the image ``(C, H, W)`` uint8 of every tile.
        policy: source of ranges, kernel and padding; its own ``strength`` is not used.
        strengths: strength of each column, in [0, 1].
        quantiles: value of all draws in each line, in [0, 1).

    Raises:
        InputError: a strength or a quantile is out of bounds, or the policy's ops do not support the kernel.
    """
    _check("strengths", strengths, 1.0)
    _check("quantiles", quantiles, 1.0 - 1e-6)
    own, ops = policy.own_ops, policy.geometry()
    rows = [
        _row(name, describe(name, settings), [op], image, policy, strengths, quantiles)
        for (name, settings), op in zip(own.items(), ops, strict=True)
    ]
    together = ", then ".join(own) if own else "no op: the images stay as they are"
    return [*rows, _row("policy", f"{together}; resampled once", ops, image, policy, strengths, quantiles)]


def describe(name: str, settings: OpSettings) -> str:
    """Return the range of a policy's op ``name`` as text, with its unit."""
    amounts = {key: getattr(settings, key) for key in settings.amounts()}
    text, p = op_specs()[name].describe(settings), amounts.pop("p", 1.0)
    return text if p == 1 or not amounts else f"{text}; on {100 * p:.3g}\u00a0% of samples"


def forced_draws(op: RandomGeometry, quantile: float, count: int) -> Tensor:
    """Draws ``(count, n)`` of ``op`` that are all ``quantile``, for samples to which the op is applied.

    An op of a single draw, such as a flip, only decides whether it is applied, so that draw is the quantile.
    """
    draws = torch.full((count, op.draws), float(quantile))
    if op.draws > 1:
        draws[:, 0] = 0.0
    return draws


def _row(
    name: str,
    text: str,
    ops: list[RandomGeometry],
    image: Tensor,
    policy: Policy,
    strengths: Sequence[float],
    quantiles: Sequence[float],
) -> Row:
    augment = Augment(*ops, kernel=policy.kernel, padding=policy.padding)
    size, count = (image.shape[-2], image.shape[-1]), len(strengths)
    tiles, captions = [], []
    for quantile in quantiles:
        draws = torch.cat([forced_draws(op, quantile, count) for op in ops] or [torch.empty(count, 0)], dim=1)
        scale = torch.tensor(strengths, dtype=torch.float32)
        matrix = augment.matrix(draws, scale, size)
        copies = image.expand(count, -1, -1, -1).contiguous()
        tail = augment.draw_tail(copies, scale, draws=draws.to(image.device))  # the colors that some ops change
        tiles.append(augment.render(copies, matrix.to(image.device), tail=tail).cpu())
        captions.append([_caption(name, one) for one in matrix.tolist()])
    return Row(name, text, torch.stack(tiles), captions)


def _caption(name: str, matrix: Matrix) -> str:
    """The effect of a matrix in the unit of its op; for all ops together, its factors along x and y."""
    if name in op_specs():
        return op_specs()[name].caption(matrix)
    return f"× {abs(matrix[0][0]):.2f} wide, {matrix[1][1]:.2f} high"


def draw_sheet(
    rows: Sequence[Row], title: str, strengths: Sequence[float] = STRENGTHS, quantiles: Sequence[float] = QUANTILES
) -> Image.Image:
    """Draw the rows as one picture: a band per op, with a line per quantile and a column per strength."""
    height, width = rows[0].tiles.shape[-2:]
    zoom = max(1, TILE // max(height, width))
    # A caption may be wider than a narrow tile, and a legend higher than flat ones.
    step_x, step_y = max(zoom * width, 190) + GAP, max(zoom * height, 44) + CAPTION + GAP
    left, top = LEGEND + LABEL, 96
    band = max(len(quantiles) * step_y, 130) + 14
    sheet = Image.new("RGB", (left + len(strengths) * step_x + GAP, top + len(rows) * band + 2 * GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((20, 14), _fitted(title, 20, sheet.width - 40), INK, font(20, bold=True))
    pen.text((20, 58), "op and its range at strength 1", SOFT, font(17))
    for s, strength in enumerate(strengths):
        middle = left + s * step_x + (step_x - GAP) // 2
        pen.text((middle, 66), f"strength {strength:.3g}", INK, font(19, bold=True), anchor="mm")
    for r, row in enumerate(rows):
        y = top + r * band
        pen.line((20, y - 6, sheet.width - GAP, y - 6), fill=LINE)
        _draw_legend(pen, row, y)
        for q, quantile in enumerate(quantiles):
            _draw_line(sheet, pen, row, (q, quantile), (left, y + q * step_y), step_x, zoom)
    return sheet


def _draw_legend(pen: ImageDraw.ImageDraw, row: Row, y: int) -> None:
    pen.text((20, y + 2), row.name, INK, font(24, bold=True))
    pen.multiline_text((20, y + 38), textwrap.fill(row.range, 27), SOFT, font(17), spacing=5)


def _draw_line(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    row: Row,
    quantile: tuple[int, float],
    corner: tuple[int, int],
    step_x: int,
    zoom: int,
) -> None:
    q, share = quantile
    left, top = corner
    height, width = (zoom * n for n in row.tiles.shape[-2:])
    pen.multiline_text(
        (left - 14, top + max(height, 44) // 2),
        f"draw at\n{100 * share:.3g} %",
        SOFT,
        font(16),
        anchor="rm",
        align="right",
    )
    for s, caption in enumerate(row.captions[q]):
        x = left + s * step_x + (step_x - GAP - width) // 2
        pen.rectangle((x - 1, top - 1, x + width, top + height), outline=LINE)
        sheet.paste(picture(row.tiles[q, s]).resize((width, height), Image.Resampling.NEAREST), (x, top))
        pen.text((x + width // 2, top + height + 4), caption, SOFT, font(16), anchor="ma")


def picture(image: Tensor) -> Image.Image:
    """Return ``(C, H, W)`` uint8 as an RGB picture; the first channel as gray where there are not three."""
    if image.shape[0] != 3:
        image = image[:1].expand(3, -1, -1)
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships: the same on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / name), size)


def _fitted(text: str, size: int, width: int) -> str:
    """Return ``text`` shortened with an ellipsis to fit ``width`` pixels."""
    letters = font(size, bold=True)
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _check(name: str, values: Sequence[float], high: float) -> None:
    if not values or not all(0 <= value <= high for value in values):
        end = "]" if high == 1 else ")"
        raise InputError(f"{name}: expected one or more numbers in [0, 1{end}, got {', '.join(map(str, values))}")
