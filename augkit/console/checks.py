"""What `augkit doctor` checks: libraries, devices, backends, storages, memory and extras."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

from augkit.core.records import Record

# Import names that differ; a test compares with what every hard dependency installs.
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
FOR_DEVELOPERS = ("docs", "fast", "test")  # extras of a checkout, and one kept for old install lines
TRIALS = 3  # written by each of two threads


@dataclass(frozen=True)
class Check(Record):
    """The result of one check.

    Attributes:
        group: what is checked, such as ``backends``.
        name: which of them.
        state: ``failed`` if it should work and does not; ``missing`` if it is optional.
        found: version, device, difference, or what went wrong.
        remedy: what to do about it, mostly a command; empty if all is well.
    """

    group: str
    name: str
    state: Literal["ok", "failed", "missing"]
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Requirement:
    """A library that augkit names: ``expected`` is the specifier, ``extra`` is empty where it is always needed."""

    name: str
    expected: str
    extra: str

    @property
    def version(self) -> str | None:
        """The installed version, or None."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return None

    @property
    def met(self) -> bool:
        """Whether a fitting version is installed."""
        from packaging.specifiers import SpecifierSet

        return self.version is not None and SpecifierSet(self.expected).contains(self.version, prereleases=True)


def requirements() -> list[Requirement]:
    """Return what the installed augkit requires on this system; nothing where it runs from a folder, not installed."""
    from packaging.requirements import Requirement as Parsed

    try:
        lines = metadata.requires("augkit") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        parsed = Parsed(line)
        marker = str(parsed.marker or "")
        extra = marker.partition("extra ==")[2].strip(" '\"") if "extra ==" in marker else ""
        if parsed.marker and not parsed.marker.evaluate({"extra": extra}):
            continue  # of another system, such as psutil on Linux
        found.append(Requirement(parsed.name.lower(), str(parsed.specifier), extra))
    return found


def libraries() -> Iterator[Check]:
    """Check that every required library has a fitting version and can be imported."""
    for required in requirements():
        if required.extra:
            continue
        name, version = required.name, required.version
        install = f"pip install '{name}{required.expected}'"
        if not required.met:
            found = "not installed" if version is None else f"{version}, expected {required.expected}"
            yield Check("libraries", name, "failed", found, install)
            continue
        try:
            import_module(IMPORTED_AS.get(name, name))
        except Exception as error:  # a library that does not fit another fails in many ways
            yield Check("libraries", name, "failed", f"{version}, cannot be imported: {one_line(error)}", install)
        else:
            yield Check("libraries", name, "ok", str(version))


def devices() -> Iterator[Check]:
    """Check that every device can add numbers."""
    import torch

    yield _device("cpu", f"{torch.get_num_threads()} threads")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    if not found:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without it"
        why = one_line(said[0].message) if said else built
        yield Check("devices", "cuda", "missing", f"none found; {why}")
    for number in range(torch.cuda.device_count() if found else 0):
        card = torch.cuda.get_device_properties(number)
        yield _device(f"cuda:{number}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        yield _device("mps", "Apple GPU")
    else:
        yield Check("devices", "mps", "missing", "none found")


def _device(name: str, found: str) -> Check:
    import torch

    try:
        right = float(torch.full((3,), 2.0, device=name).sum()) == 6
    except Exception as error:  # drivers raise many kinds
        return Check("devices", name, "failed", f"{found}: {one_line(error)}", "look at the driver and torch's build")
    return Check("devices", name, "ok" if right else "failed", found)


def backends() -> Iterator[Check]:
    """Compare every backend that resamples with a float64 reference, on every device."""
    import torch

    from augkit.augment.backends import installed
    from augkit.augment.backends.reference_check import TOLERANCE, available, largest_difference

    names = [check.name for check in devices() if check.state == "ok"]
    for device in map(torch.device, names):
        for backend in available(device):
            where = f"{backend} on {device}"
            try:
                difference = largest_difference(backend, device)
            except Exception as error:  # compilers raise many kinds
                yield Check("backends", where, "failed", one_line(error), "reinstall torch, numba or triton")
                continue
            found = f"differs by {difference:.1e} from float64, tolerance {TOLERANCE:.0e}"
            yield Check("backends", where, "ok" if difference <= TOLERANCE else "failed", found)
    if not any(name.startswith("cuda") for name in names):
        found = "installed, but no CUDA device" if installed("triton") else "not installed"
        yield Check("backends", "cuda_triton", "missing", found)


def storages() -> Iterator[Check]:
    """Check that two writers share a journal file in the folder of temporary files, and look for drivers."""
    try:
        written = _shared_journal()
    except Exception as error:  # of the file system
        yield Check("storages", "journal file", "failed", one_line(error), "name a --storage on a local disk")
    else:
        right = written == list(range(2 * TRIALS))
        found = f"{len(written)} of {2 * TRIALS} trials of two writers are kept, each once"
        yield Check("storages", "journal file", "ok" if right else "failed", found)
    for name, modules in (("postgresql", ("psycopg", "psycopg2")), ("grpc proxy", ("grpc",))):
        present = [module for module in modules if _present(module)]
        remedy = "" if present else "pip install 'augkit[cluster]'"
        found = f"driver {present[0]}" if present else "no driver"
        yield Check("storages", name, "ok" if present else "missing", found, remedy)


def _shared_journal() -> list[int]:
    """The numbers of the trials that two threads wrote to one journal, each through a storage of its own."""
    import optuna

    from augkit.core.jobs.storage import open_storage

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.journal"
        study = optuna.create_study(storage=open_storage(file), study_name="doctor")

        def add() -> None:
            own = optuna.load_study(study_name="doctor", storage=open_storage(file))
            for _ in range(TRIALS):
                own.ask()

        writers = [threading.Thread(target=add) for _ in range(2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        return [trial.number for trial in study.get_trials(deepcopy=False)]


def memory() -> Iterator[Check]:
    """Say whether freed memory is kept, see `augkit.core.allocator`."""
    from augkit.core.allocator import keep_freed_memory

    found = "freed memory is kept (glibc)" if keep_freed_memory() else "left to the system"
    yield Check("memory", "allocator", "ok", found)


def recipes() -> Iterator[Check]:
    """Check that the recipes that ship with augkit are there."""
    from augkit.train.recipe import shipped_recipes

    count = len(shipped_recipes())
    remedy = "" if count else "pip install --force-reinstall augkit"
    yield Check("package", "recipes", "ok" if count else "failed", f"{count} shipped by name", remedy)


def extras() -> Iterator[Check]:
    """List the extras, with the line that installs a missing one."""
    found: dict[str, list[Requirement]] = {}
    for required in requirements():
        if required.extra and required.extra not in FOR_DEVELOPERS:
            found.setdefault(required.extra, []).append(required)
    for extra, wanted in sorted(found.items()):
        words = [f"{one.name} {one.version or 'missing'}{'' if _fits(one) else f' ({one.expected})'}" for one in wanted]
        ready = all(one.met for one in wanted)
        install = "" if ready else f"pip install 'augkit[{extra}]'"
        yield Check("extras", extra, "ok" if ready else "missing", ", ".join(words), install)


def _fits(required: Requirement) -> bool:
    return required.version is None or required.met


def _present(module: str) -> bool:
    try:
        import_module(module)
    except Exception:  # a driver without its shared library
        return False
    return True


def one_line(error: object) -> str:
    """Return the first line of a message, or the name of the error's class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


ALL = (libraries, devices, backends, storages, memory, recipes, extras)
