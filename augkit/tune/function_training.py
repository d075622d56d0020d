"""Training by a function of the user, with a folder from which it can go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from augkit.core.errors import RunError
from augkit.data import Images
from augkit.invariance import InvarianceReport
from augkit.train.history import OnEpoch
from augkit.train.recipe import Recipe
from augkit.train.user_folder import epochs_in, train_in
from augkit.train.user_loop import Score, TrainFunction, measured, scored_by
from augkit.tune.training import OnBatch


@dataclass
class FunctionTraining:
    """Training by a function.

    Attributes:
        function: trains a network with the policy of a recipe.
        score: stands in the place of accuracy, in [0, 1]; None takes accuracy.
        labels: number of different labels, from 0, of the validation images; None without labels.
        rungs: epochs of each rung; with rungs the function is given a folder to go on from.
        timeout: seconds after which a call of the function has failed; None waits for ever.
        classes: outputs of the first network that was measured; all others must have as many.
    """

    function: TrainFunction
    score: Score | None = None
    labels: int | None = None
    rungs: tuple[int, ...] = ()
    timeout: float | None = None
    classes: int | None = field(default=None, init=False)
    _alive: Callable[[], None] = field(default=lambda: None, init=False, repr=False)

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the classes; 0 for a score."""
        return 0.0 if self.score is not None or self.labels is None else 1 / self.labels

    def train(
        self, recipe: Recipe, folder: Path | None, until: int, on_epoch: OnEpoch, alive: Callable[[], None]
    ) -> nn.Module:
        """Call the function with the policy of a recipe; a folder that it cannot go on from is emptied before."""
        self._alive = alive
        start = folder if self.rungs else None
        model, before = train_in(self.function, recipe, start, until, ours=True, timeout=self.timeout, alive=alive)
        for epoch in range(before, until):
            on_epoch({"epoch": epoch + 1})
        return model

    def epochs_in(self, folder: Path, recipe: Recipe, until: int) -> int:
        """Epochs after which the function left ``folder``; 0 if empty, of another recipe, or past ``until``."""
        return epochs_in(folder, recipe, until)

    def measure(
        self, model: nn.Module, recipe: Recipe, images: Images, lengths: Sequence[float], on_batch: OnBatch
    ) -> InvarianceReport:
        """Measure a network on its own device.

        Raises:
            RunError: its outputs are not finite logits ``(B, K)``, K is too small for the labels, or K is not that of
                the networks before.
        """
        report = measured(model, recipe, images, lengths=lengths, on_batch=on_batch)
        found = report.settings.classes
        self.classes = self.classes or found
        if found != self.classes:
            raise RunError(f"train: expected a network with {self.classes} outputs as before, got {found}")
        return report

    def scores(self, model: nn.Module, report: InvarianceReport) -> tuple[float, float | None]:
        """The score, or accuracy; and kappa if there are labels."""
        kappa = report.kappa.value if self.labels is not None else None
        value = report.accuracy.value if self.score is None else scored_by(self.score, model, self._alive)
        return value, kappa
