"""Where a study is kept: a journal file, a database, or a proxy; opened so that it outlives what happens to it.

A journal is repaired before every write, since a writer that was killed leaves half a line, after which Optuna could
not load the study. A database may restart: its operations are tried again for `PATIENCE` seconds. Optuna's heartbeat
tells when the host of a trial has died.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

from augkit.core.errors import AugkitError, InputError
from augkit.core.jobs.liveness import Heartbeats
from augkit.core.jobs.retry import Retry

BEGIN = b'{"op_code"'  # of every line of a journal
HEARTBEAT = 30  # seconds
LOCKED = 30  # seconds without a line, after which a journal's lock is taken over
ANSWER = 10.0  # seconds in which a proxy is to answer
ATTEMPTS = 6  # to open a database that others open too
PATIENCE = 300.0  # seconds that a database may be away
OPERATIONS = (
    "create_new_trial",
    "_create_new_trial",
    "get_study_id_from_name",
    "get_all_trials",
    "get_study_user_attrs",
    "get_study_system_attrs",
    "get_trial",
    "record_heartbeat",
    "set_study_user_attr",
    "set_study_system_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "_set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
    "_get_stale_trial_ids",
    "_get_trials",
)


def open_storage(
    storage: str | Path, *, retries: int = 1, grace: float = 120.0, say: Callable[[str], None] = lambda text: None
) -> BaseStorage:
    """Open a journal file (a path), ``grpc://host:port``, or a database by its URL.

    Args:
        storage: where.
        retries: how often a trial is run again whose worker died.
        grace: seconds without a heartbeat after which a worker on another host is taken for dead; a journal has none,
            but a lock on it that was left behind is taken over after half of it, `LOCKED` at most.
        say: takes a line about what had to be repaired or waited for.

    Raises:
        InputError: it cannot be reached or read.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    with storage_errors(storage), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if str(storage).startswith("grpc://"):
            place = urlsplit(str(storage))
            proxy = PatientProxy(host=place.hostname or "localhost", port=place.port or 13000)
            proxy.heartbeats = Heartbeats(grace, retries)
            proxy.wait_server_ready(timeout=ANSWER)
            return proxy
        if "://" in str(storage):
            return _open_database(str(storage), retries, grace)
        path = Path(storage)
        if not path.parent.is_dir():
            raise InputError(f"storage '{path}': expected a file in a folder that exists, there is no '{path.parent}'")
        return _open_journal(path, max(3, min(LOCKED, int(grace / 2))), say)


def _open_journal(path: Path, patience: int, say: Callable[[str], None]) -> JournalStorage:
    """Read a journal, which must be whole, then cut off a last line that is torn; nothing else of it is changed."""
    if os.path.lexists(f"{path}.lock"):
        say(f"'{path.name}' is locked; a lock that was left behind is taken over after {patience} s")
    head = path.read_bytes()[: len(BEGIN)] if path.is_file() else b""
    if not BEGIN.startswith(head):
        raise ValueError("it is another file")  # of which a repair would cut the last line off
    # Absolute, since the lock is a link to it; taken over from a dead holder before its worker is taken for silent.
    file_path = str(path.resolve())
    journal = Journal(file_path, _lock(file_path, patience))
    try:
        storage = JournalStorage(journal)
        journal.refuse_damaged_end()
    except StorageLostError as error:
        raise InputError(str(error)) from None
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
    ):  # a line that is JSON, and no operation that can follow
        raise InputError(str(damaged(file_path, journal.line))) from None
    if journal.mend():
        say(f"'{path.name}' ended in a torn line, which is cut off")
    return storage


def _lock(file_path: str, patience: int) -> JournalFileSymlinkLock | JournalFileOpenLock:
    """Optuna's lock by a symbolic link, or by a file where links cannot be made; either of them respects the other."""
    probe = f"{file_path}.{os.getpid()}.partial"
    try:
        os.symlink(file_path, probe)
        os.unlink(probe)
    except OSError:  # Windows without the privilege, and some mounted file systems
        return JournalFileOpenLock(file_path, grace_period=patience)
    return JournalFileSymlinkLock(file_path, grace_period=patience)


def _open_database(url: str, retries: int, grace: float) -> PatientDatabase:
    import sqlalchemy.exc

    for attempt in range(ATTEMPTS):
        try:
            return PatientDatabase(
                url,
                engine_kwargs={"pool_pre_ping": True},
                heartbeat_interval=max(1, min(HEARTBEAT, int(grace / 4))),
                grace_period=max(1, int(grace)),
                heartbeat_stale_trial_callback=Retry(retries),
            )
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            # Another host makes the tables of an empty database at the same moment.
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.5 * (attempt + 1))
    raise AssertionError


def is_sqlite(storage: str | Path) -> bool:
    """Whether it is a SQLite database, which several processes must not write to."""
    return str(storage).startswith("sqlite")


@contextlib.contextmanager
def storage_errors(storage: str | Path) -> Iterator[None]:
    """What a driver raises, as one line without the password."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each driver, and a file that is no journal, has its own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        word = "reached" if "://" in str(storage) else "read as a journal"
        shown = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", f"storage '{storage}': cannot be {word} ({reason[:160]})")
        raise InputError(shown) from None


class StorageLostError(AugkitError):
    """A study that cannot be written to any more; no trial of it failed."""


def damaged(path: str, number: int) -> StorageLostError:
    """The error of a journal whose line ``number``, from 1, cannot be read."""
    with open(path, "rb") as file:
        line = next(itertools.islice(file, number - 1, None), b"")
    if not line.strip():
        what, remedy = "is empty", f"take it out: sed -i {number}d '{path}'"
    else:
        what = "is no operation of Optuna's"
        remedy = f"the lines before it are a whole journal: head -n {number - 1} '{path}' > mended.journal"
    return StorageLostError(f"storage '{path}': line {number} {what}; nothing was changed; {remedy}")


class Journal(JournalFileBackend):
    """A journal file whose torn last line is cut off before the next line is written.

    Attributes:
        line: how many lines were read.
    """

    line = 0

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The operations from a number on; raises StorageLostError where a line among them cannot be read."""
        self.line = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                self.line += 1
                yield log
        except ValueError:
            raise damaged(self._file_path, self.line + 1) from None

    def refuse_damaged_end(self) -> None:
        """Optuna passes over a last line that is whole and cannot be read, until another follows it."""
        with open(self._file_path, "rb") as file:
            rest = next(itertools.islice(file, self.line, None), b"")
        if rest.endswith(b"\n"):
            try:
                json.loads(rest)  # somebody may just have written it
            except ValueError:
                raise damaged(self._file_path, self.line + 1) from None

    def mend(self) -> bool:
        """`repair` under the lock, which is waited for only where the last line has no end."""
        if not self._torn():
            return False
        with self._locked():  # somebody may just be writing that line
            return self.repair()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; a signal that interrupts taking or releasing it is raised as itself.

        Optuna's lock cleans up after a signal; where the signal came just after the file was gone, that fails, and the
        error of the cleaning ("No such file", "did not possess lock") would be reported as a full disk.
        """
        handled = sys.exc_info()[1]
        try:
            self._lock.acquire()
            try:
                yield
            finally:
                self._lock.release()
        except (OSError, RuntimeError) as error:
            cause = error.__context__
            while cause is not None and cause is not handled:
                if not isinstance(cause, Exception):
                    raise cause from None
                cause = cause.__context__
            raise

    def repair(self) -> bool:
        """Cut a last line that has no end; only while nobody writes."""
        if not self._torn():
            return False
        with open(self._file_path, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def _torn(self) -> bool:
        with open(self._file_path, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append under the lock, after a repair."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with self._locked():
                self.repair()
                with open(self._file_path, "ab") as file:
                    file.write(lines.encode())
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.repair()  # half a line may have found room
            reason = error.strerror or error
            raise StorageLostError(
                f"cannot write '{self._file_path}' ({reason}); what was there before is intact"
            ) from None


class PatientDatabase(RDBStorage):
    """A database that may restart while it is used."""


class PatientProxy(GrpcStorageProxy):
    """A proxy that may restart while it is used; a dead one shows as an UnboundLocalError."""

    heartbeats: Heartbeats


def _patient(method: Callable[..., Any], name: str, passing: Callable[[], tuple[type[Exception], ...]]) -> Any:
    @functools.wraps(method)
    def call(self: Any, *values: Any, **named: Any) -> Any:
        until, pause, again = time.monotonic() + PATIENCE, 0.2, False
        while True:
            try:
                return method(self, *values, **named)
            except UpdateFinishedTrialError:
                # Our first attempt may have arrived, and its answer not.
                wanted = named.get("state", values[1] if len(values) > 1 else None)
                if again and name == "set_trial_state_values" and self.get_trial(values[0]).state == wanted:
                    return True
                raise
            except passing() as error:
                if time.monotonic() > until:
                    raise StorageInternalError(f"the storage did not come back within {PATIENCE:.0f} s") from error
            again = True
            time.sleep(pause)
            pause = min(2 * pause, 10.0)

    return call


def _of_databases() -> tuple[type[Exception], ...]:
    import sqlalchemy.exc

    return sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, StorageInternalError


def _of_proxies() -> tuple[type[Exception], ...]:
    import grpc  # type: ignore[import-untyped, unused-ignore]

    return grpc.RpcError, UnboundLocalError


for _class, _errors in ((PatientDatabase, _of_databases), (PatientProxy, _of_proxies)):
    for _name in OPERATIONS:
        if hasattr(_class, _name):
            setattr(_class, _name, _patient(getattr(_class, _name), _name, _errors))


def is_remote(storage: str | None) -> bool:
    """Whether other hosts may work on the same study."""
    return storage is not None and "://" in storage and not is_sqlite(storage)
