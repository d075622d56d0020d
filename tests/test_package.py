"""The package as a whole: its layers, its weight, its names, its README."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import augkit
from augkit.augment.ops import MODULES as OPS

ROOT = Path(augkit.__file__).parent
# A package imports from itself and from the rows above it; the two of one row do not import each other.
ROWS = [
    ["core"],
    ["augment"],
    ["architectures", "data"],
    ["invariance"],
    ["train", "adapters"],
    ["measure", "preview"],
    ["tune", "compare"],
]
ROW = {name: k for k, names in enumerate(ROWS) for name in names}
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))


def top(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """Packages of augkit that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("augkit"):
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "augkit" else [node.module]
            found.update(top(name) for name in names)
        elif isinstance(node, ast.Import):
            found.update(top(alias.name) for alias in node.names if alias.name.startswith("augkit."))
    return found - {"__version__"}


@pytest.mark.parametrize("module", [m for m in MODULES if str(m) != "__init__"], ids=str)
def test_packages_import_only_from_the_rows_above(module: Path) -> None:
    mine = module.parts[0]
    for name in imports((ROOT / module).with_suffix(".py")) - {mine}:
        assert ROW[name] < ROW[mine], name


def test_no_module_lies_loose() -> None:
    assert {m.parts[0] for m in MODULES} == {"__init__", *ROW}
    assert [str(m) for m in MODULES if len(m.parts) == 1] == ["__init__"]


def test_import_is_light() -> None:
    heavy = ["optuna", "albumentations", "matplotlib", "kornia", "torch", "sklearn", "pydantic"]
    code = f"import sys, augkit; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_are_those_listed() -> None:
    assert set(augkit.__all__) == {
        "Augment",
        "Policy",
        "RandomHorizontalFlip",
        "RandomRescale",
        "RandomShiftBlur",
        "RandomSubpixelCrop",
        "RandomSubpixelShift",
        "Recipe",
        "__version__",
        "antialias",
        "architectural_invariance",
        "build_model",
        "certify",
        "fit",
        "fourier_shift",
        "learned_invariance",
        "load_dataset",
        "measure_invariance",
        "resample",
        "shift_blur",
        "transfer",
        *OPS,
    }
    for name in augkit.__all__:
        value = getattr(augkit, name)
        assert name == "__version__" or value.__doc__, f"{name} has no docstring"
    assert dir(augkit) == sorted(augkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Augmnt'"):
        _ = augkit.Augmnt


@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__init__"], ids=str)
def test_docstring_examples_run(module: Path) -> None:
    loaded = importlib.import_module(".".join(("augkit", *module.parts)))
    import torch

    result = doctest.testmod(loaded, extraglobs={"torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_every_public_function_and_class_has_a_docstring() -> None:
    missing = []
    for module in MODULES:
        tree = ast.parse((ROOT / module).with_suffix(".py").read_text())
        if ast.get_docstring(tree) is None:
            missing.append(str(module))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                missing.extend([f"{module}:{node.name}"] if ast.get_docstring(node) is None else [])
    assert missing == []
