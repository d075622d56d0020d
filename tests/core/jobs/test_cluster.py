"""Real processes on one study, and what befalls them: nothing is lost, nothing runs twice, the total is exact.

With AUGKIT_FAULTS=FILE the table of faults is written there.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import wait_for
from augkit.tune import optuna_study
from augkit.tune.space import Space

pytestmark = pytest.mark.cluster

RECIPE = """
name: little
data: {name: digits, canvas: 16, limit: 200}
model: {name: small_cnn, width: 4}
policy: {shift: {max_pixels: 2.0}, rescale: {max_factor: 1.1, p: 0.5}}
train: {epochs: 6, batch_size: 32}
invariance: {protocol: embed, max_shift: 3.0, pairs: 1}
"""
GRACE = 6.0
PATIENCE = 600.0  # seconds for anything
ROWS: list[dict[str, Any]] = []
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
OPENED: list[BaseStorage] = []
STARTED: list[subprocess.Popen[bytes]] = []


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


def opened(place: str | Path) -> BaseStorage:
    """A storage of this process, closed at the end of the test."""
    OPENED.append(open_storage(place))
    return OPENED[-1]


@pytest.fixture(scope="module", autouse=True)
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


class Postgres:
    """A server of our own in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path("/usr/local/bin"), Path("/usr/bin")]
        found = [place for place in places if (place / "initdb").is_file() and (place / "pg_ctl").is_file()]
        if not found:
            pytest.skip("PostgreSQL is not installed")
        self.bin, self.data = found[-1], folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        folder.mkdir()
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self.call("initdb", "-D", str(self.data), "-A", "trust", "-U", "augkit", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://augkit@127.0.0.1:{self.port}/postgres"

    def call(self, name: str, *words: str) -> None:
        other = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*other, str(self.bin / name), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        log = str(self.data.parent / "log")
        options = f"-p {self.port} -k {self.data.parent}"
        self.call("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.data), "-w", "-m", "fast", "stop")


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    # Not in tmp_path: the server's user may not enter a folder of ours.
    folder = Path(f"/tmp/augkit-postgres-{os.getpid()}-{time.monotonic_ns()}")
    server = Postgres(folder)
    yield server
    with contextlib.suppress(subprocess.CalledProcessError):
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def on_host(name: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command on a host of that name (a UTS namespace), or on this one where that is not allowed."""
    probe = subprocess.run(["unshare", "--uts", "true"], check=False, capture_output=True)
    if probe.returncode == 0:
        command = ["unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh", *command]
    environment = ONE_THREAD
    with log.open("ab") as file:
        STARTED.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True))
    return STARTED[-1]


class Team:
    """A study in a database, and workers of it."""

    def __init__(
        self, url: str, recipe: Path, folder: Path, trials: int, grace: float = GRACE, name: str = "s"
    ) -> None:
        self.url, self.folder, self.grace, self.name, self.workers = url, folder, grace, name, []
        space = Space.load(recipe)
        terms = optuna_study.SearchTerms(space=space.to_dict(), epochs=6)
        self.study, _ = optuna_study.make_or_join(opened(url), name, terms, trials, join=False)

    def add(self, index: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "augkit.tune.worker", "--storage", self.url, "--study", self.name]
        command += ["--index", str(index), "--grace", str(self.grace), "--device", "cpu"]
        worker = on_host(f"host-{'ab'[index % 2]}", command, self.folder / f"worker{index}.log")
        self.workers.append(worker)
        return worker

    def running(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Trials under way in a worker, once there is one."""
        return [
            trial.number
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if f":{worker.pid}:" in trial.user_attrs.get("worker", "") and "values" in trial.user_attrs
        ]

    def stop_in_trial(self, worker: subprocess.Popen[bytes]) -> int:
        """SIGSTOP a worker in a trial that has not ended meanwhile; its number."""
        while True:
            number = self.wait_for_trial(worker)
            worker.send_signal(signal.SIGSTOP)
            time.sleep(0.2)  # for what is on its way to the database
            if self.study.trials[number].state == TrialState.RUNNING:
                return number
            worker.send_signal(signal.SIGCONT)

    def wait_for_trial(self, worker: subprocess.Popen[bytes]) -> int:
        return wait(lambda: (self.running(worker) or [None])[0], "a trial of that worker")

    def finish(self, *, dead: tuple[subprocess.Popen[bytes], ...] = ()) -> None:
        for worker in self.workers:
            if worker not in dead:
                assert worker.wait(PATIENCE) == 0, self.logs()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("worker*.log")))


def wait(ask: Callable[[], Any], what: str) -> Any:
    found = wait_for(ask, PATIENCE, pause=0.02)
    assert found is not None, f"no {what} within {PATIENCE:.0f} s"
    return found


def tally(study: optuna.Study, asked: int, fault: str, happened: str) -> dict[str, Any]:
    """What was lost and what was doubled; both must be nothing, and the total exact."""
    trials = study.get_trials(deepcopy=False)
    done = [t for t in trials if t.state == TrialState.COMPLETE and "control" not in t.user_attrs]
    trained = Counter(json.dumps(t.user_attrs["values"], sort_keys=True) for t in done if "same_as" not in t.user_attrs)
    failed = [t for t in trials if t.state == TrialState.FAIL and "values" in t.user_attrs]
    lost = [t.number for t in failed if json.dumps(t.user_attrs["values"], sort_keys=True) not in trained]
    row = {
        "fault": fault,
        "happened": happened,
        "asked": asked,
        "completed": len(done),
        "run_again": len(failed),
        "lost": len(lost),
        "doubled": sum(count - 1 for count in trained.values()),
        "left_over": sum(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials),
        "controls": sum(key.startswith("control") for key in study.user_attrs),
    }
    ROWS.append(row)
    assert row["completed"] == asked
    assert row["lost"] == row["doubled"] == row["left_over"] == 0, row
    assert row["controls"] == 1
    return row


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
    assert said.count("helped with study 'team': 60 trials are done") == 3


def test_a_worker_killed_in_a_trial(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    team = Team(postgres.url, recipe, tmp_path, 12)
    first, _ = team.add(0), team.add(1)
    number = team.stop_in_trial(first)
    first.kill()
    first.wait()
    team.finish(dead=(first,))
    row = tally(team.study, 12, "SIGKILL of a worker in a trial", "its heartbeat stopped; another worker ran the trial")
    assert row["run_again"] == 1
    assert team.study.trials[number].state == TrialState.FAIL


def test_a_worker_stopped_past_its_grace_and_woken(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    team = Team(postgres.url, recipe, tmp_path, 12)
    first, _ = team.add(0), team.add(1)
    number = team.stop_in_trial(first)
    state = [TrialState.RUNNING]
    wait(lambda: team.study.trials[number].state != state[0] or None, "verdict on the sleeper")
    first.send_signal(signal.SIGCONT)
    team.finish()
    assert f"trial {number} was taken over while this worker slept" in team.logs()
    row = tally(
        team.study, 12, "SIGSTOP past the grace period, then SIGCONT", "its trial was taken over, its result dropped"
    )
    assert row["run_again"] == 1


def test_the_database_restarts_in_a_trial(postgres: Postgres, recipe: Path, tmp_path: Path) -> None:
    team = Team(postgres.url, recipe, tmp_path, 14, grace=60)
    workers = [team.add(k) for k in range(2)]
    for _ in range(2):
        for worker in workers:
            team.wait_for_trial(worker)
        postgres.stop()
        time.sleep(2)
        postgres.start()
    team.finish()
    row = tally(team.study, 14, "PostgreSQL stopped for 2 s in trials, twice", "workers waited and went on")
    assert row["run_again"] == 0, "a restart costs nobody a trial"


def local(recipe: Path, folder: Path, *words: str) -> list[str]:
    command = [sys.executable, "-m", "augkit.tune", str(recipe), "--trials", "10", "--seeds", "1", "--top", "1"]
    return [*command, "--trial-epochs", "6", "--workers", "2", "--device", "cpu", "--output", str(folder), *words]


def workers_of(parent: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", f"augkit[a-z.]*worker .*--parent {parent}( |$)"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def resumed(recipe: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = local(recipe, folder, "--resume")
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)


def finished_in(folder: Path) -> int:
    journal = folder / "study.journal"
    return journal.read_bytes().count(b'"state":1') if journal.is_file() else 0


def started(recipe: Path, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(local(recipe, folder), stdout=file, stderr=file, env=ONE_THREAD)


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
    assert "ended in a torn line, which is cut off" in done.stderr
    study = optuna.load_study(storage=opened(journal), study_name="augkit")
    tally(
        study, 10, "SIGKILL of the parent, journal torn in a line, resumed", "workers handed back, the line was cut off"
    )


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
    first, _ = team.add(0), team.add(1)
    team.stop_in_trial(first)
    first.kill()
    first.wait()
    team.finish(dead=(first,))
    row = tally(team.study, 6, "SIGKILL of a worker behind a gRPC proxy", "it showed no life; another ran the trial")
    assert row["run_again"] == 1
    server.kill()


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


STUDY = """
name: little
recipe: {recipe}
overrides: {{train.epochs: 30}}
seeds: 4
images: 60
architectures: {{maxpool: {{model.downsample: maxpool}}, stride: {{model.downsample: stride}}}}
arms: [{{architectures: [maxpool, stride]}}]
measures: {{shift: {{pairs: 1}}}}
claims:
  - {{id: 1, name: strides, claim: They differ., source: nobody, statistic: log_variability_ratio, arm: stride+none,
     control: maxpool+none, prediction: positive}}
"""
CELLS = 8
OF_CELLS = 15.0  # seconds of grace: the first cell of a worker loads half of scipy before it shows life


@pytest.fixture
def study(recipe: Path, tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(recipe=recipe))
    return file


def comparing(study: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "augkit.compare", str(study), "--device", "cpu", *words]


def cells_done(queue: optuna.Study) -> list[FrozenTrial]:
    return queue.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def tally_cells(queue: optuna.Study, folder: Path, fault: str, happened: str) -> dict[str, Any]:
    """As `tally`, of the cells of a study, whose claims must be answered from all of them."""
    trials = [trial for trial in queue.get_trials(deepcopy=False) if "cell" in trial.user_attrs]
    counts = Counter(trial.user_attrs["cell"] for trial in trials if trial.state == TrialState.COMPLETE)
    there = [path.parent.name for path in folder.glob("cells/*/cell.json")]
    row = {
        "fault": fault,
        "happened": happened,
        "asked": CELLS,
        "completed": len(there),
        "run_again": sum(trial.state == TrialState.FAIL for trial in trials),
        "lost": CELLS - len(there),
        "doubled": sum(count - 1 for count in counts.values()),
        "left_over": sum(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials),
        "controls": 0,
    }
    ROWS.append(row)
    assert (row["completed"], row["lost"], row["doubled"], row["left_over"]) == (CELLS, 0, 0, 0), row
    results = json.loads((folder / "results.json").read_text())
    assert results["claims"][0]["n_seeds"] == 4
    assert results["cost"]["failed"] == {}
    for path in folder.glob("cells/*/metrics.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        assert epochs == list(range(1, 31)), f"{path.parent.name} was not trained to its end"
    return row


def test_three_commands_on_two_hosts_share_the_cells_of_a_study(
    postgres: Postgres, study: Path, tmp_path: Path
) -> None:
    words = ["--storage", postgres.url, "--study", "cells", "--output", str(tmp_path / "out"), "--grace", "60"]
    team = [on_host(f"host-{'ab'[k % 2]}", comparing(study, *words), tmp_path / f"worker{k}.log") for k in range(3)]
    for member in team:
        assert member.wait(PATIENCE) == 0, "\n".join(p.read_text()[-800:] for p in tmp_path.glob("worker*.log"))
    queue = optuna.load_study(storage=opened(postgres.url), study_name="cells")
    row = tally_cells(
        queue, tmp_path / "out", "none: 3 commands on 2 hosts ask for a study", "one made it, two helped with its cells"
    )
    assert row["run_again"] == 0
    said = "".join(path.read_text() for path in tmp_path.glob("worker*.log"))
    assert said.count("helped; the results will be in") == 2
    assert len({trial.user_attrs["worker"] for trial in cells_done(queue)}) >= 2


def test_a_host_dies_in_a_cell_of_a_study(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    words = ["--storage", postgres.url, "--study", "cells", "--output", str(tmp_path / "out"), "--grace", str(OF_CELLS)]
    leader = on_host("host-a", comparing(study, *words), tmp_path / "worker0.log")
    storage = opened(postgres.url)

    def load() -> optuna.Study | None:
        with contextlib.suppress(KeyError):
            queue = optuna.load_study(storage=storage, study_name="cells")
            return queue if queue.user_attrs.get("ready") else None
        return None

    queue = wait(load, "study")
    helper = on_host("host-b", comparing(study, *words), tmp_path / "worker1.log")
    (child,) = wait(lambda: workers_of(helper.pid) or None, "worker of the helper")

    def taken() -> int | None:
        running = queue.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        mine = [trial.number for trial in running if f":{child}:" in trial.user_attrs.get("worker", "")]
        return mine[0] if mine else None

    number = wait(taken, "cell of the helper")
    helper.kill()
    os.kill(child, signal.SIGKILL)
    assert leader.wait(PATIENCE) == 0, (tmp_path / "worker0.log").read_text()[-2000:]
    assert queue.trials[number].state == TrialState.FAIL
    row = tally_cells(
        queue,
        tmp_path / "out",
        "SIGKILL of a host in a cell of a study",
        "its heartbeat stopped; the other ran the cell",
    )
    assert row["run_again"] == 1


def cells_in(folder: Path) -> int:
    return len(list(folder.glob("cells/*/cell.json")))


def test_a_local_worker_of_a_study_is_killed_and_one_hangs(study: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    with log.open("ab") as file:
        command = comparing(study, "--workers", "2", "--output", str(folder), "--grace", str(OF_CELLS))
        parent = subprocess.Popen(command, stdout=file, stderr=file, env=ONE_THREAD)
    wait(lambda: cells_in(folder) >= 1 or None, "first cell")
    os.kill(workers_of(parent.pid)[0], signal.SIGKILL)
    wait(lambda: "died (SIGKILL)" in log.read_text() or None, "word on the killed worker")
    wait(lambda: len(workers_of(parent.pid)) == 2 or None, "worker in its place")
    wait(lambda: cells_in(folder) >= 3 or None, "third cell")
    os.kill(workers_of(parent.pid)[-1], signal.SIGSTOP)
    assert parent.wait(PATIENCE) == 0, log.read_text()[-2000:]
    assert "has been silent for" in log.read_text()
    queue = optuna.load_study(storage=opened(folder / "cells.journal"), study_name="little-quick")
    tally_cells(queue, folder, "SIGKILL of a worker of a study, SIGSTOP of another", "the parent ran their cells again")


def test_the_parent_of_a_study_is_killed_and_resumed(study: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    command = comparing(study, "--workers", "2", "--output", str(folder))
    with log.open("ab") as file:
        parent = subprocess.Popen(command, stdout=file, stderr=file, env=ONE_THREAD)
    wait(lambda: cells_in(folder) >= 2 or None, "second cell")
    parent.kill()
    parent.wait()
    wait(lambda: not workers_of(parent.pid) or None, "end of its workers")
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    queue = optuna.load_study(storage=opened(folder / "cells.journal"), study_name="little-quick")
    tally_cells(queue, folder, "SIGKILL of the parent of a study, resumed", "workers handed their cells back and ended")


def test_two_commands_resume_a_study_whose_host_died(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    words = ["--storage", postgres.url, "--study", "cells", "--output", str(folder), "--grace", str(OF_CELLS)]
    first = on_host("host-a", comparing(study, *words), tmp_path / "worker0.log")
    wait(lambda: cells_in(folder) >= 2 or None, "second cell")
    children = workers_of(first.pid)
    first.kill()
    for child in children:
        os.kill(child, signal.SIGKILL)
    team = [
        on_host(f"host-{name}", comparing(study, *words, "--resume"), tmp_path / f"worker{name}.log") for name in "bc"
    ]
    for member in team:
        assert member.wait(PATIENCE) == 0, "\n".join(p.read_text()[-800:] for p in tmp_path.glob("worker*.log"))
    said = "".join(path.read_text() for path in tmp_path.glob("worker[bc].log"))
    assert said.count("helped; the results will be in") == 1, "one leads, one helps"
    queue = optuna.load_study(storage=opened(postgres.url), study_name="cells")
    tally_cells(
        queue,
        folder,
        "SIGKILL of the host that leads a study, two resume it",
        "one led, one helped; nothing was done again",
    )


def test_ray_starts_workers_of_a_study(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["--storage", postgres.url, "--study", "ray", "--launcher", "ray", "--workers", "2"]
    command = comparing(study, *words, "--output", str(tmp_path / "out"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[:2000] + done.stderr[-500:]
    queue = optuna.load_study(storage=opened(postgres.url), study_name="ray")
    tally_cells(queue, tmp_path / "out", "none: 2 workers of a study started by Ray", "both worked on its cells")
