"""The training loop: it trains a run from a recipe and a seed.

Initial weights, data order, augmentation, mixing and random layers such as dropout each have their own random stream,
which depends on the seed and the position in the run. So two recipes that differ only in their policy use the same
images in the same order and the same initial weights, and a run that resumes from a checkpoint equals one that was
never stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.architectures.blocks import pooling_first
from augkit.architectures.modes import check_network, check_trainable, copied, train, weights_dtype
from augkit.architectures.stages import freeze
from augkit.core.errors import InputError, InputTypeError, brief, check_whole
from augkit.core.random_streams import MIXING, deterministic
from augkit.data import Dataset, Images, sample
from augkit.invariance import Estimate
from augkit.train.batches import Batch, make_batches
from augkit.train.build import (
    build_recipe_model,
    check_overwrite,
    choose_device,
    describe_input,
    load_initial_weights,
    load_recipe_data,
)
from augkit.train.checkpoint import State, describe, kept_epoch, restore, stalled, write_metrics
from augkit.train.constraint import (
    check_constraint,
    dual_variable,
    kept_control,
    shift_information,
    with_control,
)
from augkit.train.distributed import Process, claim_once, joined, local_device, parallel
from augkit.train.evaluate import Evaluation, autocast, check_measurable, evaluate, measure_model, try_out
from augkit.train.heartbeat import heartbeat_hook
from augkit.train.history import EpochRow, OnEpoch, interval_of
from augkit.train.mixup import mix_batch
from augkit.train.optimizer import set_rate
from augkit.train.policy_in_training import PolicyInTraining
from augkit.train.recipe import Recipe
from augkit.train.run import Run, TrainJob
from augkit.train.schedule import rate_at
from augkit.train.trackers import make_trackers
from augkit.train.trackers.base import Tracker, Tracking


def fit(  # noqa: PLR0913 (keywords of one run, each with a default)
    recipe: Recipe,
    seed: int | None = None,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    dataset: Dataset | None = None,
    model: nn.Module | None = None,
    weights: str | Path | None = None,
    loader: Any = None,
    validation_loader: Any = None,
    until: int | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: Callable[[int, int], None] | None = None,
    alive: Callable[[], object] | None = None,
    log: str | Sequence[str | Tracker] = (),
) -> Run:
    """Train the recipe's network, or a custom ``model``, in one process or under torchrun.

    Args:
        recipe: settings of the run.
        seed: seed of initial weights, order and augmentation; the recipe's own when None.
        output: folder for ``recipe.yaml``, ``metrics.jsonl``, ``checkpoint.pt``, ``environment.json``; nothing
            is written when None. `augkit.train.report.write_report` adds ``report.html``.
        resume: continue from the checkpoint in ``output``; bitwise on the CPU. A finished run is only loaded.
        overwrite: replace a run in ``output``.
        device: ``cpu``, ``cuda``, ...; a GPU if there is one when None.
        dataset: the recipe's data, if already loaded.
        model: network to train instead of the recipe's, from its own weights; it ends in ``eval()``.
            `augkit.architectures.outputs` finds the logits in its output; frozen parts stay frozen, see
            `augkit.architectures.modes.frozen_modules`.
        weights: file of weights that replace the initial ones and ``model.weights``, such as the ``checkpoint.pt`` of
            another run of the same network, of which nothing else is taken: optimizer, schedule and averages begin
            anew. None takes initial weights from the seed.
        loader, validation_loader: batches of images and labels, see `augkit.train.loaders`, instead of the recipe's
            data; they require ``model``. Each process has its own loaders. Images of different sizes (`augkit.Ragged`)
            are resampled once to ``data.image_size``: by the policy in training, to their centers in evaluation.
        until: epochs after which training pauses; the rest of the schedule is left to a later call with ``resume``,
            which continues bitwise. None trains to the end.
        on_epoch: called with each row of the history.
        on_step: called after each update with the number of updates so far and in total.
        alive: callback, such as a heartbeat, for every batch, also in evaluations.
        log: experiment trackers that are told the numbers of every epoch: names such as ``wandb``, as a list or with
            commas, or objects, see `augkit.train.trackers`.

    Returns:
        The trained run.

    Raises:
        InputError: the output exists or has another recipe; the data or the device is not available; or images, labels
            and network do not fit each other.
        RunError: the loss became NaN or infinite, a file could not be written, the device is out of memory, or a
            tracker failed.
    """
    if not isinstance(recipe, Recipe):
        raise InputTypeError(f"recipe: expected an augkit.Recipe, as of Recipe.load('mnist5k'), got {brief(recipe)}")
    recipe = recipe.replaced(seed=recipe.seed if seed is None else seed)
    target = choose_device(local_device(device))
    check_whole("until", until, 1)
    if output is not None and overwrite and not resume:
        check_overwrite(output, recipe)
    trackers = _trackers(recipe, log, output)
    if (loader is None) != (validation_loader is None) or (loader is not None and model is None):
        raise InputError("fit: expected loader, validation_loader and model together")
    if model is not None:
        check_network(model)
        check_trainable(model)
    data = loader if loader is not None else dataset or load_recipe_data(recipe)
    with joined(target) as process, deterministic(recipe.train.deterministic):
        held_out = validation_loader if loader is not None else data.validation
        job = begin_job(
            recipe, data, held_out, model, weights, output, target, process,
            resume=resume, overwrite=overwrite, alive=alive,
        )  # fmt: skip
        still = job.state.step < steps_of(job) and process.first
        # Nobody has hooks on a network that was built here.
        faster = pooling_first(job.state.model) if model is None else contextlib.nullcontext()
        with Tracking(trackers if still else [], job.recipe, job.folder) as record, faster:
            ended = [record] if on_epoch is None else [on_epoch, record]
            evaluation = train_job(job, until, ended, on_step, alive)
        return end_job(job, evaluation, alive)


def begin_job(  # noqa: PLR0913 (what `fit` was given, and what it made of it)
    recipe: Recipe,
    data: Any,
    held_out: Any,
    model: nn.Module | None,
    weights: str | Path | None,
    output: str | Path | None,
    device: torch.device,
    process: Process,
    *,
    resume: bool,
    overwrite: bool,
    alive: Callable[[], object] | None,
) -> TrainJob:
    """Make network, batches and state of a run, or restore them from its folder; arguments and errors as in `fit`."""
    network_input = describe_input(recipe, data, model)
    net = model
    if net is None:
        net = build_recipe_model(recipe, network_input, recipe.seed, fresh=weights is None)
    if weights is not None:
        load_initial_weights(net, str(weights), recipe.model.weights_of)
    if recipe.train.freeze is not None:
        freeze(net, recipe.train.freeze.stages, recipe.train.freeze.head)
    classes = try_out(net, held_out, recipe, device)
    batches = make_batches(data, recipe, device, process, classes)
    names = network_input.classes or [str(k) for k in range(classes)]
    check_constraint(recipe, held_out)
    policy = PolicyInTraining.begin(recipe, names, device, process)
    if (recipe.invariance.every or recipe.constraint) and isinstance(held_out, Images):
        check_measurable(recipe, held_out, net)
    folder = claim_once(output, process, resume=resume, overwrite=overwrite)
    if recipe.constraint is not None and recipe.constraint.control is None:
        recipe = (kept_control(folder, recipe) if folder and resume else None) or with_control(
            recipe, _control(recipe, net, data, device, alive)
        )
    state = State.begin(net, recipe, device)
    if folder and resume and restore(folder, recipe, state, device):
        if process.first:
            write_metrics(folder, state.history)  # a kill may have come between a checkpoint and its metrics
    elif folder and process.first:
        describe(folder, recipe)
    return TrainJob(recipe, state, batches, policy, held_out, network_input, classes, folder, device, process)


def end_job(job: TrainJob, evaluation: Evaluation | None, alive: Callable[[], object] | None) -> Run:
    """Take the best weights of a run that keeps them; evaluate unless ``evaluation`` is of the last epoch."""
    recipe, state = job.recipe, job.state
    if state.best is not None:
        state.result.load_state_dict(state.best["model"])
        if state.step == steps_of(job) or stalled(state.history, recipe.train.patience):
            job.save()  # not if it only pauses: it goes on from its last weights
    if evaluation is None or state.best is not None:
        with heartbeat_hook(alive, state.result):
            evaluation = evaluate(state.result, job.held_out, recipe, job.device, job.process)
    state.result.eval()
    epoch = kept_epoch(state.history, state.best)
    return Run(recipe, recipe.seed, state.result, state.history, job.folder, evaluation, epoch)


def _trackers(recipe: Recipe, log: str | Sequence[str | Tracker], output: str | Path | None) -> list[Tracker]:
    """The trackers that ``log`` names, and that of TensorBoard where the recipe asks for it."""
    wanted = recipe.train.tensorboard and output is not None and "tensorboard" not in log
    return [*make_trackers(log), *(make_trackers("tensorboard") if wanted else [])]


def _control(
    recipe: Recipe, net: nn.Module, data: Any, device: torch.device, alive: Callable[[], object] | None
) -> Estimate:
    """Train the control of a recipe with a constraint, from the same initial weights, and return how it varies."""
    control = fit(recipe.control(), device=device, dataset=data, model=copied(net), alive=alive)
    return shift_information(control.model, recipe, data.validation, device)


def steps_of(job: TrainJob) -> int:
    """Updates of the whole schedule."""
    return job.recipe.train.steps or job.recipe.train.epochs * job.batches.steps


def train_job(
    job: TrainJob,
    until: int | None,
    on_epoch: Sequence[OnEpoch],
    on_step: Callable[..., None] | None,
    alive: Callable[[], object] | None,
) -> Evaluation | None:
    """Run the remaining steps, up to epoch ``until``, and return the last evaluation, or None if no step remained."""
    evaluation = None
    recipe, state, settings, length = job.recipe, job.state, job.recipe.train, job.batches.steps
    steps = steps_of(job)
    stop = steps if until is None else min(steps, until * length)
    forward = parallel(state.model, job.process, job.device)
    forward = torch.compile(forward) if settings.compile else forward  # type: ignore[assignment]
    while state.step < stop and not stalled(state.history, settings.patience):
        started, before = time.perf_counter(), state.step
        train(state.model, state.frozen)
        for batch in job.batches.epoch(state.step // length, state.step % length):
            rate = recipe.optim.lr * rate_at(state.step, steps, recipe.schedule)
            set_rate(state.optimizer, rate)
            with job.updating(len(batch.labels)):
                _update(job, forward, batch)
            state.step += 1
            if settings.ema:
                state.average(settings.ema)
            if on_step is not None:
                on_step(state.step, steps)
            if alive is not None:
                alive()
            in_between = settings.checkpoint_steps and state.step % settings.checkpoint_steps == 0
            if job.device.type == "cpu" or in_between:
                job.finite_loss(rate)
            if in_between and state.step % length:
                job.save()
            if state.step == steps:
                break
        seconds = time.perf_counter() - started
        with heartbeat_hook(alive, state.result):
            evaluation = end_epoch(job, state.step == steps, rate, before, seconds)
        for call in on_epoch:
            call(state.history[-1])
    return evaluation


def network_inputs(job: TrainJob, batch: Batch) -> tuple[Tensor, Tensor]:
    """A batch after augmentation and mixing, in the dtype of the weights, with its targets."""
    recipe, state, settings = job.recipe, job.state, job.recipe.train
    inputs, targets = job.policy.images(batch, state.step, job.batches.steps), batch.labels
    if settings.mixup or settings.cutmix:
        place = [recipe.seed, MIXING, state.step, job.process.rank]
        inputs, targets = mix_batch(inputs, targets, job.classes, settings.mixup, settings.cutmix, place)
    return inputs.to(weights_dtype(state.model)), targets


def _update(job: TrainJob, forward: nn.Module, batch: Batch) -> None:
    """Update the weights from a batch, in ``train.accumulate`` parts."""
    recipe, state, settings = job.recipe, job.state, job.recipe.train
    inputs, targets = network_inputs(job, batch)
    inputs = inputs.contiguous(memory_format=state.form)
    size = -(-len(targets) // settings.accumulate)  # of a part, in images
    parts = list(zip(inputs.split(size * job.policy.views), targets.split(size), strict=True))
    for k, (part, wanted) in enumerate(parts):
        # Processes exchange gradients once per update, not once per part.
        alone = k + 1 < len(parts) and job.process.count > 1
        with forward.no_sync() if alone else contextlib.nullcontext():  # type: ignore[operator]
            with autocast(recipe, job.device):
                loss = job.loss(forward(part), wanted)
            if not loss.requires_grad:
                raise InputError(
                    "model: expected logits that depend on its weights, these have no gradient; its forward must not"
                    " detach(), use no_grad() or numpy, and checkpoint() needs use_reentrant=False"
                )
            state.scaler.scale(loss * (len(part) / len(inputs))).backward()
        state.count(loss, len(wanted))
    if recipe.optim.clip_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.optim.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)


def end_epoch(job: TrainJob, last: bool, rate: float, before: int, seconds: float) -> Evaluation | None:
    """Evaluate, measure, add a row to the history, and save."""
    recipe, state, number = job.recipe, job.state, len(job.state.history) + 1
    loss, speed = job.finite_loss(rate), (state.step - before) * job.batches.images_per_step / seconds
    row = EpochRow(epoch=number, step=state.step, loss=loss, lr=rate, seconds=seconds, images_per_second=speed)
    job.process.align(state.result)
    found = None
    if last or number % recipe.train.evaluate_every == 0:
        found = evaluate(state.result, job.held_out, recipe, job.device, job.process)
        row["validation_accuracy"], row["validation_loss"] = found.accuracy, found.loss
    every = recipe.invariance.every
    if recipe.constraint is not None:
        row["dual"] = dual_variable(recipe, state.history)
        row["shift_information"] = interval_of(shift_information(state.result, recipe, job.held_out, job.device))
    elif every and (last or number % every == 0) and isinstance(job.held_out, Images):
        shown = sample(job.held_out, recipe.invariance.images)
        measured = measure_model(state.result, recipe, shown, device=job.device)
        row["shift_information"] = interval_of(measured.shift_information)
    if recipe.train.patience and "validation_accuracy" in row:
        state.keep_best(row["validation_accuracy"])
    state.history.append(row)
    state.begin_epoch()
    job.save()
    return found
