"""A study's journal file: repaired before every write, and refused in one line where it is damaged.

A writer that was killed leaves half a line, after which Optuna could not load the study.
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

BEGIN = b'{"op_code"'  # of every line of a journal


Lock = JournalFileSymlinkLock | JournalFileOpenLock


def open_journal(path: Path, patience: int, say: Callable[[str], None]) -> JournalStorage:
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
    except (LookupError, TypeError, ValueError, AttributeError):
        # A line that is JSON, but no operation that can follow.
        raise InputError(str(damaged(file_path, journal.line))) from None
    if journal.mend():
        say(f"'{path.name}' ended in a torn line, which is cut off")
    return storage


def _lock(file_path: str, patience: int) -> Lock:
    """Optuna's lock by a symbolic link, or by a file where links cannot be made; either of them respects the other."""
    probe = f"{file_path}.{os.getpid()}.partial"
    try:
        os.symlink(file_path, probe)
        os.unlink(probe)
    except OSError:  # Windows without the privilege, and some mounted file systems
        return JournalFileOpenLock(file_path, grace_period=patience)
    return JournalFileSymlinkLock(file_path, grace_period=patience)


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
        path: of the file.
        lock: held by the process that writes.
        line: how many lines were read.
    """

    line = 0

    def __init__(self, path: str, lock: Lock | None = None) -> None:
        self.path, self.lock = path, lock or JournalFileSymlinkLock(path)
        super().__init__(path, self.lock)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The operations from a number on; raises StorageLostError where a line among them cannot be read."""
        self.line = log_number_from
        try:
            for log in super().read_logs(log_number_from):
                self.line += 1
                yield log
        except ValueError:
            raise damaged(self.path, self.line + 1) from None

    def refuse_damaged_end(self) -> None:
        """Optuna passes over a last line that is whole and cannot be read, until another follows it."""
        with open(self.path, "rb") as file:
            rest = next(itertools.islice(file, self.line, None), b"")
        if rest.endswith(b"\n"):
            try:
                json.loads(rest)  # another process may just have written it
            except ValueError:
                raise damaged(self.path, self.line + 1) from None

    def mend(self) -> bool:
        """`repair` under the lock, which is waited for only where the last line has no end."""
        if not self._torn():
            return False
        with self._locked():  # another process may just be writing that line
            return self.repair()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; a signal that interrupts taking or releasing it is raised as itself.

        Optuna's lock cleans up after a signal; where the signal came just after the file was gone, that fails, and the
        error of the cleaning ("No such file", "did not possess lock") would be reported as a full disk.
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
        """Cut a last line that has no end; only while no other process writes."""
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
                with open(self.path, "ab") as file:
                    file.write(lines.encode())
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self.repair()  # half a line may have found room
            reason = error.strerror or error
            raise StorageLostError(f"cannot write '{self.path}' ({reason}); what was there before is intact") from None
