"""Loss and accuracy of a network on labeled images, and its variability under shifts, during and after training."""

from __future__ import annotations

import collections
import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures.modes import evaluated, is_lazy, weights_dtype
from augkit.architectures.outputs import check_logits, run_network
from augkit.augment.ragged import Ragged
from augkit.augment.resample import resample
from augkit.augment.resample_each import centers
from augkit.core.errors import DeviceMemoryError, InputError, RunError
from augkit.core.pixels import as_float
from augkit.core.precision import widest
from augkit.core.random_streams import EVALUATION, drawing
from augkit.data import Images, Stream, batches
from augkit.invariance import InvarianceReport, measure_invariance
from augkit.invariance.protocols import make_protocol
from augkit.train.distributed import Process
from augkit.train.loaders import check_labels, check_range, check_repeatable, check_side, labeled
from augkit.train.recipe import Recipe

BATCH = 500
OWN = "validation_loader"  # the name of a user's batches in messages
Labeled = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """Scores of a network: ``loss`` is the mean cross entropy, ``confusion`` ``(K, K)`` counts true x predicted."""

    loss: float
    confusion: Tensor

    @property
    def accuracy(self) -> float:
        """Share of images that are classified correctly."""
        return float(self.confusion.trace()) / max(1, int(self.confusion.sum()))


def evaluate(
    model: nn.Module, data: Images | Labeled, recipe: Recipe, device: torch.device, process: Process | None = None
) -> Evaluation:
    """Return the scores of a network without augmentation, with test-time shifts if the recipe has them.

    Args:
        model: gives logits ``(B, K)``, alone or as in `augkit.architectures.outputs`; in ``eval()`` meanwhile.
        data: labeled images, of which every process takes its share; or the process's own batches of images and
            labels, see `augkit.train.loaders`. For labels that are probabilities, the most probable class counts as
            the true one, and the loss is their cross entropy.
        recipe: mean, std, canvas, memory format, precision and test-time shifts.
        device: device of the model.
        process: this process; counts are summed over all processes.

    Raises:
        InputError: images, labels and network do not fit each other.
        RunError: the network gives NaN.
    """
    process = process or Process()
    loss, confusion = torch.zeros((), dtype=widest(device), device=device), None
    undefined = torch.zeros((), dtype=torch.bool, device=device)
    classes: int | None = None
    with inference(model, recipe, device, process):
        for images, labels in labeled_batches(data, recipe, device, process):
            scores = log_probabilities(model, as_float(images), recipe)
            check_logits(scores, len(labels), classes=classes)
            classes = scores.shape[-1]
            check_labels(labels, classes)
            undefined |= scores.isnan().any()
            loss += _summed_loss(scores, labels)
            truth = labels.argmax(-1) if labels.ndim == 2 else labels
            pairs = torch.bincount(truth * classes + scores.argmax(-1), minlength=classes**2).view(classes, classes)
            confusion = pairs if confusion is None else confusion + pairs
    if confusion is None:
        raise InputError("evaluation: expected at least 1 labeled image, got none")
    loss, confusion = process.total(loss), process.total(confusion)
    if bool(process.total(undefined.long())):  # argmax of NaN would count as class 0
        raise RunError("evaluation: the network gives NaN in evaluation mode; look at its weights and its batch norms")
    return Evaluation(float(loss) / int(confusion.sum()), confusion.cpu())


@contextlib.contextmanager
def inference(model: nn.Module, recipe: Recipe, device: torch.device, process: Process | None = None) -> Iterator[None]:
    """Context of ``model`` in ``eval()``, without gradients, with random numbers from the seed; restored on exit."""
    rank = process.rank if process is not None else 0
    without_gradients = torch.no_grad() if is_lazy(model) else torch.inference_mode()
    with drawing(device, recipe.seed, EVALUATION, rank=rank), evaluated(model), without_gradients:
        yield


def _summed_loss(scores: Tensor, labels: Tensor) -> Tensor:
    return -(labels * scores).sum() if labels.ndim == 2 else F.nll_loss(scores, labels, reduction="sum")


def try_out(model: nn.Module, data: Images | Labeled, recipe: Recipe, device: torch.device) -> int:
    """Move a network to ``device``, run it on the first of ``data``, and return its number of classes.

    This also creates lazy weights.

    Raises:
        InputError: as in `evaluate` on these images.
        RunError: the device is out of memory.
    """
    model.to(device)
    with drawing(device, recipe.seed, EVALUATION), evaluated(model), torch.no_grad():
        images, labels = _first_labeled(data, recipe, device)
        classes = log_probabilities(model, as_float(images[:2]), recipe).shape[-1]
    check_labels(labels_of(data) if isinstance(data, Images) else labels, classes)
    return classes


def _first_labeled(data: Images | Labeled, recipe: Recipe, device: torch.device) -> tuple[Tensor, Tensor]:
    few = data.take(torch.arange(min(2, len(data)))) if isinstance(data, Images) else data
    if not isinstance(data, Images):
        check_repeatable(data, OWN)
    given = labeled_batches(few, recipe, device, Process())
    found = next(given, None)
    if found is None:
        raise InputError("evaluation: expected at least 1 labeled image, got none")
    if isinstance(data, Iterator):  # it can start again only after its end
        collections.deque(given, maxlen=0)
    return found


def log_probabilities(model: nn.Module, images: Tensor, recipe: Recipe) -> Tensor:
    """Return the log probabilities ``(B, K)`` of images ``(B, C, H, W)`` in [0, 1].

    With ``test_time_shift`` the probabilities are means over the image and its shifts to four sides.
    """
    mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (recipe.data.mean, recipe.data.std))
    form = torch.channels_last if recipe.train.channels_last else torch.contiguous_format
    reach, scores = recipe.train.test_time_shift, []
    moves = [(0.0, 0.0), (reach, 0.0), (-reach, 0.0), (0.0, reach), (0.0, -reach)] if reach else [(0.0, 0.0)]
    for x, y in moves:
        view = images if x == y == 0 else _shifted(images, x, y, recipe)
        logits = _checked_logits(model, ((view - mean) / std).contiguous(memory_format=form), recipe)
        scores.append(logits.float().log_softmax(-1))
    return torch.stack(scores).logsumexp(0) - math.log(len(moves))


def _checked_logits(model: nn.Module, inputs: Tensor, recipe: Recipe) -> Tensor:
    """Return the checked logits ``(B, K)``."""
    try:
        with autocast(recipe, inputs.device):
            logits: Tensor = run_network(model, inputs.to(weights_dtype(model)))
    except torch.OutOfMemoryError:
        raise DeviceMemoryError(inputs.device) from None
    check_logits(logits, len(inputs))
    return logits


def _shifted(images: Tensor, x: float, y: float, recipe: Recipe) -> Tensor:
    matrix = torch.eye(3, device=images.device)
    matrix[0, 2], matrix[1, 2] = x, y
    return resample(images, matrix, kernel=recipe.policy.kernel, padding=recipe.policy.padding)


def labeled_batches(
    data: Images | Labeled, recipe: Recipe, device: torch.device, process: Process
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches ``(B, C, H, W)`` with labels ``(B,)`` on ``device``, of this process's share of ``data``.

    Of an `augkit.Ragged` in a user's batches they are the centers, fitted to ``data.image_size`` in one resampling.
    """
    if not isinstance(data, Images):
        for number, batch in enumerate(data):
            images, labels = labeled(batch, OWN)
            if number == 0 or images.device.type == "cpu":  # checking others would synchronize with the device
                check_range(images, recipe.data.mean, recipe.data.std, OWN)
            size = check_side(images, recipe, OWN)
            if isinstance(images, Ragged):
                assert size is not None  # else `check_side` raised
                images = centers(images.to(device), size, recipe.data.crop_share)
            yield images.to(device), labels.to(device)
        return
    share = data if process.count == 1 else data.take(process.share(torch.arange(len(data))))
    labels = labels_of(share).to(device)
    start = 0
    for images in batches(share.put_on_canvas(recipe.data.canvas), BATCH, device):
        yield images, labels[start : start + len(images)]
        start += len(images)


def labels_of(images: Images) -> Tensor:
    """Return the labels ``(N,)``; raise InputError if there are none."""
    if images.labels is None:
        raise InputError("training: expected labeled images, these have no labels")
    return images.labels


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """Return the autocast context of the recipe's precision."""
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(recipe.train.precision)
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def check_measurable(recipe: Recipe, images: Images, model: nn.Module | None = None) -> None:
    """Raise InputError, before any work, if the policy cannot be built, or the images or the model cannot be measured.

    Two images are measured, because windows of the crop protocol are smaller than the training images and may be too
    small for the ``model``. Without one, a network that is still to be trained is to be measured, and mean, std and
    canvas are checked alone.
    """
    recipe.policy.augment()
    settings, canvas = recipe.invariance, recipe.data.canvas
    on_canvas = settings.protocol != "embed" and canvas is not None
    size = (canvas, canvas) if on_canvas and canvas is not None else (images.images.shape[-2], images.images.shape[-1])
    make_protocol(
        settings.protocol,
        size,
        max_shift=settings.max_shift,
        kernel=settings.kernel,
        input_size=canvas if settings.protocol == "embed" else None,
    )
    few, recipe = images.take(torch.arange(2)), recipe.replaced(invariance={**settings.model_dump(), "pairs": 1})
    if model is None:
        model, few = _StandIn(), Images(few.images, None, few.background)
    measure_model(model, recipe, few, device=next((p.device for p in model.parameters()), None))


class _StandIn(nn.Module):
    """A network for checks, which takes images of any size and channels and gives logits of two classes."""

    def forward(self, images: Tensor) -> Tensor:
        """Two of the pixels as logits."""
        return images.flatten(1)[:, :2]


def measure_model(
    model: nn.Module,
    recipe: Recipe,
    images: Images,
    *,
    lengths: Sequence[float] = (),
    device: torch.device | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> InvarianceReport:
    """Measure a network on images with the protocol, kernel, shifts, mean and std of its recipe."""
    settings, data = recipe.invariance, recipe.data
    if settings.protocol != "embed":
        images = images.put_on_canvas(data.canvas)
    at_hand = not isinstance(images, Stream)
    return measure_invariance(
        model,
        images.images if at_hand else _streamed(images),
        images.labels if at_hand else None,
        protocol=settings.protocol,
        max_shift=settings.max_shift,
        kernel=settings.kernel,
        pairs=settings.pairs,
        lengths=lengths,
        input_size=data.canvas if settings.protocol == "embed" else None,
        background=images.background,
        mean=data.mean,
        std=data.std,
        device=device,
        on_batch=on_batch,
    )


def _streamed(images: Images) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
    start = 0
    for batch in batches(images, BATCH):
        stop = start + len(batch)
        yield batch if images.labels is None else (batch, images.labels[start:stop])
        start = stop
