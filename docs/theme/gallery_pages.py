"""Pictures of the gallery: every op by strength, and every kernel, made by `augkit.preview` when the site is built.

The photograph is one that scikit-learn carries. Ops, ranges and captions come from the specs of the ops, so a new op is
in the gallery without an entry here.
"""

from __future__ import annotations

import io
from dataclasses import replace
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.augment.random_choices import RandomChoices
from augkit.preview.kernels import kernel_figure, kernel_results, part_of
from augkit.preview.strengths import STRENGTHS, Row, picture, strength_rows
from augkit.preview.subject import find_subject, reduced

SIDE = 160  # pixels of the longer side of a tile
GAP = 6
KERNELS = "gallery/kernels.webp"
OPS_HERE, KERNELS_HERE = "<!-- gallery: ops -->", "<!-- gallery: kernels -->"


def fill(markdown: str) -> str:
    """``markdown`` of a page in `docs/gallery` with its pictures in the place of the comment that asks for them."""
    if OPS_HERE in markdown:
        markdown = markdown.replace(OPS_HERE, "\n".join(_section(row) for row in rows()))
    return markdown.replace(KERNELS_HERE, _figure(_kernels_text(), KERNELS.removeprefix("gallery/")))


@cache
def pictures() -> dict[str, bytes]:
    """Every picture of the gallery as WebP, by its path in the site."""
    found = {_strip_name(row, q): _webp(_strip(row, q)) for row in rows() for q in range(len(row.tiles))}
    return {f"gallery/{name}": content for name, content in found.items()} | {KERNELS: _kernels_picture()}


@cache
def rows() -> tuple[Row, ...]:
    """One row for each op, at the range that its spec calls visible."""
    small = reduced(find_subject().image, SIDE)
    side, found = min(small.shape[-2:]), []
    for name, spec in op_specs().items():
        policy = Policy(**{name: spec.example(side)}, padding="reflection")
        row = strength_rows(small, policy)[0]
        if isinstance(policy.geometry()[0], RandomChoices):  # which would choose one and the same op at each quantile
            row = replace(row, tiles=_drawn(small, policy), captions=[[""] * len(STRENGTHS)] * 2)
        found.append(row)
    return tuple(found)


def _drawn(image: Tensor, policy: Policy) -> Tensor:
    """Tiles ``(2, S, C, H, W)`` of two draws, each at every strength."""
    augment, lines = policy.augment(), []
    for seed in (1, 2):
        generators = [torch.Generator().manual_seed(seed) for _ in STRENGTHS]
        pairs = zip(STRENGTHS, generators, strict=True)
        lines.append(torch.cat([augment(image[None], strength=s, generator=g) for s, g in pairs]))
    return torch.stack(lines)


def _section(row: Row) -> str:
    """An op: its title, its range, and a strip of pictures with captions for each quantile of the draws."""
    title = op_specs()[row.name].title
    strips = []
    for q, captions in enumerate(row.captions):
        name = _strip_name(row, q)
        strengths = ", ".join(f"{strength:g}" for strength in STRENGTHS)
        cells = "".join(
            f"<span><b>{strength:g}</b> {caption}</span>" for strength, caption in zip(STRENGTHS, captions, strict=True)
        )
        alt = f"{title}, at strengths {strengths}"
        strips.append(f'<div class="strip"><img src="{name}" alt="{alt}" loading="lazy"><div>{cells}</div></div>')
    heading = f"## {title[0].upper()}{title[1:]} (`{row.name}`)"
    return "\n".join([heading, "", f"At strength 1: {row.range}.", "", *strips, ""])


def _strip_name(row: Row, q: int) -> str:
    return f"{row.name}-{q + 1}.webp"


def _strip(row: Row, q: int) -> Image.Image:
    tiles = [picture(tile) for tile in row.tiles[q]]
    width, height = tiles[0].size
    strip = Image.new("RGBA", (len(tiles) * (width + GAP) - GAP, height))
    for k, tile in enumerate(tiles):
        strip.paste(tile, (k * (width + GAP), 0))
    return strip


def _kernels_text() -> str:
    return "For each kernel the detail shifted by half a pixel, the round trip, what was lost, and spectra"


def _kernels_picture() -> bytes:
    part = part_of(find_subject().image)
    buffer = io.BytesIO()
    figure = kernel_figure(part, kernel_results(part))
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return _webp(Image.open(buffer))


def _figure(alt: str, name: str) -> str:
    return f'<div class="figure"><img src="{name}" alt="{alt}"></div>'


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
