"""Which trials under way belong to workers that are dead, where Optuna cannot tell.

Databases know by Optuna's heartbeat. Behind a proxy it has none: there each worker counts up in an attribute of its
trial. Nowhere does Optuna tell of a worker that died between asking for a trial and its first heartbeat. Who waits
watches both by one clock, its own, since those of hosts differ.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import optuna
from optuna.trial import TrialState

from augkit.core.jobs.retry import requeue

NAMELESS = 120.0  # seconds after which a trial that no worker has put its name to is nobody's
OFTEN = 10.0  # seconds between beats at most, since who waits may have less patience than who works
BEAT = "beat"  # the attribute that is counted up
PROCESS = "process"  # the attribute that tells a process from a later one of the same number


@dataclass(frozen=True)
class Heartbeats:
    """Of a storage that keeps none.

    Attributes:
        grace: seconds without one after which a worker is dead.
        retries: how often its trial is run again.
    """

    grace: float
    retries: int

    @contextlib.contextmanager
    def of(self, study: optuna.Study, number: int) -> Iterator[None]:
        """Show life in a trial of this process."""
        ended, storage = threading.Event(), study._storage
        trial = next(t for t in study.get_trials(deepcopy=False) if t.number == number)

        def beat() -> None:
            count = 0
            while not ended.wait(max(0.5, min(OFTEN, self.grace / 6))):
                count += 1
                try:
                    storage.set_trial_user_attr(trial._trial_id, BEAT, count)
                except optuna.exceptions.UpdateFinishedTrialError:
                    return
                except Exception:
                    continue  # a proxy that is away is spoken of where the trial is run

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


@runtime_checkable
class HeartbeatThread(Protocol):
    """A storage whose workers show life by `Heartbeats`."""

    heartbeats: Heartbeats


@dataclass
class LivenessMonitor:
    """Of one who waits: since when each trial under way has shown the same sign of life."""

    clock: Callable[[], float] = time.monotonic
    seen: dict[int, tuple[object, float]] = field(default_factory=dict)
    looked: float = -math.inf

    def look(self, study: optuna.Study) -> None:
        """Put trials in line again that are nobody's."""
        storage, running = study._storage, study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now, patience = self.clock(), storage.heartbeats.grace if isinstance(storage, HeartbeatThread) else NAMELESS
        # After a time in which nothing was seen, as of a proxy that was away, all are given time to show life again.
        before, self.seen = self.seen if now - self.looked <= patience / 3 else {}, {}
        self.looked = now
        for trial in running:
            sign = trial.user_attrs.get("worker"), trial.user_attrs.get(BEAT)
            last, since = before.get(trial.number, (None, now))
            since = since if last == sign else now
            self.seen[trial.number] = sign, since
            if sign[0] is None and now - since > NAMELESS:
                requeue(study, trial.number, None)
            elif isinstance(storage, HeartbeatThread) and now - since > storage.heartbeats.grace:
                requeue(study, trial.number, storage.heartbeats.retries)


def sign_on(trial: optuna.Trial, worker: str) -> None:
    """Put this process's name to a trial, and what tells it from a later one of the same number."""
    trial.set_user_attr(PROCESS, process_mark(os.getpid()))
    trial.set_user_attr("worker", worker)


def process_mark(pid: int) -> str | None:
    """When a process of this machine was started, since which boot; None where that is not known, or it has ended.

    Clocks are no help: the time at which a trial began may be that of another machine.
    """
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":  # ended, and nobody has asked after it yet
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"
    return None
