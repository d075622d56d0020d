#!/usr/bin/env python3
"""Runs the tests beside the lowest versions that pyproject.toml promises, or beside the newest.

    python .ci/versions.py lowest                                  # all quick tests
    python .ci/versions.py newest tests/augment tests/adapters     # these; anything for pytest after the first word
    python .ci/versions.py lowest --environment DIR                # in this environment, made where it is missing

The environment is its own. For `lowest` each dependency, hard or of an extra for users, is installed at exactly its
floor, which pyproject.toml says and nothing else does; for `newest` at the newest that pip finds. The tools of the
tests (extra `test`) are the newest that go with it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOR_DEVELOPERS = ("docs", "test")  # extras of a checkout
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z,]+\])?>=(?P<floor>[0-9.]+)(?P<rest>[^;]*)(?P<marker>;.*)?")


def floors(dependencies: list[str]) -> list[str]:
    """Each requirement ``name>=floor`` as ``name==floor``; its marker stays, its extras go: a constraint has none."""
    found = []
    for dependency in dependencies:
        parts = REQUIREMENT.fullmatch(dependency)
        if parts is None:
            raise SystemExit(f"'{dependency}': expected name>=floor; give it a floor in pyproject.toml")
        found.append(f"{parts['name']}=={parts['floor']}{parts['marker'] or ''}")
    return found


def main() -> int:
    """Make the environment, print what lies in it, and run the tests; return pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("lowest", "newest"))
    parser.add_argument("--environment", type=Path, metavar="DIR", help="its folder (default: a new one)")
    options, words = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory(prefix="augkit-versions-") as scratch:
        place = options.environment or Path(scratch) / "venv"
        python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
        if not python.exists():
            venv.create(place, with_pip=True)
        constraints = Path(scratch) / "constraints.txt"
        groups = project["optional-dependencies"].items()
        extras = [word for name, words in groups if name not in FOR_DEVELOPERS for word in words]
        pinned = floors([*project["dependencies"], *extras]) if options.which == "lowest" else []
        constraints.write_text("\n".join(pinned), encoding="utf-8")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        newest = ["--upgrade", "--upgrade-strategy", "eager"] if options.which == "newest" else []
        subprocess.run([*pip, *newest, "-c", constraints, "-e", f"{ROOT}[test]"], check=True)
        subprocess.run([python, "-m", "pip", "check"], check=True)
        subprocess.run([python, "-m", "pip", "freeze", "--exclude-editable"], check=True)
        # Old packages use what newer ones beside them deprecate.
        quiet = ["-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning"] if pinned else []
        tests = [python, "-m", "pytest", "-n", "auto", *quiet, *words]
        return subprocess.run(tests, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
