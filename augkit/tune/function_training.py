"""Training by a function of the user: any loop that takes a policy and returns a network."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import nn

from augkit.augment.policy import Policy
from augkit.core.errors import InputError, InputTypeError, RunError, WriteError
from augkit.core.files import write
from augkit.data import Images
from augkit.invariance import InvarianceReport
from augkit.train.evaluate import measure_model
from augkit.train.history import OnEpoch
from augkit.train.recipe import Recipe
from augkit.tune.training import OnBatch

PERIOD = 1.0  # seconds between two heartbeats while the function runs
CALL = "train(policy, *, epochs, seed, start)"


class TrainFunction(Protocol):
    """A training loop of the user."""

    def __call__(self, policy: Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        """Train a network with ``policy`` for ``epochs`` epochs in all, and return it; see `augkit.tune_policy`."""


Score = Callable[[nn.Module], float]


@dataclass
class FunctionTraining:
    """Training by a function.

    Attributes:
        function: trains a network with the policy of a recipe.
        score: stands in the place of accuracy, in [0, 1]; None takes accuracy.
        labels: number of different labels, from 0, of the validation images; None without labels.
        rungs: epochs of each rung; with rungs the function is given a folder to go on from.
        anew: how often a rung above the lowest one trained anew, because the function had left nothing to go on from.
        classes: outputs of the first network that was measured; all others must have as many.
    """

    function: TrainFunction
    score: Score | None = None
    labels: int | None = None
    rungs: tuple[int, ...] = ()
    anew: int = field(default=0, init=False)
    classes: int | None = field(default=None, init=False)

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the classes; 0 for a score."""
        return 0.0 if self.score is not None or self.labels is None else 1 / self.labels

    def train(
        self, recipe: Recipe, folder: Path | None, until: int, on_epoch: OnEpoch, alive: Callable[[], None]
    ) -> nn.Module:
        """Call the function with the policy of a recipe; a folder that it cannot go on from is emptied before."""
        start, before = folder if self.rungs else None, 0
        if start is not None:
            before = self.epochs_in(start, recipe, until)
            if not before:
                shutil.rmtree(start, ignore_errors=True)
            start.mkdir(parents=True, exist_ok=True)
        with _beating(alive):
            model = self._called(recipe, until, start)
        if start is not None and any(start.iterdir()):
            write(_mark(start), json.dumps({"recipe": recipe.digest(), "epochs": until}))
        self.anew += start is not None and not before and until > self.rungs[0]
        for epoch in range(before, until):
            on_epoch({"epoch": epoch + 1})
        return model

    def _called(self, recipe: Recipe, until: int, start: Path | None) -> nn.Module:
        try:
            model = self.function(recipe.policy, epochs=until, seed=recipe.seed, start=start)
        except WriteError:
            raise  # the disk is full: the trial is handed back
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = frames[min(1, len(frames) - 1)].filename  # the file of the function
            last = [frame for frame in frames if frame.filename == own][-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            raise RunError(f"train raised {type(error).__name__}: {error} ({where})") from error
        if not isinstance(model, nn.Module):
            raise RunError(f"train: expected a torch.nn.Module, got {type(model).__name__}; return the trained network")
        return model

    def epochs_in(self, folder: Path, recipe: Recipe, until: int) -> int:
        """Epochs after which the function left files in ``folder``; 0 if there are none, or they are of others."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(_mark(folder).read_text())
            if found["recipe"] == recipe.digest() and found["epochs"] <= until and any(folder.iterdir()):
                return int(found["epochs"])
        return 0

    def measure(
        self, model: nn.Module, recipe: Recipe, images: Images, lengths: Sequence[float], on_batch: OnBatch
    ) -> InvarianceReport:
        """Measure a network on its own device.

        Raises:
            RunError: its outputs are not finite logits ``(B, K)``, K is too small for the labels, or K is not that of
                the networks before.
        """
        try:
            report = measure_model(model, recipe, images, lengths=lengths, on_batch=on_batch)
        except InputError as error:
            raise RunError(f"the network that train returned cannot be measured: {error}") from error
        found = report.settings.classes
        self.classes = self.classes or found
        if found != self.classes:
            raise RunError(f"train: expected a network with {self.classes} outputs as before, got {found}")
        return report

    def scores(self, model: nn.Module, report: InvarianceReport) -> tuple[float, float | None]:
        """The score, or accuracy; and kappa if there are labels."""
        kappa = report.kappa.value if self.labels is not None else None
        return report.accuracy.value if self.score is None else self._scored(self.score, model), kappa

    def _scored(self, score: Score, model: nn.Module) -> float:
        try:
            value = float(score(model))
        except Exception as error:
            raise RunError(f"score raised {type(error).__name__}: {error}") from error
        if not 0 <= value <= 1:
            raise RunError(f"score: expected a number in [0, 1], higher is better, got {value:g}")
        return value


def check_function(function: object) -> None:
    """Raise InputError unless ``function`` can be called as ``train(policy, epochs=, seed=, start=)``."""
    if not callable(function):
        raise InputTypeError(f"train: expected a function {CALL}, got {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind(Policy(), epochs=1, seed=0, start=None)
    except TypeError as error:
        raise InputTypeError(f"train: expected a function {CALL}, got one of {signature} ({error})") from None


def _mark(folder: Path) -> Path:
    """File beside a folder that says after which epoch the function left it; inside, the function would see it."""
    return folder.with_name(f"{folder.name}.json")


@contextlib.contextmanager
def _beating(alive: Callable[[], None]) -> Iterator[None]:
    """Context in which a thread calls ``alive``; what that raises is raised when the work is done."""
    stop, raised = threading.Event(), list[BaseException]()

    def beat() -> None:
        while not stop.wait(PERIOD):
            try:
                alive()
            except BaseException as error:
                raised.append(error)
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if raised:
        raise raised[0]
