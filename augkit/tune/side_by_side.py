"""The worker of a search that has a team: several configurations are trained at once, and decided one after the other.

A configuration is given to the team when its trial is asked for. Trials are told in the order in which they were asked
for, and a next one is asked for only when the oldest has been told. So what the sampler and the promotions know at any
time depends on the number of trials that are open, and not on which process was faster: the search gives the same
trials every time. The team's other processes know nothing of the study, and one that dies costs no trial.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass

import optuna
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from augkit.core.jobs.heartbeat import Heartbeat
from augkit.core.jobs.retry import SkipJob, claim
from augkit.data import Images
from augkit.train.history import OnEpoch
from augkit.train.recipe import Recipe
from augkit.tune import halving
from augkit.tune.optuna_study import SearchTerms, rung_of
from augkit.tune.search_jobs import Searched, SearchJob
from augkit.tune.space import Value
from augkit.tune.team import Task, Team, threads
from augkit.tune.trial import TrialWorker

OPEN = 2  # open trials for each process, so that none waits while the oldest one, such as the control, takes longer


def can_search_side_by_side(terms: SearchTerms, device: torch.device, processes: int) -> bool:
    """Whether a team can train the trials of a search; pruning, forks and torchrun need the process of the study."""
    return device.type == "cpu" and processes == 1 and not terms.prunes and not terms.fork


@dataclass
class SideBySideWorker(TrialWorker):
    """Runs the trials of a study with the processes of a team; for training by `augkit.fit`, without pruning or forks.

    Attributes:
        team: this process and those beside it; its threads are those of every network.
    """

    _: KW_ONLY
    team: Team

    def __post_init__(self) -> None:
        super().__post_init__()
        self._open: deque[optuna.Trial] = deque()
        self._tasks: dict[int, Task] = {}  # by number of the trial
        self._hearts: dict[int, Heartbeat] = {}
        self._task: Task | None = None  # of the trial that is being told

    def run(self) -> None:
        """As in `Worker.run`."""
        try:
            with threads(self.team.threads):
                super().run()
        except BaseException as stop:
            self.hand_back(self._open, stop)
            raise

    def is_done(self) -> bool:
        """As in `TrialWorker`, and no trial is open."""
        return not self._open and super().is_done()

    def step(self) -> bool:
        """Take a trial if there is room for it, else tell the oldest one; return False if there is none."""
        if len(self._open) < OPEN * self.team.count and self.has_job():
            self._take()
        elif self._open:
            self._tell(self._open.popleft())
        else:
            return False
        return True

    def alive(self) -> None:
        """As in `Worker`, for all open trials. One that was taken over is noticed when it is told."""
        with contextlib.suppress(UpdateFinishedTrialError):
            super().alive()
        for heart in self._hearts.values():
            with contextlib.suppress(UpdateFinishedTrialError):
                heart.beat()

    def _take(self) -> None:
        """Ask for a trial, and give its configuration to the team unless it needs no training."""
        self.monitor.check(self.study)
        trial = self.study.ask()
        self._open.append(trial)
        self.sign(trial)
        self._hearts[trial.number] = Heartbeat(trial, self.policy.grace)
        if "control" in trial.user_attrs:
            return  # this process trains it on all rungs, while others train what comes behind it
        try:
            claim(self.study, trial)
        except SkipJob:
            return  # which is found again when it is told
        if halving.is_wanted(self.study, trial):
            values = self.configure(trial)
            if rung_of(trial) or not self._is_known(trial, values):
                recipe = self._budgeted(self.space.with_values(values))
                self._tasks[trial.number] = self.team.give(Task(self._job_of(trial, recipe)))

    def _is_known(self, trial: optuna.Trial, values: dict[str, Value]) -> bool:
        """Whether another trial has, or will have, the result of these values."""
        trials = self.study.get_trials(deepcopy=False)
        before = [t for t in trials if t.number < trial.number and t.state != TrialState.FAIL]
        return any(t.user_attrs.get("values") == values for t in before)

    def _job_of(self, trial: optuna.Trial, recipe: Recipe) -> SearchJob:
        """As in `TrialWorker`; if the team was given the trial, its job, in whose folder another process may write."""
        if self._task is None:
            return super()._job_of(trial, recipe)
        assert isinstance(self._task.job, SearchJob)
        return self._task.job

    def _tell(self, trial: optuna.Trial) -> None:
        self._hearts.pop(trial.number, None)
        self._task = self._tasks.pop(trial.number, None)
        try:
            self.run_taken(trial)
        finally:
            if self._task is not None:
                self.team.drop(self._task)
                self._task = None

    def _perform(self, job: SearchJob, sets: Callable[[], Mapping[str, Images]], on_epoch: OnEpoch) -> Searched:
        """As in `TrialWorker`, by the team if it was given the trial."""
        if self._task is None:
            return super()._perform(job, sets, on_epoch)
        found: Searched = self.team.result(self._task, alive=self.alive)
        for row in found.rows:
            on_epoch(row)
        return found
