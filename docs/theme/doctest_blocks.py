"""Show the ``>>>`` examples of docstrings as code: in Markdown they would be quotations."""

from __future__ import annotations

from typing import Any

import griffe


def fence(text: str) -> str:
    """``text`` with each block of lines that starts with ``>>>`` and ends at an empty line between fences."""
    lines, inside = [], False
    for line in [*text.splitlines(), ""]:
        if not inside and line.lstrip().startswith(">>> "):
            inside = True
            lines += ["", "```pycon"]
        if inside and not line.strip():
            inside = False
            lines.append("```")
        lines.append(line.lstrip() if inside else line)
    return "\n".join(lines).rstrip()


class DoctestBlocks(griffe.Extension):
    """Applies `fence` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of ``obj`` before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
