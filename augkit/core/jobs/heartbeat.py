"""Heartbeats: a worker's main loop increments a counter in its trial, and other workers watch it with their own clock.

A heartbeat needs only a user attribute of the trial, so it works with every storage. Clocks of two hosts are never
compared: a heartbeat is new if it differs from the last one seen.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.trial import TrialState

from augkit.core.jobs.optuna_private import without_waiting
from augkit.core.jobs.retry import requeue

UNNAMED_GRACE = 120.0  # seconds without a heartbeat after which an unnamed worker of a trial is dead
LONGEST_PERIOD = 5.0  # most seconds between two heartbeats; the grace period of another worker may be shorter than ours
SHORTEST_PERIOD = 0.5  # least seconds between two heartbeats, and between two checks of a waiting worker
LEAST_GRACE = 6 * SHORTEST_PERIOD  # a shorter grace period counts as this one, in which a few heartbeats are due
BEAT = "beat"  # user attribute with the counter
PROCESS = "process"  # user attribute that distinguishes a process from a later one with the same id


@dataclass(frozen=True)
class RetryPolicy:
    """When a worker counts as dead, and how often its trial is retried.

    Attributes:
        retries: most retries of a trial; None does not limit or count them.
        grace: seconds without a heartbeat after which a worker is dead.
    """

    retries: int | None = 1
    grace: float = 300.0


class Heartbeat:
    """The heartbeat of a trial that this process runs."""

    def __init__(self, trial: optuna.Trial, grace: float) -> None:
        self.trial, self.count = trial, 0
        self.period = max(SHORTEST_PERIOD, min(LONGEST_PERIOD, grace / 6))
        self.last = time.monotonic()

    def beat(self) -> bool:
        """Increment the counter if a heartbeat is due; return whether it was.

        Raises:
            UpdateFinishedTrialError: another worker has taken over the trial.
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
            pass  # training continues while the storage is unavailable; if it stays so, reporting the result fails
        self.last = time.monotonic()
        return True


@dataclass
class HeartbeatMonitor:
    """Finds running trials whose worker is dead.

    Attributes:
        policy: grace period and retries.
        clock: clock of this process, in seconds.
        seen: by trial number, the last heartbeat and the time at which it was new.
        checked: time of the last check.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    clock: Callable[[], float] = time.monotonic
    seen: dict[int, tuple[object, float]] = field(default_factory=dict)
    checked: float = -math.inf

    def check(self, study: optuna.Study) -> None:
        """Requeue the trials of dead workers."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        now = self.clock()
        # After a gap between checks (the storage was unavailable, or this process slept), all grace periods restart.
        grace = max(self.policy.grace, LEAST_GRACE)
        before, self.seen = self.seen if now - self.checked <= grace / 3 else {}, {}
        self.checked = now
        for trial in running:
            worker = trial.user_attrs.get("worker")
            sign = worker, trial.user_attrs.get(BEAT)
            last, since = before.get(trial.number, (sign, now))
            since = since if last == sign else now
            self.seen[trial.number] = sign, since
            if worker is None and now - since > UNNAMED_GRACE:
                requeue(study, trial.number, None)
            elif worker is not None and now - since > grace:
                requeue(study, trial.number, self.policy.retries)
