"""The package as a whole: import order, weight of imports, public names, sizes of files, private names of others."""

from __future__ import annotations

import ast
import doctest
import graphlib
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Sequence
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
    ["console"],
]
LOOSE = ["__init__", "__main__"]  # `python -m augkit` is the console script
ROW = {name: k for k, names in enumerate(ROWS) for name in names}
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))
FILES = {
    ".".join(("augkit", *module.parts)).removesuffix(".__init__"): (ROOT / module).with_suffix(".py")
    for module in MODULES
}
# Of these, what a package imports by itself; the rest waits until it is used.
HEAVY = ["optuna", "albumentations", "matplotlib", "kornia", "torch", "numpy", "PIL", "sklearn", "pydantic", "rich"]
HEAVY += ["torchvision", "timm", "numba", "jinja2"]
WEIGHT: dict[str, set[str]] = {
    "augkit": set(),
    "augkit.core": set(),
    "augkit.core.errors": set(),
    "augkit.core.files": set(),
    "augkit.core.schema": {"pydantic"},
    "augkit.augment": set(),
    "augkit.architectures": {"torch", "numpy"},
    "augkit.data": {"torch", "numpy", "PIL"},
    "augkit.invariance": {"torch", "numpy"},
    "augkit.train": set(),
    "augkit.train.recipe": {"torch", "numpy", "pydantic", "kornia"},  # a row stands beside the class of its op
    "augkit.adapters": set(),
    "augkit.measure": set(),
    "augkit.preview": set(),
    "augkit.tune": set(),
    "augkit.compare": set(),
    "augkit.console.command": set(),
}
LONGEST = 400  # lines of a file
UNTYPED_DICTS = 34
# The one file with private names of torch says why of each.
PRIVATE = {
    "augkit.core.torch_private": {
        "_C",
        "_current_level",
        "_dynamo_marked_constant",
        "_forward_hooks",
        "_forward_pre_hooks",
        "_functorch",
        "_version",
        "_wrapped_fns_to_patch",
    },
}


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


@pytest.mark.parametrize("module", [m for m in MODULES if str(m) not in LOOSE], ids=str)
def test_packages_import_only_from_the_rows_above(module: Path) -> None:
    mine = module.parts[0]
    for name in imports((ROOT / module).with_suffix(".py")) - {mine}:
        assert ROW[name] < ROW[mine], name


def test_no_module_lies_loose() -> None:
    assert {m.parts[0] for m in MODULES} == {*LOOSE, *ROW}
    assert [str(m) for m in MODULES if len(m.parts) == 1] == LOOSE
    assert imports(FILES["augkit.__main__"]) == {"console"}


def top_level_imports(module: str) -> set[str]:
    """Modules of augkit that are imported when ``module`` is; those for type checkers alone left out."""
    found: set[str] = set()

    def visit(body: Sequence[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                visit([*node.body, *node.orelse])
            elif isinstance(node, ast.Try):
                visit(node.body)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("augkit"):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                found.update(name if name in FILES else str(node.module) for name in inner)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names if alias.name in FILES)

    visit(ast.parse(FILES[module].read_text()).body)
    return found - {module}


def test_no_modules_import_each_other_in_a_circle() -> None:
    sorter = graphlib.TopologicalSorter({module: top_level_imports(module) for module in FILES})
    sorter.prepare()  # raises CycleError, which names the modules of a circle


@pytest.mark.integration
@pytest.mark.parametrize(("module", "needed"), WEIGHT.items(), ids=WEIGHT)
def test_a_package_imports_only_what_it_needs(module: str, needed: set[str]) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) <= needed


def test_type_checkers_of_users_see_the_types() -> None:
    assert (ROOT / "py.typed").is_file()
    built = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built["packages"] == ["augkit"]  # with all its files
    assert not {"exclude", "include", "only-include"} & set(built)


def test_no_file_is_longer_than_400_lines() -> None:
    files = [path for folder in ("augkit", "tests", "benchmarks") for path in (ROOT.parent / folder).rglob("*.py")]
    long = {str(path.relative_to(ROOT.parent)) for path in files if len(path.read_text().splitlines()) > LONGEST}
    assert long == set()


def test_untyped_dicts_stay_at_the_edges() -> None:
    """JSON, YAML and the files of torch come and go as ``dict[str, Any]``; results within augkit have types."""
    count = sum(path.read_text().count("dict[str, Any]") for path in FILES.values())
    assert count <= UNTYPED_DICTS


def test_private_names_of_others_are_used_only_where_no_public_way_exists() -> None:
    used = {module: private_names(path) - PRIVATE.get(module, set()) for module, path in FILES.items()}
    assert {module: found for module, found in used.items() if found} == {}


def private_names(path: Path) -> set[str]:
    """Private attributes that a file takes from other objects than its own, but for the documented ones."""
    tree = ast.parse(path.read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    taken = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    return taken - defined - {"_replace", "_asdict", "_exit"}


def test_public_names_are_those_listed() -> None:
    assert set(augkit.__all__) == {
        "Augment",
        "Policy",
        "Ragged",
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
        "compare_policies",
        "fit",
        "fourier_shift",
        "learned_invariance",
        "load_dataset",
        "load_run",
        "measure_invariance",
        "measure_outputs",
        "push_to_hub",
        "resample",
        "shift_averaged",
        "shift_blur",
        "transfer",
        "tune_policy",
        *OPS,
    }
    for name in augkit.__all__:
        value = getattr(augkit, name)
        assert name == "__version__" or value.__doc__, f"{name} has no docstring"
    assert dir(augkit) == sorted(augkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Augmnt'"):
        _ = augkit.Augmnt


TRACKERS = ("mlflow", "trackio", "wandb")  # libraries of extras that the tests do without


@pytest.mark.integration
@pytest.mark.parametrize("module", [m for m in MODULES if m.name != "__init__"], ids=str)
def test_docstring_examples_run(module: Path) -> None:
    try:
        loaded = importlib.import_module(".".join(("augkit", *module.parts)))
    except ModuleNotFoundError as missing:
        if missing.name not in TRACKERS:
            raise
        pytest.skip(f"{missing.name} is not installed")
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
            overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in getattr(node, "decorator_list", []))
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not overload:
                missing.extend([f"{module}:{node.name}"] if ast.get_docstring(node) is None else [])
    assert missing == []
