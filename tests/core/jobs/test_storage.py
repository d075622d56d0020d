"""Storages: repair, waiting for a server, and one-line errors."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy.exc
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import TrialState
from toy import make_terms, open_toy

from augkit.core.cli import run
from augkit.core.errors import AugkitError, InputError
from augkit.core.jobs import storage as storages
from augkit.core.jobs.journal import Journal
from augkit.core.jobs.optuna_private import OPERATIONS, PatientDatabase, database_errors, wait_for_storage
from augkit.core.jobs.recovery import requeue_of
from augkit.core.jobs.storage import Storage, open_storage, without_password
from augkit.tune import optuna_study


def test_a_torn_journal_is_repaired_when_it_is_opened(tmp_path: Path) -> None:
    journal, said = tmp_path / "study.journal", []
    open_toy(journal, make_terms(), 3).run()
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker')
    open_storage(journal, say=said.append)
    assert said == ["'study.journal' ended in a torn line, which was removed"]
    assert journal.read_bytes() == whole
    assert len(optuna_study.completed(open_toy(journal, make_terms(), 3, join=True).study)) == 3


def test_a_line_torn_by_another_worker_does_not_spoil_the_next(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    worker = open_toy(journal, make_terms(), 4)
    worker.run_one()
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')  # a worker killed while it writes
    worker.run()
    assert len(optuna_study.completed(open_toy(journal, make_terms(), 4, join=True).study)) == 4
    assert b'"wor{' not in journal.read_bytes()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("links", "call"),
    [(True, call) for call in ("symlink", "rename", "unlink", "fsync")]
    + [(False, call) for call in ("close", "rename", "unlink", "fsync")],
)
def test_a_signal_during_a_journal_write_is_raised_unchanged(
    call: str, when: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's lock cleans up after a signal; if the file is gone, this fails and was reported as a full disk."""
    path = tmp_path / "study.journal"
    real = os.symlink

    def refused(*values: object, **named: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "symlink", refused)
    storage = open_storage(path)
    number = storage.create_new_study([StudyDirection.MINIMIZE], "first")
    function = getattr(os, call)

    def interrupted(*values: object, **named: object) -> None:
        if when == "after":
            function(*values, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupted)
        with pytest.raises(KeyboardInterrupt):
            storage.set_study_user_attr(number, "key", 1)
    monkeypatch.setattr(os, "symlink", real)
    path.with_name("study.journal.lock").unlink(missing_ok=True)  # else it is taken over after its patience
    again = open_storage(path)
    again.set_study_user_attr(number, "next", 2)
    assert again.get_study_user_attrs(number)["next"] == 2


@pytest.mark.parametrize("content", [b"", b"{}\n", b"{}\n{", b"{"])
def test_repair_keeps_whole_lines(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(content)
    assert Journal(str(path)).repair() == (content[-1:] not in (b"", b"\n"))
    assert path.read_bytes() == content[: content.rfind(b"\n") + 1]
    assert not Journal(str(path)).repair()


def test_a_writer_without_the_lock_changes_nothing(tmp_path: Path) -> None:
    """The torn line may be that of another process, which holds the lock and is just writing it."""

    class Refused(JournalFileSymlinkLock):
        def acquire(self) -> bool:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "j"
    path.write_bytes(b'{"op_code": 1}\n{"op_c')
    with pytest.raises(AugkitError, match="No space left"):
        Journal(str(path), Refused(str(path))).append_logs([{"op_code": 2}])
    assert path.read_bytes() == b'{"op_code": 1}\n{"op_c'


def test_a_line_that_is_being_written_is_not_cut_off(tmp_path: Path) -> None:
    journal, said = tmp_path / "study.journal", []
    open_toy(journal, make_terms(), 3).run()
    lock, opened = JournalFileSymlinkLock(str(journal)), threading.Event()
    lock.acquire()
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])

    def come() -> None:
        open_storage(journal, say=said.append)
        opened.set()

    thread = threading.Thread(target=come)
    thread.start()
    assert not opened.wait(0.3), "it waits for the writer"
    with journal.open("ab") as file:
        file.write(whole[-20:])
    lock.release()
    thread.join(timeout=60)
    assert opened.is_set()
    assert journal.read_bytes() == whole
    assert [line for line in said if "torn" in line] == []


def test_an_abandoned_lock_is_reported(tmp_path: Path) -> None:
    journal, said = tmp_path / "study.journal", []
    journal.touch()
    os.symlink(journal, f"{journal}.lock")
    open_storage(journal, say=said.append)
    assert said == ["'study.journal' is locked; a lock that was left behind is taken over after 30 s"]
    JournalFileSymlinkLock(str(journal)).release()


@pytest.mark.integration
def test_an_abandoned_lock_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a command is relative to its working directory, the target of a link to the folder of the link."""
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    worker = open_toy("runs/study.journal", make_terms(), 3)
    storage = open_storage(Path("runs/study.journal"), grace=6)
    os.symlink(tmp_path / "runs" / "study.journal", "runs/study.journal.lock")
    began = time.monotonic()
    storage.create_new_study([StudyDirection.MAXIMIZE], "another")
    assert 2.5 < time.monotonic() - began < 60
    worker.run()


def no_links(*paths: object, **named: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.integration
def test_a_journal_where_no_symbolic_link_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "symlink", no_links)
    journal, said = tmp_path / "study.journal", []
    first = open_toy(journal, make_terms(), 6)
    second = open_toy(journal, make_terms(), 6, join=True, index=1)
    first.run_one()
    second.run()
    assert len(optuna_study.completed(first.study)) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]
    Path(f"{journal}.lock").touch()  # left behind by a worker that was killed
    storage = open_storage(journal, grace=6, say=said.append)
    assert said == ["'study.journal' is locked; a lock that was left behind is taken over after 3 s"]
    storage.create_new_study([StudyDirection.MAXIMIZE], "another")


def test_both_kinds_of_lock_exclude_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "study.journal"
    with_links = open_storage(journal)
    monkeypatch.setattr(os, "symlink", no_links)
    without = open_storage(journal)
    monkeypatch.undo()
    for holder, other in ((without, with_links), (with_links, without)):
        backend, done = holder._backend, threading.Event()  # type: ignore[attr-defined]
        backend.lock.acquire()
        name = f"by {type(backend.lock).__name__}"

        def make(other: BaseStorage = other, name: str = name, done: threading.Event = done) -> None:
            other.create_new_study([StudyDirection.MAXIMIZE], name)
            done.set()

        thread = threading.Thread(target=make)
        thread.start()
        assert not done.wait(0.3)
        backend.lock.release()
        thread.join(timeout=30)
        assert done.is_set()


def filled(journal: Path) -> None:
    study = optuna.create_study(storage=open_storage(journal), study_name="s")
    for _ in range(3):
        study.add_trial(optuna.trial.create_trial(value=1.0))


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (b"\n", "line 3 is empty; nothing was changed; take it out: sed -i.bak 3d '"),
        (b"  \n", "line 3 is empty"),
        (b'{"op_code": 4, "wor', "line 3 is no operation of Optuna's; nothing was changed; the lines before it are"),
        (b"\x00\xff\x00\n", "line 3 is no operation"),
        (b"{}\n", "line 3 is no operation"),
        (b"[1]\n", "line 3 is no operation"),
        (b'{"op_code":4,"worker_id":"x"}\n', "line 3 is no operation"),
    ],
)
@pytest.mark.parametrize("end", [b"", b'{"op_code": 4, "wor'])
def test_a_journal_damaged_in_its_middle_is_refused(between: bytes, message: str, end: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    filled(journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    spoilt = b"".join([*lines[:2], between, *lines[2:], end])
    journal.write_bytes(spoilt)
    with pytest.raises(InputError, match=message) as caught:
        open_storage(journal)
    assert "\n" not in str(caught.value)
    assert journal.read_bytes() == spoilt
    remedy = str(caught.value).rpartition(": ")[2]
    subprocess.run(remedy, shell=True, check=True, cwd=tmp_path)  # the remedy in the message repairs it
    repaired = tmp_path / "repaired.journal" if remedy.startswith("head") else journal
    open_storage(repaired)


@pytest.mark.parametrize("end", [b"\n", b"{\n", b"\x00\n"])
def test_a_damaged_last_line_is_refused_before_another_follows_it(end: bytes, tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    filled(journal)
    whole = journal.read_bytes()
    journal.write_bytes(whole + end)
    with pytest.raises(InputError, match=f"line {len(whole.splitlines()) + 1} is"):
        open_storage(journal)
    assert journal.read_bytes() == whole + end


def test_a_journal_damaged_during_use_gives_a_one_line_error(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    worker = open_toy(journal, make_terms(), 6)
    worker.run_one()
    count = len(journal.read_bytes().splitlines())
    with journal.open("ab") as file:
        file.write(b"\x00\x00\n")  # as after a failure of the disk
    with pytest.raises(AugkitError, match=f"line {count + 1} is no operation"):
        worker.run()


@pytest.mark.integration
def test_operations_wait_for_an_unavailable_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = open_toy(f"sqlite:///{tmp_path}/s.db", make_terms(), 3)
    failures = []
    original = PatientDatabase._get_trials.__wrapped__  # type: ignore[attr-defined]

    def fails_twice(self: PatientDatabase, *arguments: object, **named: object) -> object:
        if len(failures) < 2:
            failures.append(1)
            raise sqlalchemy.exc.OperationalError("select", {}, Exception("the database is starting up"))
        return original(self, *arguments, **named)

    patient = wait_for_storage(fails_twice, "_get_trials", database_errors)
    monkeypatch.setattr(PatientDatabase, "_get_trials", patient)
    worker.run()
    assert len(failures) == 2
    assert len(optuna_study.completed(worker.study)) == 3


def test_a_database_that_stays_away_is_one_line_and_no_failure_of_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, calls, away = f"sqlite:///{tmp_path}/s.db", list[str](), True
    worker = open_toy(url, make_terms(), 2)
    monkeypatch.setattr("augkit.core.jobs.optuna_private.PATIENCE", 0.3)

    def gone(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            if away:
                calls.append(name)
                raise sqlalchemy.exc.OperationalError("query", {}, Exception("server closed the connection"))
            return original(*values, **named)

        return wait_for_storage(call, name, database_errors)

    def work(trial: optuna.Trial) -> float:
        for name in OPERATIONS:
            if hasattr(PatientDatabase, name):
                original = getattr(PatientDatabase, name).__wrapped__
                monkeypatch.setattr(PatientDatabase, name, gone(name, original))
        trial.set_user_attr("key", 1)
        return 1.0

    monkeypatch.setattr(worker, "work", work)
    began = time.monotonic()
    assert run(lambda words: worker.run_one(), []) == 1
    said = capsys.readouterr().err
    assert said == "augkit: error: the storage did not come back within 0 s; --resume continues once it is there\n"
    assert calls.count("set_trial_user_attr") > 1
    assert calls.count("_get_trials") == 1, "it has been waited for"
    assert time.monotonic() - began < 5
    away = False
    assert requeue_of(worker.study, worker.name, 0) == []
    assert [t.state for t in worker.study.get_trials()].count(TrialState.RUNNING) == 0


@pytest.mark.integration
def test_a_lost_answer_is_not_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = open_toy(f"sqlite:///{tmp_path}/s.db", make_terms(), 2)
    original, lost = PatientDatabase.set_trial_state_values.__wrapped__, []  # type: ignore[attr-defined]

    def arrives_but_does_not_say_so(self: PatientDatabase, *arguments: object, **named: object) -> object:
        out = original(self, *arguments, **named)
        if named.get("state") == TrialState.COMPLETE and not lost:
            lost.append(1)
            raise sqlalchemy.exc.OperationalError("update", {}, Exception("server closed the connection"))
        return out

    patient = wait_for_storage(arrives_but_does_not_say_so, "set_trial_state_values", database_errors)
    monkeypatch.setattr(PatientDatabase, "set_trial_state_values", patient)
    worker.run()
    assert lost
    assert len(optuna_study.completed(worker.study)) == 2


def test_unusable_storages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no"):
        open_storage(tmp_path / "no" / "study.journal")
    with pytest.raises(InputError, match="cannot be reached") as caught:
        open_storage("postgresql+psycopg://me:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
    monkeypatch.setattr(storages, "ANSWER", 0.5)
    with pytest.raises(InputError, match=r"storage 'grpc://127.0.0.1:9': cannot be reached"):
        open_storage("grpc://127.0.0.1:9")
    (tmp_path / "text.journal").write_text("this is no journal\n")
    with pytest.raises(InputError, match="cannot be read as a journal"):
        open_storage(tmp_path / "text.journal")


@pytest.mark.parametrize(
    ("text", "kind", "remote", "shown"),
    [
        ("runs/study.journal", "journal", False, "runs/study.journal"),
        ("sqlite:///s.db", "database", False, "sqlite:///s.db"),
        ("sqlite+pysqlite:///s.db", "database", False, "sqlite+pysqlite:///s.db"),
        ("postgresql+psycopg://me:secret@host/db", "database", True, "postgresql+psycopg://me:***@host/db"),
        ("grpc://host:13000", "proxy", True, "grpc://host:13000"),
    ],
)
def test_the_kind_of_a_storage_is_parsed_from_its_text(text: str, kind: str, remote: bool, shown: str) -> None:
    storage = Storage.parse(text)
    assert (storage.kind, storage.is_remote, without_password(text), str(storage)) == (kind, remote, shown, text)
    assert storage.is_sqlite == text.startswith("sqlite")
    assert Storage.parse(storage) is storage
    assert storage.is_inside(Path("runs")) == (kind == "journal")


def test_a_url_of_no_database_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(InputError, match=r"storage 'ftp://me:\*\*\*@x/y': expected a path, grpc://host:port, or a URL"):
        Storage.parse("ftp://me:secret@x/y")
    assert Storage.parse("mysql+pymysql://me@x/y").is_remote


def test_links_in_a_circle_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="cannot be read as a journal"):
        open_storage(tmp_path / "loop")
    assert not Storage.parse(tmp_path / "loop").is_inside(tmp_path / "out")
