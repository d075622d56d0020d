"""The style of all figures, and figures as inline SVG with accessible, interactive marks.

Matplotlib draws every chart and writes the PNG files. Interaction (tips on hover and keyboard focus, and groups that a
legend hides) needs only a few attributes, which `svg` adds to the elements that `describe` has named. Letters remain
text (``svg.fonttype: none``), so that they can be searched, and the view box remains, so that pages can scale a chart.
Colors are those of Okabe & Ito 2008, which color-blind readers can distinguish.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GRAY, BLACK = "#0072B2", "#D55E00", "#009E73", "#9a9a9a", "#222222"
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "svg.hashsalt": "augkit",
    "svg.fonttype": "none",
}
HIT = 8.0  # radius of the touch target around a marker, in points
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_OURS = "augkit:"  # prefix of the identifiers of elements that `describe` has named
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)


@dataclass(frozen=True)
class Chart:
    """A figure for a page.

    Attributes:
        title: heading; empty where the text above the chart names it.
        name: label for screen readers.
        svg: inline SVG.
        width: width of the drawing in points.
        caption: description of the content.
    """

    title: str
    name: str
    svg: Markup
    width: float
    caption: str


def describe(artist: Artist, tip: str = "", group: str = "") -> None:
    """Give an artist a tip, which makes it an interactive mark of the page, and a group, which a legend can hide.

    Args:
        artist: one marker (a line of one point), one bar, one line, or one text.
        tip: text on hover, on focus and for screen readers; without it the artist cannot be focused.
        group: name of its series.
    """
    artist.set_gid(_OURS + json.dumps({"tip": tip, "group": group}))


def mark(axes: Axes, x: float, y: float, tip: str) -> None:
    """Add an invisible mark with a tip at a position, such as a point of a curve."""
    describe(axes.plot([x], [y], "o", ms=6, alpha=0, zorder=10, clip_on=False, scalex=False, scaley=False)[0], tip)


def interval_text(value: float, low: float, high: float) -> str:
    """Return a value with its interval as text, for a tip.

    >>> interval_text(0.5, 0.25, 0.75)
    '0.5 [0.25, 0.75]'
    """
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def chart(title: str, figure: Figure, caption: str = "", name: str = "") -> Chart:
    """Return a `Chart` of a figure; ``name`` is its label for screen readers where there is no title."""
    name = name or title or caption
    drawn = svg(figure, name)
    width = re.search(r"viewBox=\"0 0 ([\d.]+)", drawn)
    return Chart(title, name, Markup(drawn), float(width[1]) if width else 0.0, caption)


def svg(figure: Figure, name: str = "", *, tight: bool = True, place: str = "") -> str:
    """Return a figure as inline SVG; see `describe` for its marks.

    Args:
        figure: the figure.
        name: label for screen readers, which skip a figure without one.
        tight: whether to crop the white margin.
        place: prefix that makes identifiers unique if the same figure appears twice on a page.
    """
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # scripts that are missing in matplotlib's font
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # names longer than the figure
        figure.savefig(buffer, format="svg", bbox_inches="tight" if tight else None, metadata={"Date": None})
    content = re.sub(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", b"", buffer.getvalue())  # XML cannot hold them
    root = ElementTree.fromstring(content)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    marked = [_mark(element) for element in list(root.iter()) if element.get("id", "").startswith(_OURS)]
    _rename_ids(root, hashlib.sha256(f"{name}|{place}|".encode() + content).hexdigest()[:8])
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    # Elements inside an image cannot have focus, so a chart with marks is a group.
    root.attrib |= {"role": "group" if any(marked) else "img", "aria-label": name} if name else {"aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, for any file name."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="png", dpi=140, bbox_inches="tight", metadata={"Software": "augkit"})


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one plot; width and height are in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots()


def _mark(element: ElementTree.Element) -> bool:
    """Convert the name that `describe` gave an element to attributes; return whether it has a tip."""
    found = json.loads(element.attrib.pop("id").removeprefix(_OURS))
    if found["group"]:
        element.set("data-group", found["group"])
    tip = found["tip"]
    if not tip:
        return False
    element.attrib |= {"class": "mark", "tabindex": "0", "role": "img"}
    element.attrib |= {"data-tip": tip, "aria-label": tip.replace("\n", "; ")}
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = tip
    element.insert(0, title)
    markers = element.findall(f".//{{{SVG}}}use")
    if len(markers) == 1:
        place = {"cx": markers[0].get("x", "0"), "cy": markers[0].get("y", "0"), "r": f"{HIT:g}", "class": "hit"}
        element.append(ElementTree.Element(f"{{{SVG}}}circle", place))
    return True


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Remove unreferenced identifiers, and make the others differ from those of other charts."""
    used = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            # Texts may contain anything, so only attributes with references are changed.
            if name == f"{{{XLINK}}}href" and value.startswith("#"):
                used.add(value[1:])
                element.set(name, f"#{prefix}-{value[1:]}")
            elif name in ("clip-path", "style", "mask", "filter", "fill"):
                used.update(re.findall(r"url\(#([^)]+)\)", value))
                element.set(name, value.replace("url(#", f"url(#{prefix}-"))
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{prefix}-{own}")
