"""Lazy imports of a package's public names, so that ``import`` stays fast."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy(package: str, home: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: name of the package.
        home: module below the package for each public name.

    Returns:
        A function that imports a public name and raises AttributeError for others, and one that lists public names.
    """

    def attribute(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    def names() -> list[str]:
        return sorted(home)

    return attribute, names
