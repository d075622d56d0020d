"""The journal file of a study: it is repaired before every write, and refused if it is damaged.

A killed writer may leave an incomplete last line, after which Optuna could not load the study.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalFileSymlinkLock

from augkit.core.errors import AugkitError, InputError

BEGIN = b'{"op_code"'  # start of every line of a journal


Lock = JournalFileSymlinkLock | JournalFileOpenLock


def open_journal(path: Path, patience: int, say: Callable[[str], None]) -> JournalStorage:
    """Read a journal, and remove an incomplete last line; nothing else of the file is changed.

    Args:
        path: path of the journal.
        patience: seconds after which an abandoned lock is taken over.
        say: called with a line about a lock or a repair.

    Raises:
        InputError: a line of the journal is damaged.
        ValueError: the file is not a journal.
    """
    if os.path.lexists(f"{path}.lock"):
        say(f"'{path.name}' is locked; a lock that was left behind is taken over after {patience} s")
    head = path.read_bytes()[: len(BEGIN)] if path.is_file() else b""
    if not BEGIN.startswith(head):
        raise ValueError("it is another file")  # a repair must not remove its last line
    # Absolute, because the lock is a link to it.
    file_path = os.path.realpath(path)  # unlike `Path.resolve`, no error for links in a circle
    journal = Journal(file_path, _lock(file_path, patience))
    try:
        storage = JournalStorage(journal)
        journal.refuse_damaged_end()
    except StorageLostError as error:
        raise InputError(str(error)) from None
    except (LookupError, TypeError, ValueError, AttributeError):
        # The line is JSON, but not an operation that is valid here.
        raise InputError(str(damaged(file_path, journal.line))) from None
    if journal.repair_locked():
        say(f"'{path.name}' ended in a torn line, which was removed")
    return storage


def _lock(file_path: str, patience: int) -> Lock:
    """Optuna's lock by a symbolic link, or by a file if links cannot be made; both kinds exclude each other."""
    probe = f"{file_path}.{os.getpid()}.partial"
    try:
        os.symlink(file_path, probe)
        os.unlink(probe)
    except OSError:  # Windows without the privilege, and some mounted file systems
        return JournalFileOpenLock(file_path, grace_period=patience)
    return JournalFileSymlinkLock(file_path, grace_period=patience)


class StorageLostError(AugkitError):
    """The study cannot be written any more; this is not a failure of a trial."""


def damaged(path: str, number: int) -> StorageLostError:
    """The error for a journal whose line ``number``, from 1, cannot be read."""
    with open(path, "rb") as file:
        line = next(itertools.islice(file, number - 1, None), b"")
    if not line.strip():
        what, remedy = "is empty", f"take it out: sed -i.bak {number}d '{path}'"
    else:
        what = "is no operation of Optuna's"
        remedy = f"the lines before it are a whole journal: head -n {number - 1} '{path}' > repaired.journal"
    return StorageLostError(f"storage '{path}': line {number} {what}; nothing was changed; {remedy}")


class Journal(JournalFileBackend):
    """A journal file whose incomplete last line is removed before the next line is written.

    Attributes:
        path: path of the file.
        lock: lock held by the process that writes.
        line: number of lines read.
    """

    line = 0

    def __init__(self, path: str, lock: Lock | None = None) -> None:
        self.path, self.lock = path, lock or JournalFileSymlinkLock(path)
        super().__init__(path, self.lock)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the operations from a number on; raise StorageLostError if a line cannot be read."""
        self.line = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                self.line += 1
                yield log
        except ValueError:
            raise damaged(self.path, self.line + 1) from None

    def refuse_damaged_end(self) -> None:
        """Raise StorageLostError if the last line is complete but unreadable; Optuna ignores it until one follows."""
        with open(self.path, "rb") as file:
            rest = next(itertools.islice(file, self.line, None), b"")
        if rest.endswith(b"\n"):
            try:
                json.loads(rest)  # another process may just have written it
            except ValueError:
                raise damaged(self.path, self.line + 1) from None

    def repair_locked(self) -> bool:
        """`repair` under the lock, which is only acquired if the last line is incomplete."""
        if not self._torn():
            return False
        with self._locked():  # another process may just be writing that line
            return self.repair()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; a signal that interrupts acquiring or releasing it is raised unchanged.

        Optuna's lock cleans up after a signal. If the signal came just after the file was removed, the cleanup fails,
        and its error ("No such file", "did not possess lock") would be reported as a full disk.
        """
        handled = sys.exc_info()[1]
        try:
            self.lock.acquire()
            try:
                yield
            finally:
                self.lock.release()
        except (OSError, RuntimeError) as error:
            cause = error.__context__
            while cause is not None and cause is not handled:
                if not isinstance(cause, Exception):
                    raise cause from None
                cause = cause.__context__
            raise

    def repair(self) -> bool:
        """Remove an incomplete last line; the caller holds the lock."""
        if not self._torn():
            return False
        with open(self.path, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def _torn(self) -> bool:
        """Whether the last line has no end."""
        with open(self.path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            return file.read(1) not in (b"", b"\n")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append under the lock, after a repair."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        try:
            with self._locked():
                self.repair()
                try:
                    with open(self.path, "ab") as file:
                        file.write(lines.encode())
                        file.flush()
                        os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        self.repair()  # a part of the line may have been written
                    raise
        except OSError as error:
            reason = error.strerror or error
            raise StorageLostError(f"cannot write '{self.path}' ({reason}); what was there before is intact") from None
