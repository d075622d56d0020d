"""Objects that are given by name, ``package.module:attribute``, and the names of functions."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from augkit.core.errors import InputError

MAIN = "__main__"
_LOADING: list[str] = []  # names that `load_named` is importing


def is_name(text: str) -> bool:
    """Whether a text has the form ``package.module:attribute``.

    >>> is_name("loops.digits:train"), is_name("recipes/mnist5k.yaml"), is_name("timm:resnet18.a1")
    (True, False, False)
    """
    module, colon, attribute = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def load_named(source: str, what: str) -> Any:
    """Import the object that ``package.module:attribute`` names; modules of the working folder are found.

    Args:
        source: the name.
        what: what it is in messages, such as ``model``.

    Raises:
        InputError: the module cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: modules beside the caller are found
    _LOADING.append(source)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # imported code may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{what} '{source}': cannot be imported ({reason})") from None
    finally:
        _LOADING.pop()


def module_has(module: str, attribute: str) -> bool:
    """Whether a module that has been imported has an attribute."""
    return hasattr(sys.modules.get(module), attribute)


def refuse_in_import(call: str) -> None:
    """Raise InputError if a module that `load_named` imports makes ``call``: each worker would make it again."""
    if _LOADING:
        raise InputError(f"{call} is called while the module is imported; move the call below if __name__ == '{MAIN}'")


def name_of(function: object) -> str:
    """The name of a function, ``module:attribute``; a running script is named by its file."""
    whole = getattr(function, "func", function)  # of a functools.partial
    own = whole if hasattr(whole, "__qualname__") else type(whole)
    module = str(getattr(own, "__module__", ""))
    if module == MAIN:
        main = sys.modules[MAIN]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        module = spec.name.removesuffix(f".{MAIN}") if spec is not None else Path(file).stem if file else MAIN
    return f"{module}:{own.__qualname__}"


def importable_name(function: object, what: str, why: str) -> str:
    """The name by which another process imports an object; ``why`` says in messages what needs it.

    Raises:
        InputError: it cannot be imported by name, like a lambda, a local function or one of a script.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found = sys.modules.get(str(module))
    if module == MAIN or not name.isidentifier() or getattr(found, name, None) is not function:
        raise InputError(
            f"{what}: expected a function that can be imported by name, for {why}, got {name_of(function)}; define it"
            " at the top of a module that is imported"
        )
    return f"{module}:{name}"


def import_folder(name: str) -> Path | None:
    """The folder from which the module of ``package.module:attribute`` was imported; None if it has no file."""
    module = name.partition(":")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return None
    path = Path(file).resolve()
    return path.parents[module.count(".") + (path.name == "__init__.py")]
