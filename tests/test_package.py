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

ROOT = Path(augkit.__file__).parent
# A module imports from its own row (within a package) and from the rows above it.
ROWS = [
    ["errors", "ranks", "safe_files", "yaml_text"],
    [
        *("geometry", "interpolation", "schema", "folders", "weights", "reproducible", "mixing", "tensorboard", "zoo"),
        *("checks", "modes", "outputs", "loaders"),
    ],
    ["backends", "resampling", "blur", "colour", "following", "targets"],
    ["random_geometry", "augment", "transforms", "architectures", "invariance"],
    ["policy_ops", "data", "views"],
    ["policy"],
    ["adapters", "sections"],
    ["recipe", "schedules", "optimizers", "distributed"],
    ["building", "checkpoints", "evaluation", "feeding", "requeueing"],
    ["job", "space", "heartbeats"],
    ["training", "search", "storages"],
    ["comparison", "experiments", "models", "report", "launching", "taking"],
    ["trials", "outcome"],
    ["command"],
    ["probes", "supervising", "trial_notes", "finals"],
    ["measuring", "telling"],
    ["judging"],
    ["tuning", "claims", "decisions", "matching", "sequential"],
    ["statistics"],
    ["studies"],
    ["readings"],
    ["cells"],
    ["answers", "cell_queue", "across"],
    ["findings"],
    ["studying"],
    ["train", "tune", "measure", "compare", "preview", "worker"],
]
ROW = {name: k for k, names in enumerate(ROWS) for name in names}
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))


def top(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """Modules of augkit that a file imports when it is loaded; what it imports inside functions does not count."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("augkit"):
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "augkit" else [node.module]
            found.update(top(name) for name in names)
        elif isinstance(node, ast.Import):
            found.update(top(alias.name) for alias in node.names if alias.name.startswith("augkit."))
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if str(m) != "__init__"], ids=str)
def test_modules_import_only_from_the_rows_above(module: Path) -> None:
    mine = ROW[module.parts[0]]
    for name in imports((ROOT / module).with_suffix(".py")):
        same_part = name == module.parts[0]
        assert ROW[name] < mine or same_part or (ROW[name] == mine and mine in (2, 3, 4, 8, 11)), name


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
