"""The opening of a page: what it is about, in its first words."""

from __future__ import annotations

import re

SENTENCES = 2


def opening(markdown: str) -> str:
    """The first sentences of the paragraph below the title, without links; empty where there is no such paragraph.

    >>> opening("# A title\\n\\nSee [this](page.md). And that. No more.")
    'See this. And that.'
    """
    below = re.match(r"# .*\n\n((?:[\w`*\x22\[].*\n?)+)", markdown)
    if below is None or below[1].startswith("```"):
        return ""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(below[1].split()))
    return " ".join(re.split(r"(?<=[.?!])\s", text)[:SENTENCES]).rstrip(":")
