"""Run a study: run its cells, evaluate its claims, and write its results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from augkit.compare.study.analysis import StudyAnalysis
from augkit.compare.study.cells import Cell, CellStore, cells_of, to_do
from augkit.compare.study.queue import JOURNAL, LOCK, REQUEST, CellQueue, check_shared, leading
from augkit.compare.study.report.figures import plane
from augkit.compare.study.report.markdown import study_markdown
from augkit.compare.study.report.page import study_page
from augkit.compare.study.results import JoinedStudy, StudyResults
from augkit.compare.study.schema import Study
from augkit.compare.study.seed_groups import train_seeds_together
from augkit.compare.study.worker import CellWorker
from augkit.core.cli import HelperInterrupted
from augkit.core.errors import InputError
from augkit.core.figures import save_png
from augkit.core.files import MARK, claim, environment, reserve, write
from augkit.core.jobs.launch import check_workers, run_workers
from augkit.core.jobs.pool import WorkerPool, WorkerSettings, own_index
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.status import WorkerStatus
from augkit.core.jobs.storage import Storage, open_storage
from augkit.core.jobs.worker import WorkerEvents
from augkit.core.progress import Display
from augkit.train.build import check_overwrite, choose_device
from augkit.train.together import MOST


def run_study(  # noqa: PLR0913 (keywords of one command, each with a default)
    study: Study,
    folder: Path,
    *,
    spread: WorkerSettings | None = None,
    storage: str | None = None,
    name: str | None = None,
    device: str | None = None,
    together: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> StudyResults | JoinedStudy:
    """Run the missing cells of a study, evaluate its claims, and write ``results.json`` and the reports.

    A cell that fails is left out and named in ``cost.failed``; the others are run.

    Args:
        study: the study to run.
        folder: folder for cells and results. With ``resume``, existing cells are used, also those of fewer seeds or
            arms. With a storage at a URL, all hosts must share the folder.
        spread: settings of the workers; None runs one worker in this process.
        storage: Optuna storage (file or URL) for the queue of several workers; None takes ``cells.journal`` in
            ``folder``. If a URL has this study already, this process only helps.
        name: name of the queue in the storage; None takes the name of the study with its size.
        device: device for training and measuring; None takes a GPU if there is one.
        together: seeds of an arm that are trained in one program (`augkit.train.fit_together`), at most 16. More than 1
            is for a GPU and a single worker.
        resume, overwrite: as in `augkit.fit`.
        display: progress display.

    Returns:
        The results that ``results.json`` holds; if this process only helped, the folder that will hold them.

    Raises:
        InputError: ``folder`` has a cell of another recipe, the storage has another study, or a measure is impossible.
        RunError: several cells in a row fail, or workers keep dying.
    """
    cells, where = cells_of(study), Storage.parse(storage) if storage else None
    remote = where is not None and where.is_remote
    settings = spread or WorkerSettings()
    check_workers(settings, where)
    if together > 1 and (settings.count > 1 or where is not None or together > MOST):
        got = f"--together {together}" + (f" with --workers {settings.count}" if settings.count > 1 else "")
        got += " with --storage" if where is not None else ""
        raise InputError(f"--together: expected at most {MOST} seeds at once, in one worker of this process, got {got}")
    store = CellStore(study, folder, choose_device(device))
    command = _StudyCommand(store, settings, where, name, display or Display(0, quiet=True), together)
    for arm in study.arms.values() if overwrite and not resume else ():
        check_overwrite(folder, arm.recipe)
    queue, missing = None, to_do(store, cells) if resume else cells
    if not (remote or overwrite):
        reserve(folder, resume=resume)
    # Check before a leader is chosen, because helpers wait for the leader, and before anything is overwritten.
    for cell in {cell.arm.name: cell for cell in missing}.values():
        store.check(cell)
    if remote and not resume:
        queue = command.open(lead=False)
        if not queue.leads:
            if overwrite:
                raise InputError("--overwrite: expected a study that is not in the storage; name another --study")
            return command.help(queue)
    if where is not None and not remote and not where.is_inside(folder):
        command.open(lead=True)  # refuses an unusable queue before any work
    try:
        if overwrite and (folder / LOCK).is_file():
            with leading(folder) as free:
                _refuse_shared(free, folder)
        claim(folder, resume=resume, overwrite=overwrite)
    except BaseException:
        if queue is not None:
            queue.withdraw()
        raise
    with leading(folder) as leads:
        _refuse_shared(leads or remote, folder)
        if not leads:
            return command.help(command.open(lead=False))
        return command.lead(cells, missing, queue)


@dataclass
class _StudyCommand:
    """The work of one command on a study, as the leader or as a helper."""

    store: CellStore
    settings: WorkerSettings
    storage: Storage | None
    name: str | None
    show: Display
    together: int = 1

    def open(self, *, lead: bool) -> CellQueue:
        """Open the queue of the cells; it is in memory if only this process works on them."""
        study = self.store.study
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        backend: BaseStorage = InMemoryStorage()
        if self.storage is not None:
            backend = open_storage(self.storage, grace=self.settings.grace, say=self.show.line)
        return CellQueue.open(backend, self.name or f"{study.settings.name}-{study.size}", study, lead=lead)

    def lead(self, cells: Sequence[Cell], missing: Sequence[Cell], queue: CellQueue | None) -> StudyResults:
        """Run the missing cells, evaluate the claims, and write the results."""
        store, folder, show, count = self.store, self.store.folder, self.show, self.settings.count
        write(folder / MARK, json.dumps(environment(), indent=2))
        write(folder / "study.yaml", store.study.to_yaml())
        show.begin(len(cells), len(cells) - len(missing))
        show.stage(f"{len(cells)} cells, {len(missing)} to do, {count} worker{'s' * (count > 1)}")
        started = time.monotonic()
        if self.storage is None and count > 1 and len(missing) > 1:
            self.storage = Storage.parse(folder / JOURNAL)
        failed = self._work(queue or self.open(lead=True), missing)
        show.stage("evaluating claims")
        results = StudyAnalysis(store, cells).results(len(cells), len(cells) - len(missing), _earlier_looks(folder))
        cost = replace(results.cost, wall_seconds=time.monotonic() - started, failed=failed)
        results = replace(results, cost=cost)
        write_results(results, folder)
        return results

    def _work(self, queue: CellQueue, missing: Sequence[Cell]) -> dict[str, str]:
        """Enqueue the cells, run workers, and wait for helpers; return errors by name of the cell."""
        store, remote = self.store, self.storage is not None and self.storage.is_remote
        if remote and REQUEST in queue.queue.user_attrs and queue.folder != store.folder.resolve():
            raise InputError(
                f"study '{queue.queue.study_name}' keeps its cells in '{queue.folder}': expected that as --output, or"
                " another --study"
            )
        recover(queue.queue, self.settings.retries, alone=not remote)
        earlier = queue.closed()
        queue.fill(store.study, store.folder, missing)
        progress = _CellProgress(queue, earlier, len(missing), self.show)
        if self.together > 1:
            train_seeds_together(store, missing, self.together, self.show)
        if self.storage is None:
            events = WorkerEvents(stage=lambda name: progress([]))
            CellWorker(queue.queue, store.device, events=events).run()
        elif missing:
            self._run_workers(queue, progress)
        progress([])
        why = queue.failures(earlier)
        # The files in the folder decide, not the state of the queue.
        return {cell.name: why.get(cell.name, "it was not worked on") for cell in missing if not store.is_done(cell)}

    def help(self, queue: CellQueue) -> JoinedStudy:
        """Run cells of a study that another command leads."""
        check_shared(queue.queue)
        self.show.stage(f"helping with study '{queue.queue.study_name}'")
        try:
            self._run_workers(queue, lambda rows: self.show.panel([row.describe() for row in rows]), own_index())
        except KeyboardInterrupt:
            raise HelperInterrupted from None
        self.show.line("all cells are done; the command that leads the study evaluates its claims")
        return JoinedStudy(str(queue.folder))

    def _run_workers(self, queue: CellQueue, on_status: Callable[[list[WorkerStatus]], None], first: int = 0) -> None:
        assert self.storage is not None
        study, settings, module = queue.queue, self.settings, "augkit.compare.study.worker"
        words = settings.arguments(self.storage, study.study_name, self.store.device)
        rest = queue.done, first, on_status, self.show.line
        run_workers(WorkerPool(study, queue.folder, module, words, settings, *rest), self.show)


def _earlier_looks(folder: Path) -> list[int]:
    """Numbers of seeds at which the claims of this folder were evaluated before."""
    try:
        taken = json.loads((folder / "results.json").read_text(encoding="utf-8"))["looks"]["taken"]
        return [int(seeds) for seeds in taken]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # no results, or those of a version that did not store looks


def _refuse_shared(leads: bool, folder: Path) -> None:
    if not leads:
        raise InputError(f"output '{folder}': another command is using it; wait until it has ended")


class _CellProgress:
    """Prints every cell once, when it is done or has failed, and shows what the workers do."""

    def __init__(self, queue: CellQueue, earlier: set[int], cells: int, show: Display) -> None:
        self.queue, self.seen, self.cells, self.show = queue, set(earlier), cells, show
        self.done = 0

    def __call__(self, statuses: list[WorkerStatus]) -> None:
        self.show.panel([status.describe() for status in statuses])
        for trial in self.queue.trials():
            if trial.number in self.seen or not trial.state.is_finished():
                continue
            self.seen.add(trial.number)
            cell = trial.user_attrs["cell"]
            if trial.state == TrialState.COMPLETE:
                self.done += 1
                self.show.advance(1)
                self.show.stage(f"{self.done} of {self.cells}: {cell}, {trial.values[0]:.1f} s")
            elif "error" in trial.user_attrs:
                self.show.advance(1)
                self.show.line(f"cell {cell} failed: {trial.user_attrs['error']}")


def write_results(results: StudyResults, folder: Path) -> None:
    """Write ``results.json``, ``report.html`` and ``report.md``."""
    write(folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
    write(folder / "report.html", study_page(results))
    write(folder / "report.md", study_markdown(results))
    if results.plane:
        picture = plane(results.plane)
        write(folder / "plane.png", lambda path: save_png(picture, path))


def summary(results: StudyResults) -> str:
    """Lines for the terminal: the verdict of each claim, followed by its sentences."""
    lines = []
    for result in results.claims:
        lines.append(f"{result.id}. {result.name}: {result.verdict}")
        lines += [f"   {sentence}" for sentence in result.sentences]
    return "\n".join(lines)
