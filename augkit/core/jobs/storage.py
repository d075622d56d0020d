"""Where a study is kept: a journal file, a database, or a proxy; opened so that it outlives what happens to it."""

from __future__ import annotations

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

LOCKED = 30  # seconds without a line, after which a journal's lock is taken over
ANSWER = 10.0  # seconds in which a proxy is to answer
ATTEMPTS = 6  # to open a database that others open too


@dataclass(frozen=True)
class Storage:
    """Where an Optuna study is kept.

    Attributes:
        kind: of storage.
        url: of a database or a proxy; the path of a journal.
    """

    kind: Literal["journal", "database", "proxy"]
    url: str

    @classmethod
    def parse(cls, text: str | Path | Storage) -> Storage:
        """Read what ``--storage`` takes: a path, ``grpc://host:port``, or the URL of a database.

        Raises:
            InputError: no database has such a URL.
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
        """Whether it is a journal that lies in a folder."""
        return self.kind == "journal" and folder.resolve() in Path(self.url).resolve().parents

    def __str__(self) -> str:
        return self.url


def without_password(text: str) -> str:
    """A text in which no URL shows its password."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", text)


def open_storage(
    storage: str | Path | Storage, *, grace: float = 120.0, say: Callable[[str], None] = lambda text: None
) -> BaseStorage:
    """Open a journal file, a database, or a proxy.

    Args:
        storage: where; see `Storage.parse`.
        grace: seconds without a heartbeat after which a worker is taken for dead; a lock on a journal that was left
            behind is taken over after half of it, `LOCKED` at most.
        say: takes a line about what had to be repaired or waited for.

    Raises:
        InputError: it cannot be reached or read.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    where = Storage.parse(storage)
    path = Path(where.url)
    if where.kind == "journal" and not path.parent.is_dir():
        raise InputError(f"storage '{path}': expected a file in a folder that exists, there is no '{path.parent}'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if where.kind == "journal":
                return open_journal(path, max(3, min(LOCKED, int(grace / 2))), say)
            return _open_proxy(where.url) if where.kind == "proxy" else _open_database(where.url)
    except InputError:
        raise
    except Exception as error:  # each driver, and a file that is no journal, has its own kinds
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

    attempt = 1
    while True:
        try:
            return PatientDatabase(url, engine_kwargs={"pool_pre_ping": True})
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            # Another host makes the tables of an empty database at the same moment.
            if attempt == ATTEMPTS:
                raise
        time.sleep(0.5 * attempt)
        attempt += 1
