"""Pages from jinja2 templates: each is one self-contained HTML file that opens offline, prints and fits a phone.

Templates are in the folder ``templates`` of the package of their page, and are named ``package/file``:
``train/run.html`` is ``augkit/train/templates/run.html``. All extend ``core/page.html`` and draw figures, tables and
estimates with the macros of ``core/macros.html``. Text is escaped unless it is `markupsafe.Markup`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


@dataclass(frozen=True)
class Table:
    """A table of text for the macro ``table``.

    Attributes:
        caption: description of the numbers, shown below the table; its label for screen readers.
        head: titles of the columns.
        rows: cells by row; the first cell is the heading of the row. An estimate (``0.5 [0.4, 0.6]``) is shown as its
            value above its interval.
        words: titles of columns (after the first) of words, which are left-aligned.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()


def render(template: str, **context: Any) -> str:
    """Return the page of ``template`` (``package/file``) for the variables in ``context``."""
    return environment().get_template(template).render(**context)


@cache
def environment() -> Environment:
    """Return the jinja2 environment with the loader of templates, and the filters that they may use."""
    # A wrong name in a template is an error, not empty text on the page.
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["pretty_json"] = _pretty_json
    return environment


def _source(name: str) -> str:
    package, _, file = name.rpartition("/")
    return files("augkit").joinpath(*package.split("/"), "templates", file).read_text(encoding="utf-8")


def _pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
