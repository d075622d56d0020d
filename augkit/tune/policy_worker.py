"""The worker of a search whose configurations a function trains; ``python -m augkit.tune.policy_worker`` runs one.

When the process that started it has ended, the worker hands its trial back and stops, once the function has returned.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch

from augkit.core.cli import run
from augkit.core.errors import InputError, RunError
from augkit.core.files import write
from augkit.core.jobs.status import open_job_study, worker_parser
from augkit.core.jobs.worker import GiveUpError
from augkit.core.named import import_folder, importable_name, load_named
from augkit.data import Images
from augkit.invariance import InvarianceReport
from augkit.train.optimizer import warm_up
from augkit.train.recipe import Recipe
from augkit.train.user_images import checked_images, classes_of, fingerprint, images_named
from augkit.tune import halving
from augkit.tune.function_training import FunctionTraining
from augkit.tune.optuna_study import ControlScores, load_terms
from augkit.tune.policy_inputs import HeldOut
from augkit.tune.trial import TrialWorker

OUTPUTS = "outputs"  # attribute of the study: number of outputs of the control, which all networks must have
WARNING = "warning"  # attribute of the study: that the function does not repeat with its seed
WHY_NOT = "why there is no control"  # attribute of the study
VALIDATION = "validation.pt"  # images for worker processes, in the folder of the search
WHY = "several workers"


@dataclass
class PolicyWorker(TrialWorker):
    """A worker of a search whose configurations are trained by a function.

    Attributes:
        check_seed: train the control of the first rung twice and note it in the study if the two networks differ.
    """

    check_seed: bool = False

    def has_job(self) -> bool:
        """As in `TrialWorker`; if another worker could not train the control, raise its error."""
        try:
            return super().has_job()
        except RunError as error:
            raise RunError(self.study.user_attrs.get(WHY_NOT, str(error))) from None

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        """As in `TrialWorker`, with the check of the seed; why the control failed is kept for other workers."""
        try:
            found = super().score_control(recipe, number)
        except GiveUpError as error:
            self.study.set_user_attr(WHY_NOT, str(error))
            raise
        if self.check_seed:
            with tempfile.TemporaryDirectory(prefix="augkit-seed-") as scratch:
                again = self._control_on(recipe, Path(scratch) / "control", 0)
            if words := _difference(halving.scores_on(found, 0), again, recipe.seed):
                self.study.set_user_attr(WARNING, words)
        assert isinstance(self.training, FunctionTraining)
        self.study.set_user_attr(OUTPUTS, self.training.classes)
        return found

    def score(
        self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]
    ) -> tuple[InvarianceReport | None, dict[str, float]]:
        """As in `TrialWorker`; the control, which another process may have trained, says how many outputs there are."""
        assert isinstance(self.training, FunctionTraining)
        self.training.classes = self.study.user_attrs.get(OUTPUTS)
        return super().score(trial, recipe, reference)


def _difference(first: ControlScores, second: ControlScores, seed: int) -> str:
    """In words, how two networks that were trained with the same seed differ; empty if they do not."""
    one, two = (found["shift_information"]["typical"] for found in (first, second))
    for name, a, b in (("accuracy", first["accuracy"], second["accuracy"]), ("shift information", one, two)):
        if a != b:
            return (
                f"train: two calls with seed {seed} gave networks whose {name} is {a:.6g} and {b:.6g}; the search goes"
                " on, but trials then differ by chance, too"
            )
    return ""


def function_words(training: FunctionTraining) -> list[str]:
    """Arguments for workers in processes of their own, which import function and score by their names.

    Raises:
        InputError: they cannot be imported by a name.
    """
    train = importable_name(training.function, "train", WHY)
    words = ["--train", train]
    if training.score is not None:
        words += ["--score", importable_name(training.score, "score", WHY)]
    if training.timeout is not None:
        words += ["--timeout", str(training.timeout)]
    if (place := import_folder(train)) is not None:
        words += ["--import-from", str(place)]
    return words


def image_words(images: Images, name: str | None, folder: Path) -> list[str]:
    """Arguments for workers in processes of their own: the folder of the search, and the validation images.

    Args:
        images: validation images, written to ``folder`` unless there is a name.
        name: name by which the workers import them.
        folder: folder of the search.
    """
    if name is None:
        kept = {"images": images.images.cpu(), "labels": images.labels, "background": images.background}
        write(folder / VALIDATION, lambda path: torch.save(kept, path))
    return ["--folder", str(folder), "--validation", name or str(folder / VALIDATION)]


def main(arguments: list[str]) -> None:
    """Run trials until the search is done."""
    parser = worker_parser("augkit.tune.policy_worker", __doc__)
    parser.add_argument("--train", required=True, help="the function, as package.module:attribute")
    parser.add_argument("--score", help="the score, as package.module:attribute")
    parser.add_argument("--validation", required=True, help="file of images, or package.module:attribute")
    parser.add_argument("--import-from", help="folder of the package or module")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the search")
    parser.add_argument("--timeout", type=float, help="seconds after which a call has failed")
    parser.add_argument("--check-seed", action="store_true", help="train the control twice")
    options = parser.parse_args(arguments)
    warm_up()
    study, common = open_job_study(options)
    terms = load_terms(study)
    if options.import_from is not None and options.import_from not in sys.path:
        sys.path.insert(0, options.import_from)
    score = None if options.score is None else load_named(options.score, "score")
    source = options.validation  # a file of `image_words`, or a name
    kept = source.endswith(".pt")
    given = Images(**torch.load(source, weights_only=True)) if kept else images_named(source, "validation")
    images = checked_images(given, "validation", scored=score is not None)
    held, began = HeldOut(images, f"images-{fingerprint(images)}"), terms.open_space().recipe.data.name
    if held.name != began:
        raise InputError(f"validation '{source}': a worker got {held.name}, the search has {began}")
    function = load_named(options.train, "train")
    training = FunctionTraining(function, score, classes_of(images), rungs=terms.rungs, timeout=options.timeout)
    device = torch.device(options.device)
    own = {"folder": options.folder, "training": training, "check_seed": options.check_seed}
    PolicyWorker(study, terms, held, device, **own, **common).run()


if __name__ == "__main__":
    sys.exit(run(main))
