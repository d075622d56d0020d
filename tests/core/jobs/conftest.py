"""Fixtures of the tests of failing hosts; with AUGKIT_FAULTS=FILE they write their rows into a table of the faults."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import OPENED, RECIPE, ROWS, STARTED, Postgres
from optuna.storages import RDBStorage


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.wait()
    STARTED.clear()
    for storage in OPENED:
        if isinstance(storage, RDBStorage):
            storage.remove_session()
            storage.engine.dispose()
    OPENED.clear()


@pytest.fixture(scope="session", autouse=True)
def table() -> Iterator[None]:
    """The faults seen, as a file; rows of faults that did not run this time stay, each with the commit of its run."""
    yield
    if os.environ.get("AUGKIT_FAULTS") and ROWS:
        from augkit.core.files import environment

        # Under pytest-xdist the command line is that of a worker.
        file, here = Path(os.environ["AUGKIT_FAULTS"]), environment() | {"command": "python -m pytest -m cluster"}
        with (Path(tempfile.gettempdir()) / "augkit-faults.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # several processes of pytest-xdist may write
            rows = {row["fault"]: row for row in json.loads(file.read_text())["faults"]} if file.is_file() else {}
            rows |= {row["fault"]: row | {"commit": here["git"]["commit"]} for row in ROWS}
            file.write_text(json.dumps({"faults": list(rows.values()), "environment": here}, indent=2) + "\n")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "little.yaml"
    file.write_text(RECIPE)
    return file


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    # Not in tmp_path, because the server's user may have no access to it.
    folder = Path(f"/tmp/augkit-postgres-{os.getpid()}-{time.monotonic_ns()}")
    server = Postgres(folder)
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)
