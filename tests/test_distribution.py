"""What the package promises to who installs it: version, dependencies, floors, light imports, and no rubbish."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import augkit

ROOT = Path(augkit.__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = SETTINGS["project"]
# Imported under another name than that of the package.
PACKAGES = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "open_clip": "open-clip-torch",
    "grpc": "grpcio",
}
# Imported, but brought by a package that is declared and needs it itself; or used only where it happens to be.
BROUGHT = {
    "cv2": "albumentations",
    "llvmlite": "numba",
    "markupsafe": "jinja2",
    "mlflow": "mlflow-skinny",
    "packaging": "optuna",
    "sqlalchemy": "optuna",
    "triton": "torch",
}
# Hard dependencies that only one part of augkit needs: importing the others must not load them.
HEAVY = (
    "albumentations",
    "cv2",
    "jinja2",
    "matplotlib",
    "mlxtend",
    "numba",
    "optuna",
    "pandas",
    "rich",
    "scipy",
    "sklearn",
)
PAGES = ("jinja2", "matplotlib")
DATA = ("mlxtend", "pandas", "sklearn")
STARTS: dict[str, tuple[str, ...]] = {
    "augkit": (*HEAVY, "torch", "kornia", "numpy", "pydantic"),
    "augkit; augkit.Augment; augkit.Policy": ("albumentations", "numba", "optuna", *PAGES, *DATA),
    "augkit; augkit.measure_invariance; augkit.build_model": HEAVY,
    "augkit; augkit.fit; augkit.Recipe": ("albumentations", "optuna", "rich", *PAGES, *DATA),
}


def names(requirements: list[str]) -> set[str]:
    """The names of packages that requirements name."""
    found = (re.match(r"[A-Za-z0-9._-]+", word) for word in requirements)
    return {match.group().lower().replace("_", "-") for match in found if match is not None}


def versions_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    assert SETTINGS["tool"]["hatch"]["version"]["path"] == "augkit/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+", augkit.__version__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (augkit.__version__, PROJECT["license"])


def test_the_changelog_has_the_usual_form() -> None:
    """Keep a Changelog: newest first, an unreleased part, and six kinds of change."""
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    versions = [line for line in lines if line.startswith("## ")]
    assert versions[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line) for line in versions[1:])
    kinds = {line for line in lines if line.startswith("### ")}
    assert kinds <= {f"### {kind}" for kind in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")}
    assert any("keepachangelog.com" in line for line in lines[:8])


def test_every_hard_dependency_has_a_floor_and_a_reason() -> None:
    pinned = versions_script().floors(PROJECT["dependencies"])
    assert len(pinned) == len(PROJECT["dependencies"])
    assert all("==" in word for word in pinned)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = text.partition("\ndependencies = [\n")[2].partition("\n]\n")[0].splitlines()
    without = [line for line in lines if not re.search(r"#\s*\S", line)]
    assert without == []


@pytest.mark.parametrize(
    ("requirement", "pinned"),
    [
        ("torch>=2.6", "torch==2.6"),
        ("albumentations>=2.0.8,<3", "albumentations==2.0.8"),
        ("psycopg[binary]>=3.1.12", "psycopg==3.1.12"),
        ("psutil>=5.9; sys_platform != 'linux'", "psutil==5.9; sys_platform != 'linux'"),
    ],
)
def test_a_floor_is_installed_exactly(requirement: str, pinned: str) -> None:
    assert versions_script().floors([requirement]) == [pinned]


def test_a_dependency_without_a_floor_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected name>=floor"):
        versions_script().floors(["torch"])


def test_all_that_is_imported_is_declared() -> None:
    extras = [word for group in PROJECT["optional-dependencies"].values() for word in group]
    declared = names([*PROJECT["dependencies"], *extras])
    found = set()
    for path in (ROOT / "augkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    foreign = found - set(sys.stdlib_module_names) - {"augkit"}
    missing = {
        name for name in foreign if BROUGHT.get(name, PACKAGES.get(name, name)).replace("_", "-") not in declared
    }
    assert missing == set()


@pytest.mark.integration
@pytest.mark.parametrize(("start", "unwanted"), STARTS.items(), ids=STARTS)
def test_a_part_does_not_load_what_others_need(start: str, unwanted: tuple[str, ...]) -> None:
    code = f"import sys, {start}; print(*sorted(set({unwanted!r}) & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == []


def test_the_source_archive_names_what_it_carries() -> None:
    carried = SETTINGS["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert all((ROOT / name.removeprefix("/")).exists() for name in carried)
    assert {"/augkit", "/recipes", "/tests"} <= set(carried)
    assert PROJECT["readme"] == "README.md"
    assert (ROOT / PROJECT["license-files"][0]).is_file()
