"""A page read as a browser would: its nesting is checked, and what laws are about is collected."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

EMPTY = ("meta", "img", "br")
ADDRESSES = ("src", "href", "xlink:href", "action", "srcset", "poster", "data")


@dataclass
class Figure:
    """Texts of a ``<figure>`` by tag, and the labels of what it shows."""

    texts: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)


class PageReader(HTMLParser):
    """Reads a page; fails where tags are not nested or an attribute is given twice."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.marks: list[dict[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.figures: list[Figure] = []
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs)
        self.tags.append(tag)
        self.addresses += [found[name] for name in ADDRESSES if name in found]
        self.handlers += [name for name in found if name.startswith("on")]
        self.ids += [found["id"]] if "id" in found else []
        if found.get("class") == "mark":
            self.marks.append(found)
        if tag == "figure":
            self.figures.append(Figure())
        if "figure" in self.open and tag in ("svg", "img"):
            self.figures[-1].labels.append(found.get("aria-label", found.get("alt", "")))
        if tag == "table":
            self.tables.append([])
            self.captions.append("")
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "script":
            self.scripts.append("")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        elif "caption" in self.open:
            self.captions[-1] += data
        if "figure" in self.open:
            texts = self.figures[-1].texts
            texts[self.open[-1]] = texts.get(self.open[-1], "") + data
