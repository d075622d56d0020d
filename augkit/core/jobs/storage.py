"""The storage of an Optuna study: a journal file, a database, or a gRPC proxy."""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage

from augkit.core.errors import InputError
from augkit.core.jobs.journal import open_journal
from augkit.core.jobs.optuna_private import PatientDatabase, PatientProxy

LOCKED = 30  # seconds without a new line after which the lock of a journal is taken over
ANSWER = 10.0  # seconds that a proxy has to answer
ATTEMPTS = 6  # attempts to open a database that other hosts open too


@dataclass(frozen=True)
class Storage:
    """The kind and address of a storage.

    Attributes:
        kind: kind of storage.
        url: URL of a database or proxy, or path of a journal.
    """

    kind: Literal["journal", "database", "proxy"]
    url: str

    @classmethod
    def parse(cls, text: str | Path | Storage) -> Storage:
        """Parse the value of ``--storage``: a path, ``grpc://host:port``, or the URL of a database.

        Raises:
            InputError: the URL is not that of a known database.
        """
        if isinstance(text, Storage):
            return text
        url = str(text)
        if url.startswith("grpc://"):
            return cls("proxy", url)
        if "://" not in url:
            return cls("journal", url)
        from sqlalchemy.dialects import registry
        from sqlalchemy.exc import NoSuchModuleError

        try:
            registry.load(url.partition("://")[0].partition("+")[0])
        except NoSuchModuleError:
            expected = "a path, grpc://host:port, or a URL such as postgresql+psycopg://me@host/studies"
            raise InputError(f"storage '{without_password(url)}': expected {expected}") from None
        return cls("database", url)

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a SQLite database, which several processes must not write to."""
        return self.kind == "database" and self.url.startswith("sqlite")

    @property
    def is_remote(self) -> bool:
        """Whether other hosts may work on the same study."""
        return self.kind != "journal" and not self.is_sqlite

    def is_inside(self, folder: Path) -> bool:
        """Whether it is a journal within a folder."""
        # `Path.resolve` raises RuntimeError for links in a circle.
        return self.kind == "journal" and Path(os.path.realpath(folder)) in Path(os.path.realpath(self.url)).parents

    def __str__(self) -> str:
        return self.url


def without_password(text: str) -> str:
    """Replace the passwords of all URLs in a text."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", text)


def open_storage(
    storage: str | Path | Storage, *, grace: float = 120.0, say: Callable[[str], None] = lambda text: None
) -> BaseStorage:
    """Open a journal file, a database, or a proxy.

    Args:
        storage: storage, or text for `Storage.parse`.
        grace: seconds without a heartbeat after which a worker counts as dead; an abandoned lock of a journal is taken
            over after half of it, but after at most `LOCKED` seconds.
        say: called with a line about a repair or an abandoned lock.

    Raises:
        InputError: the storage cannot be reached or read.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    where = Storage.parse(storage)
    path = Path(where.url)
    if where.kind == "journal" and not path.parent.is_dir():
        raise InputError(f"storage '{path}': expected a file in a folder that exists, there is no '{path.parent}'")
    try:
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            if where.kind == "journal":
                return open_journal(path, max(3, min(LOCKED, int(grace / 2))), say)
            return _open_proxy(where.url) if where.kind == "proxy" else _open_database(where.url)
    except InputError:
        raise
    except Exception as error:  # each driver has its own errors, and so has a file that is not a journal
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        word = "read as a journal" if where.kind == "journal" else "reached"
        raise InputError(without_password(f"storage '{where}': cannot be {word} ({reason[:160]})")) from None


def _open_proxy(url: str) -> PatientProxy:
    address = urlsplit(url)
    proxy = PatientProxy(host=address.hostname or "localhost", port=address.port or 13000)
    proxy.wait_server_ready(timeout=ANSWER)
    return proxy


def _open_database(url: str) -> PatientDatabase:
    import sqlalchemy.exc

    for attempt in range(1, ATTEMPTS):
        # It fails while another host creates the tables of an empty database.
        with contextlib.suppress(sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            return PatientDatabase(url, engine_kwargs={"pool_pre_ping": True})
        time.sleep(0.5 * attempt)
    return PatientDatabase(url, engine_kwargs={"pool_pre_ping": True})
