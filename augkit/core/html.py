"""A page: one self-contained HTML file that opens offline, prints, and reads on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 70rem; margin: 0 auto;
  padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { max-width: 46rem; } .lead { font-size: 1.05rem; background: #f3f7fb; border-left: 4px solid #0072B2;
  padding: .8rem 1rem; } .note { color: #555; font-size: .9rem; }
figure { margin: .5rem 0; } figure svg, figure img { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; max-width: 46rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .45rem; text-align: right; border-bottom: 1px solid #e3e3e3; white-space: nowrap; }
thead th { border-bottom: 2px solid #888; font-size: .88rem; white-space: normal; }
tbody th, td.name, thead th:nth-child(-n+2) { text-align: left; } small { color: #666; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .85rem; }
img.sheet { image-rendering: pixelated; }
@media print { body { max-width: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def document(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole HTML file of ``parts``; ``style`` is added to `STYLE`."""
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
