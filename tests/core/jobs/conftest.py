"""Fixtures of the tests of failing hosts; with AUGKIT_FAULTS=FILE they write a table of the faults."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
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
    """The faults seen, as a file."""
    yield
    if os.environ.get("AUGKIT_FAULTS"):
        from augkit.core.files import environment

        text = json.dumps({"faults": ROWS, "environment": environment()}, indent=2)
        Path(os.environ["AUGKIT_FAULTS"]).write_text(text + "\n")


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
