"""What an installation of augkit costs: packages, megabytes, seconds, and the time of `import augkit`.

    python -m build
    python benchmarks/install.py dist/augkit-*.whl                     # writes results/install.json and install.md
    python benchmarks/install.py dist/augkit-*.whl --environment DIR   # goes on in this environment
    python benchmarks/install.py dist/augkit-*.whl --clone .           # times a clone of this repository, too

The wheel is installed into an environment of its own, without the checkout; then, in an empty folder, the main command
runs once. For each hard dependency, as the wheel names them:

- **packages** and **MB**: the package with all that it needs, as they lie on the disk.
- **alone**: of these, what no other hard dependency needs and would therefore be saved without it.
- **import**: processor time (user and kernel) of a process that imports it, beyond that of one that imports nothing;
  the least of `ROUNDS`. Files were read before, so that the disk has no part in it.

With ``--clone`` a newcomer's first steps are timed as well: `git clone`, `pip install -e .` in a fresh environment, and
`augkit preview`, which draws the first figures: once as it comes, with loops to compile, and once again.

The table's times are those of the processor, because the machine may be busy; the load stands beside. What `pip` takes
by the clock depends on the network, too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machine import environment, loads

HERE = Path(__file__).parent
ROUNDS = 3
MAIN = ["-m", "augkit.tune", "--trials", "3", "--trial-epochs", "1", "--seeds", "1", "train.epochs=2"]
PREVIEW = ["-m", "augkit.preview", "--quiet"]
IMPORTED = {"pyyaml": "yaml", "scikit-learn": "sklearn", "pillow": "PIL"}  # other than the name of the package
STARTS = ("augkit", "augkit.train.loop", "augkit.tune.pipeline", "augkit.invariance")
# Runs in the environment: every package with its size and what it needs.
PROBE = """
import json, os
from importlib.metadata import distributions
from pip._vendor.packaging.requirements import Requirement
found = {}
for one in distributions():
    sizes = [os.path.getsize(p) for p in map(one.locate_file, one.files or ()) if os.path.isfile(p)]
    needs = [Requirement(word) for word in one.requires or ()]
    needs = [n.name for n in needs if n.marker is None or n.marker.evaluate({"extra": ""})]
    found[one.metadata["Name"]] = {"version": one.version, "bytes": sum(sizes), "needs": needs}
print(json.dumps(found))
"""


def normal(name: str) -> str:
    """The name of a package as registries compare it."""
    return name.lower().replace("_", "-").replace(".", "-")


def spent(command: list[str], folder: Path) -> dict[str, float]:
    """Wall clock and processor time in seconds of a command and the processes that it starts, and the load after it."""
    before, start = os.times(), time.monotonic()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, cwd=folder, env=clean, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    took = {"wall_seconds": round(time.monotonic() - start, 1), "cpu_seconds": round(cpu, 2)}
    return took | ({"load": load[0]} if (load := loads()) else {})


def make_environment(folder: Path) -> Path:
    """Make a virtual environment where it is missing; return its Python."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    return python


def pip_install(python: Path) -> list[str]:
    """The start of an installation by pip."""
    return [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def clone_steps(repository: str, scratch: Path) -> dict[str, dict[str, float]]:
    """What a newcomer waits for, from the clone of a repository to the first figures."""
    clone, python = scratch / "clone", make_environment(scratch / "clone-venv")
    words = {
        "clone": ["git", "clone", "--quiet", str(Path(repository).resolve()), str(clone)],
        "install": [*pip_install(python), "-e", str(clone)],
        "first_figure": [str(python), *PREVIEW],
        "second_figure": [str(python), *PREVIEW],
    }
    return {name: spent(command, scratch) for name, command in words.items()}


def closure(name: str, packages: dict[str, Any]) -> set[str]:
    """A package and all that it needs."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = normal(waiting.pop())
        if one in packages and one not in found:
            found.add(one)
            waiting += packages[one]["needs"]
    return found


def megabytes(names: Iterable[str], packages: dict[str, Any]) -> float:
    """The size of packages on the disk in MB."""
    return round(sum(packages[name]["bytes"] for name in names) / 1e6, 1)


def import_seconds(python: Path, module: str, folder: Path) -> float:
    """Processor time of an import beyond that of an empty process, the least of `ROUNDS`."""
    code = f"import {module}" if module else ""
    return min(spent([str(python), "-c", code], folder)["cpu_seconds"] for _ in range(ROUNDS))


def clock(step: dict[str, float]) -> str:
    """A time as the clock and as the processor saw it."""
    load = f", load {step['load']:.1f}" if "load" in step else ""
    return f"{step['wall_seconds']:.0f} s ({step['cpu_seconds']:.0f} s of the processor{load})"


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    total, job, machine = result["total"], result["main_command"], result["environment"]
    built = f", its source archive {result['sdist_kb']:,.0f} kB" if result["sdist_kb"] else ""
    lines = [
        f"`pip install augkit` brings {total['packages']} packages, {total['mb']:,.0f} MB on the disk, of which torch",
        f"and what it needs are {total['torch_mb']:,.0f} MB. augkit's wheel has {result['wheel_kb']:,.0f} kB{built}.",
        f"The main command, `python {' '.join(MAIN)}`, ran from an empty folder in {job['cpu_seconds']:.0f} s of the",
        f"processor. `import augkit` takes {result['imports']['augkit']:.2f} s.",
    ]
    if result["clone"]:
        steps = result["clone"]
        lines += [
            f"In a clone, `pip install -e .` took {clock(steps['install'])}, and",
            f"`augkit preview`, which draws the first figures, {clock(steps['first_figure'])}, the second",
            f"time {clock(steps['second_figure'])}.",
        ]
    lines += [
        "",
        "| hard dependency | version | packages | MB | MB that it alone brings | import, s |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in result["dependencies"]:
        cells = [f"{row['packages']}", f"{row['mb']:,.1f}", f"{row['alone_mb']:,.1f}", f"{row['import_seconds']:.2f}"]
        lines.append(f"| {row['name']} | {row['version']} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Seconds are of the processor; {machine['processor']}, Python {machine['python']}, {machine['date']}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Install, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--environment", type=Path, metavar="DIR", help="folder of the environment (default: a new one)"
    )
    parser.add_argument("--clone", metavar="REPOSITORY", help="also time a clone of this Git repository")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "install.json")
    options = parser.parse_args()
    machine = environment("cpu", ())
    with tempfile.TemporaryDirectory(prefix="augkit-install-") as scratch:
        folder = Path(scratch) / "empty"
        folder.mkdir()
        python = make_environment((options.environment or Path(scratch) / "venv").resolve())
        installed = spent([*pip_install(python), str(options.wheel.resolve())], folder)
        job = spent([str(python), *MAIN, "--quiet"], folder)
        found = json.loads(subprocess.check_output([python, "-c", PROBE], cwd=folder, encoding="utf-8"))
        packages = {normal(name): value for name, value in found.items() if normal(name) not in ("pip", "setuptools")}
        hard = sorted({normal(name) for name in packages["augkit"]["needs"]} & set(packages))
        bare = import_seconds(python, "", folder)
        whole = closure("augkit", packages)
        rows = []
        for name in hard:
            own = closure(name, packages)
            others = set().union(*(closure(other, packages) for other in hard if other != name))
            seconds = import_seconds(python, IMPORTED.get(name, name), folder) - bare
            row = {"name": name, "version": packages[name]["version"], "packages": len(own)}
            row |= {"mb": megabytes(own, packages), "alone_mb": megabytes(own - others, packages)}
            rows.append(row | {"import_seconds": round(max(0.0, seconds), 2)})
        imports = {name: round(max(0.0, import_seconds(python, name, folder) - bare), 2) for name in STARTS}
        clone = clone_steps(options.clone, Path(scratch)) if options.clone else None
    archives = list(options.wheel.parent.glob("augkit-*.tar.gz"))
    result = {
        "wheel_kb": round(options.wheel.stat().st_size / 1e3, 1),
        "sdist_kb": round(archives[0].stat().st_size / 1e3, 1) if archives else None,
        "install": installed,
        "main_command": job,
        "clone": clone,
        "total": {
            "packages": len(whole),
            "mb": megabytes(whole, packages),
            "torch_mb": megabytes(closure("torch", packages), packages),
        },
        "dependencies": sorted(rows, key=lambda row: -row["alone_mb"]),
        "imports": imports,
        "environment": machine,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
