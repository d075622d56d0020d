"""Which trials under way belong to workers that are dead, where Optuna cannot tell.

Databases know by Optuna's heartbeat. Behind a proxy it has none: there each worker counts up in an attribute of its
trial. Nowhere does Optuna tell of a worker that died between asking for a trial and its first heartbeat. Who waits
watches both by one clock, its own, since those of hosts differ.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import optuna
from optuna.trial import TrialState

from augkit.requeueing import requeue

NAMELESS = 120.0  # seconds after which a trial that no worker has put its name to is nobody's
BEAT = "beat"  # the attribute that is counted up


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
            # A trial that is finished, or a proxy that is gone, is spoken of where the trial is run.
            with contextlib.suppress(Exception):
                while not ended.wait(max(0.5, self.grace / 6)):
                    count += 1
                    storage.set_trial_user_attr(trial._trial_id, BEAT, count)

        threading.Thread(target=beat, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


@runtime_checkable
class Beating(Protocol):
    """A storage whose workers show life by `Heartbeats`."""

    heartbeats: Heartbeats


@dataclass
class Vigil:
    """Of one who waits: since when each trial under way has shown the same sign of life."""

    clock: Callable[[], float] = time.monotonic
    seen: dict[int, tuple[object, float]] = field(default_factory=dict)

    def look(self, study: optuna.Study) -> None:
        """Put trials in line again that are nobody's."""
        now, before, storage = self.clock(), self.seen, study._storage
        self.seen = {}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            sign = trial.user_attrs.get("worker"), trial.user_attrs.get(BEAT)
            last, since = before.get(trial.number, (None, now))
            since = since if last == sign else now
            self.seen[trial.number] = sign, since
            if sign[0] is None and now - since > NAMELESS:
                requeue(study, trial.number, None)
            elif isinstance(storage, Beating) and now - since > storage.heartbeats.grace:
                requeue(study, trial.number, storage.heartbeats.retries)
