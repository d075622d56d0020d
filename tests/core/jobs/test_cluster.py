"""Real processes on one search: after any fault nothing is lost, nothing runs twice, and the total is exact."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from hosts import (
    GRACE,
    ONE_THREAD,
    PATIENCE,
    Postgres,
    Team,
    on_host,
    opened,
    tally,
    wait,
    workers_of,
)
from optuna.trial import TrialState

from augkit.tune import optuna_study

pytestmark = pytest.mark.cluster


@pytest.mark.slow
def test_four_workers_on_two_hosts_run_sixty_trials_once_each(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "augkit.tune", str(recipe), "train.epochs=2", "--trials", "60", "--seeds", "1"]
    command += ["--top", "1", "--storage", postgres.url, "--study", "team", "--device", "cpu", "--grace", "60"]
    team = [
        on_host(f"host-{'ab'[k % 2]}", [*command, "--output", str(tmp_path / f"out{k}")], tmp_path / f"worker{k}.log")
        for k in range(4)
    ]
    for worker in team:
        assert worker.wait(PATIENCE) == 0, "\n".join(p.read_text()[-800:] for p in tmp_path.glob("worker*.log"))
    study = optuna.load_study(storage=opened(postgres.url), study_name="team")
    tally(study, 60, "none: 4 workers on 2 hosts ask at once", "one made the study, three joined it")
    hosts = {trial.user_attrs["worker"].split(":")[0] for trial in optuna_study.completed(study)}
    helpers = {trial.user_attrs["worker"] for trial in optuna_study.completed(study)}
    assert len(helpers) >= 2
    assert len(hosts) == 2 or hosts == {socket.gethostname()}
    reports = [folder / "report.html" for folder in tmp_path.glob("out*")]
    assert sum(report.is_file() for report in reports) == 1, "the command that made the study does the final runs"
    said = "".join(path.read_text() for path in tmp_path.glob("worker*.log"))
    assert said.count("helped with study 'team': 60 trials have finished") == 3


def test_a_worker_killed_in_a_trial(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    team = Team(postgres.url, recipe, tmp_path, 12)
    first, number = team.add_and_stop(0)
    team.add(1)
    first.kill()
    first.wait()
    team.finish(dead=(first,))
    row = tally(team.study, 12, "SIGKILL of a worker in a trial", "its heartbeat stopped; another worker ran the trial")
    assert row["run_again"] >= 1  # on a busy machine a living worker may be late with a heartbeat too
    assert team.study.trials[number].state == TrialState.FAIL


@pytest.mark.slow
def test_a_worker_stopped_past_its_grace_and_woken(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    team = Team(postgres.url, recipe, tmp_path, 12)
    first, number = team.add_and_stop(0)
    team.add(1)
    state = [TrialState.RUNNING]
    wait(lambda: team.study.trials[number].state != state[0] or None, "verdict on the sleeper")
    first.send_signal(signal.SIGCONT)
    team.finish()
    assert f"trial {number} was taken over while this worker slept" in team.logs()
    row = tally(
        team.study, 12, "SIGSTOP past the grace period, then SIGCONT", "its trial was taken over, its result dropped"
    )
    assert row["run_again"] >= 1  # on a busy machine a living worker may be late with a heartbeat too


@pytest.mark.slow
def test_the_database_restarts_in_a_trial(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    team = Team(postgres.url, recipe, tmp_path, 14, grace=60)
    workers = [team.add(k) for k in range(2)]
    for _ in range(2):
        team.wait_for_trial(*workers)
        postgres.stop()
        time.sleep(2)
        postgres.start()
    team.finish()
    row = tally(team.study, 14, "PostgreSQL stopped for 2 s in trials, twice", "workers waited and went on")
    assert row["run_again"] == 0, "a restart costs nobody a trial"


def local(recipe: Path, folder: Path, *words: str) -> list[str]:
    command = [
        sys.executable,
        "-m",
        "augkit.tune",
        str(recipe),
        "--trials",
        "10",
        "--rungs",
        "none",
        "--seeds",
        "1",
        "--top",
        "1",
    ]
    return [*command, "--trial-epochs", "6", "--workers", "2", "--device", "cpu", "--output", str(folder), *words]


def resumed(recipe: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = local(recipe, folder, "--resume")
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)


def finished_in(folder: Path) -> int:
    journal = folder / "study.journal"
    return journal.read_bytes().count(b'"state":1') if journal.is_file() else 0


def started(recipe: Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(local(recipe, folder), stdout=file, stderr=file, env=ONE_THREAD)


@pytest.mark.slow
def test_a_local_worker_is_killed_and_one_hangs(recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    with log.open("ab") as file:
        parent = subprocess.Popen(
            local(recipe, folder, "--grace", str(GRACE)), stdout=file, stderr=file, env=ONE_THREAD
        )
    wait(lambda: finished_in(folder) >= 2 or None, "second trial")
    os.kill(workers_of(parent.pid)[0], signal.SIGKILL)
    wait(lambda: "died (SIGKILL)" in log.read_text() or None, "word on the killed worker")
    wait(lambda: len(workers_of(parent.pid)) == 2 or None, "worker in its place")
    wait(lambda: finished_in(folder) >= 4 or None, "fourth trial")
    os.kill(workers_of(parent.pid)[-1], signal.SIGSTOP)
    assert parent.wait(PATIENCE) == 0, log.read_text()[-2000:]
    assert "has been silent for" in log.read_text()
    study = optuna.load_study(storage=opened(folder / "study.journal"), study_name="augkit")
    tally(
        study, 10, "SIGKILL of a local worker, SIGSTOP of another", "the parent ran their trials again in new workers"
    )
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_the_parent_is_killed_and_resumed_with_a_torn_journal(recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    parent = started(recipe, folder, log)
    wait(lambda: finished_in(folder) >= 3 or None, "third trial")
    children = workers_of(parent.pid)
    assert len(children) == 2
    parent.kill()
    parent.wait()
    wait(lambda: not workers_of(parent.pid) or None, "end of its workers")
    journal = folder / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":6,"worker_id":"x","trial')
    done = resumed(recipe, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "ended in a torn line, which was removed" in done.stderr
    study = optuna.load_study(storage=opened(journal), study_name="augkit")
    tally(
        study, 10, "SIGKILL of the parent, journal torn in a line, resumed", "workers handed back, the line was cut off"
    )


@pytest.mark.slow
def test_the_disk_is_full(recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        parent = started(recipe, folder, log)
        wait(lambda: finished_in(folder) >= 2 or None, "second trial")
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 512)
                file.flush()
        code = parent.wait(PATIENCE)
        said = log.read_text()
        assert code == 1, said[-2000:]
        assert "Traceback" not in said
        assert "No space left on device" in said
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        done = resumed(recipe, folder)
        assert done.returncode == 0, done.stderr[-2000:]
        study = optuna.load_study(storage=opened(folder / "study.journal"), study_name="augkit")
        tally(study, 10, "disk full in trials, then resumed", "one line, exit code 1; nothing written was lost")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_ray_starts_workers(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "augkit.tune", str(recipe), "train.epochs=2", "--trials", "4", "--seeds", "1"]
    command += ["--top", "1", "--storage", postgres.url, "--study", "ray", "--launcher", "ray", "--workers", "2"]
    command += ["--output", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    study = optuna.load_study(storage=opened(postgres.url), study_name="ray")
    tally(study, 4, "none: 2 workers started by Ray", "both worked on the study")


@pytest.mark.slow
def test_a_study_behind_a_grpc_proxy(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import optuna; from augkit.core.jobs.storage import open_storage;"
        f"optuna.storages.run_grpc_proxy_server(open_storage('{postgres.url}'), host='127.0.0.1', port={port})"
    )
    server = on_host("proxy", [sys.executable, "-W", "ignore", "-c", code], tmp_path / "proxy.log")

    def answers() -> bool | None:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", port)) == 0 or None

    wait(answers, "answer of the proxy")
    team = Team(f"grpc://127.0.0.1:{port}", recipe, tmp_path, 6)
    for k in range(2):
        team.add(k)
    team.finish()
    tally(team.study, 6, "none: 2 workers behind a gRPC proxy", "both worked on the study")
    (tmp_path / "again").mkdir()
    team = Team(f"grpc://127.0.0.1:{port}", recipe, tmp_path / "again", 6, name="again")
    first, _ = team.add_and_stop(0)
    team.add(1)
    first.kill()
    first.wait()
    team.finish(dead=(first,))
    row = tally(team.study, 6, "SIGKILL of a worker behind a gRPC proxy", "it showed no life; another ran the trial")
    assert row["run_again"] >= 1  # on a busy machine a living worker may be late with a heartbeat too
    server.kill()


@pytest.mark.slow
def test_a_trial_is_a_torchrun_job(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-m", "augkit.tune", str(recipe), "train.epochs=2", "--trials", "3", "--seeds", "1"]
    command += ["--top", "1", "--nproc-per-trial", "2", "--keep-trials", "--objective", "accuracy", "--device", "cpu"]
    command += ["--at-least-invariance", "0", "--trial-epochs", "2", "--output", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    kept = sorted((folder / "trials").iterdir())
    assert [path.name for path in kept] == ["augkit-1", "augkit-2", "augkit-3"], "keyed by study and trial"
    rows = [json.loads(line) for line in (kept[0] / "metrics.jsonl").read_text().splitlines()]
    study = optuna.load_study(storage=opened(folder / "study.journal"), study_name="augkit")
    assert study.trials[1].intermediate_values == {row["epoch"]: row["validation_accuracy"] for row in rows}
    tally(study, 3, "none: a trial is a torchrun job of 2 processes", "one of them talked to the study")
