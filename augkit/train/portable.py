"""Texts and recipes without the folders of the machine that made them, for files that leave it."""

from __future__ import annotations

import re
from typing import Any

from augkit.core.schema import Tree
from augkit.train.recipe import Recipe

# An absolute path where a word, or its value, begins: /x, ~/x, C:\\x, \\\\host\\x; not the // of a URL.
_PATH = re.compile(r"""(?<![^\s=:'"(\[,])(?:~[\w.-]*|[A-Za-z]:|\\)?(?:/(?!/)|\\)[^\s'",)\]]*""")

_VALUE = re.compile(r"(?P<form>[A-Za-z_]{2,}:)?(?P<path>(?:~[\w.-]*|[A-Za-z]:)?[\\/].*)", re.DOTALL)


def portable_text(text: str) -> str:
    """Replace every absolute path in a text by its last part; relative paths and URLs stay.

    >>> portable_text("augkit train /home/me/a.yaml data.name=folder:/data/birds --output runs/x")
    'augkit train a.yaml data.name=folder:birds --output runs/x'
    """
    return _PATH.sub(lambda found: re.split(r"[\\/]", found[0].rstrip("\\/"))[-1], text)


def portable_recipe(recipe: Recipe) -> Recipe:
    """Return the recipe with the last part of every absolute path."""
    fields: Tree = _portable(recipe.model_dump())
    return recipe.replaced(**fields)


def _portable(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _portable(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_portable(value) for value in tree]
    return _portable_value(tree) if isinstance(tree, str) else tree


def _portable_value(text: str) -> str:
    """`portable_text` for a whole value, whose path may contain spaces and follow a prefix such as ``folder:``."""
    found = _VALUE.fullmatch(text)
    if found is None or found["path"].startswith("//"):
        return text
    return (found["form"] or "") + re.split(r"[\\/]", found["path"].rstrip("\\/"))[-1]
