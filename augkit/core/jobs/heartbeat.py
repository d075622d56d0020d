"""Heartbeats: a worker's main loop counts up in its trial; a process that waits judges by its own clock.

This is the same for every storage, since it needs nothing but a user attribute of the trial. Clocks of two hosts are
never compared: a beat counts as new when it differs from the last one seen.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import TrialState

from augkit.core.jobs.optuna_private import without_waiting
from augkit.core.jobs.retry import requeue

UNNAMED_GRACE = 120.0  # seconds after which a running trial without a worker's name has no worker
LONGEST_PERIOD = 5.0  # seconds between two beats at most: another worker's grace period may be shorter than ours
BEAT = "beat"  # the attribute that is counted up
PROCESS = "process"  # the attribute that tells a process from a later one with the same id


@dataclass(frozen=True)
class RetryPolicy:
    """When a worker is dead, and what becomes of its trial.

    Attributes:
        retries: how often a trial is run again whose worker died; None is always.
        grace: seconds without a heartbeat after which a worker is dead.
    """

    retries: int | None = 1
    grace: float = 300.0


class Heartbeat:
    """The heartbeat of a trial that this process runs."""

    def __init__(self, trial: optuna.Trial, grace: float) -> None:
        self.trial, self.count = trial, 0
        self.period = max(0.5, min(LONGEST_PERIOD, grace / 6))
        self.last = time.monotonic()

    def beat(self) -> bool:
        """Count up if a beat is due; whether it was.

        Raises:
            UpdateFinishedTrialError: another worker has taken the trial over.
        """
        if time.monotonic() - self.last < self.period:
            return False
        self.count += 1
        try:
            with without_waiting():
                self.trial.set_user_attr(BEAT, self.count)
        except optuna.exceptions.UpdateFinishedTrialError:
            raise
        except Exception:
            pass  # training goes on while the storage is away; if it stays away, reporting the result fails
        self.last = time.monotonic()
        return True


@dataclass
class HeartbeatMonitor:
    """Finds running trials whose worker is dead.

    Attributes:
        policy: when that is the case.
        clock: of this process, in seconds.
        seen: by number of the trial, the last sign of life and when it was new.
        checked: when this was last looked at.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Callable[[], float] = time.monotonic
    seen: dict[int, tuple[object, float]] = field(default_factory=dict)
    checked: float = -math.inf

    def check(self, study: optuna.Study) -> None:
        """Put the trials of dead workers in line again."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = self.clock()
        # After a gap in which nothing could be seen (the storage was away, or this process slept), all start afresh.
        before, self.seen = self.seen if now - self.checked <= self.policy.grace / 3 else {}, {}
        self.checked = now
        for trial in running:
            worker = trial.user_attrs.get("worker")
            sign = worker, trial.user_attrs.get(BEAT)
            last, since = before.get(trial.number, (sign, now))
            since = since if last == sign else now
            self.seen[trial.number] = sign, since
            if worker is None and now - since > UNNAMED_GRACE:
                requeue(study, trial.number, None)
            elif worker is not None and now - since > self.policy.grace:
                requeue(study, trial.number, self.policy.retries)


def process_mark(pid: int) -> str | None:
    """When a process of this machine was started, since which boot; None where that is not known, or it has ended.

    Clocks are no help: the time at which a trial began may be that of another machine.
    """
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":  # ended, and its parent has not collected its exit code yet
            return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{fields[19]}"
    return None
