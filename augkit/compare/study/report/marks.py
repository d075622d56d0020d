"""The looks of arms, their legend, and the marks that charts are made of.

An arm has one look in all charts. Colours are those of Okabe & Ito 2008; as these repeat after seven arms, shapes
after eight and dashes after five, and the numbers have no common divisor, no two of 56 arms look alike, and the
first eight differ in shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from augkit.compare.study.report.numbers import UNDEFINED
from augkit.compare.study.report.scales import Scale

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#222222", "#E69F00", "#56B4E9")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
LINE = 15.0  # height of a line of text
RADIUS = 5.0  # of a marker


@dataclass(frozen=True)
class Look:
    """How an arm is drawn: colour and dash of its lines, path of its marker, and whether that is hollow."""

    colour: str
    dash: str
    shape: str
    hollow: bool

    def marker(self, size: float = 1.0) -> str:
        """The marker around the origin."""
        fill = "#fff" if self.hollow else self.colour
        scaled = "" if size == 1 else f" transform='scale({coordinate(size)})'"
        return f"<path d='{self.shape}' fill='{fill}' stroke='{self.colour}' stroke-width='1.6'{scaled}/>"

    def line(self, width: float = 2.0) -> str:
        """Attributes of its lines."""
        dash = f" stroke-dasharray='{self.dash}'" if self.dash else ""
        return f"fill='none' stroke='{self.colour}' stroke-width='{coordinate(width)}'{dash}"


Looks = Mapping[str, Look]


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """A look for each different arm, in the order of their first appearance."""
    names = list(dict.fromkeys(arms))
    return {name: _look(k) for k, name in enumerate(names)}


def legend(looks: Looks) -> str:
    """Buttons that hide an arm in all charts, and the same as plain text for paper and for pages without script."""
    samples = {
        arm: f"<svg viewBox='0 0 34 16' aria-hidden='true'><path d='M1 8H33' {look.line()}/>"
        f"<g transform='translate(17 8)'>{look.marker()}</g></svg><span>{escape(arm)}</span>"
        for arm, look in looks.items()
    }
    buttons = "".join(
        f"<button type='button' aria-pressed='true' data-arm='{attribute(arm)}'>{sample}</button>"
        for arm, sample in samples.items()
    )
    keys = "".join(f"<li data-arm='{attribute(arm)}'>{sample}</li>" for arm, sample in samples.items())
    both = "".join(
        f"<button type='button' class='all' data-all='{on}'>{word}</button>"
        for on, word in (("true", "show all"), ("false", "hide all"))
    )
    return (
        f"<div class='legend' role='group' aria-label='Arms shown in all charts'>{buttons}{both}</div>"
        f"<ul class='key'>{keys}</ul>"
    )


def mark(arm: str, tip: str, x: float, y: float, drawn: str, reach: float = 11.0) -> str:
    """What is drawn around the origin, moved to ``x, y``: focusable, with its tip, and easy to hit with a finger."""
    return (
        f"<g class='mark' tabindex='0' role='img' data-arm='{attribute(arm)}' data-tip='{attribute(tip)}'"
        f" aria-label='{attribute(tip.replace(chr(10), '; '))}' transform='translate({coordinate(x)} {coordinate(y)})'>"
        f"<title>{escape(tip)}</title>{drawn}<circle class='hit' r='{coordinate(reach)}'/></g>"
    )


def undefined(arm: str, tip: str, x: float, y: float, anchor: str, before: str = "") -> str:
    """The mark of a value that does not exist: the word."""
    words = f"<text class='small' text-anchor='{anchor}' dy='.35em'>{escape(before)}{UNDEFINED}</text>"
    return mark(arm, tip, x, y, words)


def owned(arm: str, drawn: str) -> str:
    """Something of an arm that tells nothing by itself, but is hidden with it."""
    return f"<g data-arm='{attribute(arm)}'>{drawn}</g>"


def interval(scale: Scale, low: float | None, high: float | None, value: float, look: Look, horizontal: bool) -> str:
    """The ends of an interval around a mark at ``value``: a cap, or an arrow where it leaves the axis."""
    out = ""
    for end in (low, high):
        if end is None:
            continue
        to = scale(end) - scale(value)
        forward = 1 if to >= 0 else -1
        tip = [(to, -3.5), (to, 3.5)]
        if not scale.inside(end):
            tip = [(to - 6 * forward, -4), (to, 0), (to - 6 * forward, 4)]
        for path in ([(0.0, 0.0), (to, 0.0)], tip):
            turned = [(a, b) if horizontal else (b, a) for a, b in path]
            corners = "L".join(f"{coordinate(a)} {coordinate(b)}" for a, b in turned)
            out += f"<path d='M{corners}' fill='none' stroke='{look.colour}' stroke-width='1.6'/>"
    return out


def ring(kind: str) -> str:
    """The ring around a mark in the plane: none if learned, drawn if architectural, dashed if both."""
    if kind == "learned":
        return ""
    dash = " stroke-dasharray='3 2.5'" if kind == "both" else ""
    return f"<circle r='9.5' fill='none' stroke='#444' stroke-width='1.2'{dash}/>"


def text_lines(lines: Sequence[str], x: float, y: float, anchor: str, first: bool = False) -> str:
    """Lines of text whose middle is at ``y``, or whose first line is if ``first``."""
    y -= 0 if first else LINE * (len(lines) - 1) / 2
    return "".join(
        f"<text x='{coordinate(x)}' y='{coordinate(y + LINE * k)}' dy='.35em' text-anchor='{anchor}'>"
        f"{escape(line)}</text>"
        for k, line in enumerate(lines)
    )


def coordinate(value: float) -> str:
    """A length to a hundredth.

    >>> coordinate(1.50), coordinate(-0.001), coordinate(20)
    ('1.5', '0', '20')
    """
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def attribute(text: str) -> str:
    """Text for between quotes."""
    return escape(text, quote=True)


def _look(k: int) -> Look:
    shape = SHAPES[k % len(SHAPES)]
    return Look(COLOURS[k % len(COLOURS)], DASHES[k % len(DASHES)], shape, (k // len(SHAPES)) % 2 == 1)


def _polygon(corners: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{coordinate(RADIUS * x)} {coordinate(RADIUS * y)}" for x, y in corners) + "Z"


def _spokes(radii: Sequence[float], turn: float = 0.0) -> str:
    """A polygon with corners at ``radii`` (of `RADIUS`), at equal angles from the top, turned by degrees."""
    angles = [2 * math.pi * k / len(radii) + math.radians(turn) for k in range(len(radii))]
    return _polygon((r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True))


def _plus(turn: float) -> str:
    arms = [(-0.38, -1.15), (0.38, -1.15), (0.38, -0.38), (1.15, -0.38), (1.15, 0.38), (0.38, 0.38)]
    corners = arms + [(-x, -y) for x, y in arms]
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return _polygon((c * x - s * y, s * x + c * y) for x, y in corners)


SHAPES = (
    f"M{-RADIUS} 0a{RADIUS} {RADIUS} 0 1 0 {2 * RADIUS} 0a{RADIUS} {RADIUS} 0 1 0 {-2 * RADIUS} 0Z",
    _spokes([1.25] * 4, 45),
    _spokes([1.3] * 3),
    _spokes([1.3] * 4),
    _plus(45),
    _spokes([1.3] * 3, 180),
    _plus(0),
    _spokes([1.4, 0.6] * 5),
)
