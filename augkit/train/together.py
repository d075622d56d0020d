"""Several seeds of one recipe trained at once, as one program over stacked weights (`torch.func`).

The networks of a study are small, and a GPU is idle for most of a step of one of them. Weights and buffers of S
networks are stacked, ``(S, ...)``, and `torch.func.vmap` runs one forward and one backward pass over all of them, each
with its own batch. All else is that of `augkit.train.loop.fit`, seed by seed: order of the data, augmentation,
optimizer, evaluations, checkpoints. So each network equals the one that `fit` trains alone, within rounding.

On a CPU it does not pay: one network keeps the cores busy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from augkit.architectures.modes import called_with, train
from augkit.core.errors import AugkitError, InputError
from augkit.core.files import reserve
from augkit.core.random_streams import deterministic
from augkit.data import Dataset
from augkit.train.batches import Batch
from augkit.train.build import choose_device, load_recipe_data
from augkit.train.distributed import Process
from augkit.train.evaluate import Evaluation, autocast
from augkit.train.history import EpochRow
from augkit.train.loop import begin_job, end_epoch, end_job, network_inputs, steps_of, train_job
from augkit.train.optimizer import set_rate
from augkit.train.recipe import Recipe
from augkit.train.run import Run, TrainJob
from augkit.train.schedule import rate_at

MOST = 16  # networks in one program

Stack = dict[str, Tensor]


def fit_together(  # noqa: PLR0913 (keywords of several runs, each with a default)
    recipe: Recipe,
    seeds: Sequence[int],
    *,
    outputs: Sequence[str | Path] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    dataset: Dataset | None = None,
    weights: Sequence[str | Path] | None = None,
    on_epoch: Callable[[int, EpochRow], None] | None = None,
    alive: Callable[[], object] | None = None,
) -> list[Run]:
    """Train a recipe with several seeds in one program; the networks are those of `augkit.train.fit`, within rounding.

    Args:
        recipe: settings of all runs.
        seeds: 1 to 16 distinct seeds.
        outputs: a folder per seed, as ``output`` of `augkit.train.fit`; nothing is written when None.
        resume, overwrite, device, dataset, alive: as in `augkit.train.fit`. Runs that resume at different steps are
            trained in one program with those at the same step.
        weights: a file of initial weights per seed, as ``weights`` of `augkit.train.fit`.
        on_epoch: called with the seed and each row of its history.

    Returns:
        The trained runs, in the order of the seeds.

    Raises:
        InputError: the recipe stops early, has a constraint, compiles or trains in float16; the network draws random
            numbers, as dropout does, or cannot be stacked; or as `augkit.train.fit`.
        RunError: as `augkit.train.fit`.

    >>> from augkit import Recipe
    >>> from augkit.train import fit_together
    >>> recipe = Recipe.load("mnist5k", ["data.name=digits", "data.canvas=12", "train.steps=2"])
    >>> [run.seed for run in fit_together(recipe, [0, 1], device="cpu")]
    [0, 1]
    """
    _check(recipe, seeds, outputs, weights)
    target = choose_device(device)
    data = dataset or load_recipe_data(recipe)
    process = Process()
    for output in outputs or ():
        reserve(Path(output), resume=resume, overwrite=overwrite)  # all, before the first is emptied
    with deterministic(recipe.train.deterministic):
        jobs = [
            begin_job(
                recipe.replaced(seed=seed), data, data.validation, None, None if weights is None else weights[k],
                None if outputs is None else outputs[k], target, process,
                resume=resume, overwrite=overwrite, alive=alive,
            )
            for k, seed in enumerate(seeds)
        ]  # fmt: skip
        found: dict[int, Evaluation | None] = {}
        for step in dict.fromkeys(job.state.step for job in jobs):
            group = [job for job in jobs if job.state.step == step]
            for job, evaluation in zip(group, _train(group, on_epoch, alive), strict=True):
                found[job.recipe.seed] = evaluation
        return [end_job(job, found[job.recipe.seed], alive) for job in jobs]


def _check(
    recipe: Recipe, seeds: Sequence[int], outputs: Sequence[str | Path] | None, weights: Sequence[str | Path] | None
) -> None:
    if not _several(seeds) or not 1 <= len(seeds) <= MOST or len(set(seeds)) < len(seeds):
        got = ", ".join(map(str, seeds)) if _several(seeds) else repr(seeds)
        raise InputError(f"seeds: expected 1 to {MOST} distinct seeds, got {got or 'none'}")
    for name, given in (("outputs", outputs), ("weights", weights)):
        if given is not None and not (_several(given) and len(given) == len(seeds)):
            got = str(len(given)) if _several(given) else repr(given)
            raise InputError(f"{name}: expected one for each of {len(seeds)} seeds, got {got}")
    if outputs is not None and len({Path(output).resolve() for output in outputs}) < len(outputs):
        raise InputError(f"outputs: expected a folder of its own for each seed, got {', '.join(map(str, outputs))}")
    refused = {
        "train.patience": recipe.train.patience,
        "train.compile": recipe.train.compile,
        "train.precision=float16": recipe.train.precision == "float16",
        "constraint": recipe.constraint,
    }
    if found := [name for name, value in refused.items() if value]:
        raise InputError(f"several seeds at once: expected a recipe without {found[0]}; train its seeds one by one")


def _several(given: object) -> bool:
    """Whether it is a sequence of values, not one value or a text."""
    return isinstance(given, Sequence) and not isinstance(given, str)


def _train(
    jobs: list[TrainJob], on_epoch: Callable[[int, EpochRow], None] | None, alive: Callable[[], object] | None
) -> list[Evaluation | None]:
    """Run the remaining steps of runs that have taken the same number of steps; return their last evaluations."""
    if len(jobs) == 1:
        seed = jobs[0].recipe.seed
        ended = [] if on_epoch is None else [lambda row: on_epoch(seed, row)]
        return [train_job(jobs[0], None, ended, None, alive)]
    first, found = jobs[0], list[Evaluation | None]([None] * len(jobs))
    steps, length = steps_of(first), first.batches.steps
    stacked = _Stacked(jobs)
    while first.state.step < steps:
        started, before = time.perf_counter(), first.state.step
        for job in jobs:
            train(job.state.model, job.state.frozen)
        for batches in zip(*(job.batches.epoch(before // length, before % length) for job in jobs), strict=True):
            rate = first.recipe.optim.lr * rate_at(first.state.step, steps, first.recipe.schedule)
            with first.updating(sum(len(batch.labels) for batch in batches)):
                stacked.update(batches, rate)
            if alive is not None:
                alive()
            for job in jobs:
                if job.device.type == "cpu":
                    job.finite_loss(rate)
            if first.state.step == steps:
                break
        seconds = (time.perf_counter() - started) / len(jobs)
        for k, job in enumerate(jobs):
            found[k] = end_epoch(job, job.state.step == steps, rate, before, seconds)
            if on_epoch is not None:
                on_epoch(job.recipe.seed, job.state.history[-1])
    return found


class _Stacked:
    """Weights and buffers of several networks in common tensors ``(S, ...)``, of which those of the networks are views.

    So what optimizers, averages and checkpoints of the single networks read and write is what `vmap` computes with.
    """

    def __init__(self, jobs: list[TrainJob]) -> None:
        self.jobs = jobs
        models = [job.state.model for job in jobs]
        self.weights = {name: _share([dict(m.named_parameters())[name] for m in models]) for name in _names(models)}
        buffers = dict(models[0].named_buffers())
        self.buffers = {name: _share([dict(m.named_buffers())[name] for m in models]) for name in buffers}
        self.trained = [name for name, weight in models[0].named_parameters() if weight.requires_grad]

    def update(self, batches: Sequence[Batch], rate: float) -> None:
        """Update all networks, each from its own batch."""
        settings = self.jobs[0].recipe.train
        pairs = [network_inputs(job, batch) for job, batch in zip(self.jobs, batches, strict=True)]
        inputs, targets = (torch.stack(each) for each in zip(*pairs, strict=True))
        size = -(-targets.shape[1] // settings.accumulate)  # of a part, in images
        views = self.jobs[0].policy.views
        for part, wanted in zip(inputs.split(size * views, 1), targets.split(size, 1), strict=True):
            gradients, losses = self._gradients(part, wanted)
            for k, job in enumerate(self.jobs):
                job.state.count(losses[k], wanted.shape[1])
                parameters = dict(job.state.model.named_parameters())
                for name, gradient in gradients.items():
                    mine = gradient[k] * (part.shape[1] / inputs.shape[1])
                    before = parameters[name].grad
                    parameters[name].grad = mine if before is None else before + mine
        for job in self.jobs:
            set_rate(job.state.optimizer, rate)
            if job.recipe.optim.clip_norm is not None:
                nn.utils.clip_grad_norm_(job.state.model.parameters(), job.recipe.optim.clip_norm)
            job.state.optimizer.step()
            job.state.optimizer.zero_grad(set_to_none=True)
            job.state.step += 1
            if settings.ema:
                job.state.average(settings.ema)

    def _gradients(self, inputs: Tensor, targets: Tensor) -> tuple[Stack, Tensor]:
        """Gradients ``(S, ...)`` by name and losses ``(S,)`` for inputs ``(S, B, C, H, W)`` and targets ``(S, B)``."""
        first = self.jobs[0]
        fixed = {name: weight for name, weight in self.weights.items() if name not in self.trained}

        def loss_of(trained: Stack, others: Stack, images: Tensor, wanted: Tensor) -> Tensor:
            with autocast(first.recipe, first.device):
                return first.loss(called_with(first.state.model, {**trained, **others}, images), wanted)

        trained = {name: self.weights[name] for name in self.trained}
        try:
            with torch.no_grad():
                gradients, losses = vmap(grad_and_value(loss_of))(trained, {**fixed, **self.buffers}, inputs, targets)
        except (AugkitError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the network's own code may raise anything, and vmap refuses much
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise InputError(
                f"several seeds at once: expected a network that draws nothing and runs under torch.func.vmap, got"
                f" '{said}'; train its seeds one by one"
            ) from error
        return gradients, losses


def _names(models: list[nn.Module]) -> list[str]:
    names = [name for name, _ in models[0].named_parameters()]
    if any([name for name, _ in model.named_parameters()] != names for model in models):
        raise InputError("several seeds at once: expected the same weights in the networks of all seeds")
    return names


@torch.no_grad()
def _share(tensors: list[Tensor]) -> Tensor:
    """Stack tensors, and make each of them a view of the stack."""
    whole = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, view in zip(tensors, whole, strict=True):
        tensor.data = view
    return whole
