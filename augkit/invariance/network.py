"""Prepares a network for a measurement: device, precision, normalization, channels, and checks of its output.

`Network` is for measurements of many images: half precision, compilation, inference mode. `CheckedForward`, within
`evaluating`, is for analyses that differentiate a network or look into its layers.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from augkit.architectures.folding import FoldablePair, foldable_pairs, folded
from augkit.architectures.modes import check_network, evaluated, is_lazy
from augkit.architectures.outputs import check_logits, logits_in, run_network
from augkit.augment.resample import check_images
from augkit.core.errors import InputError, RunError, check_whole, unknown_name
from augkit.core.precision import on_cpu
from augkit.core.random_streams import MEASUREMENT, drawing

PRECISIONS: dict[str, torch.dtype | None] = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Forward = Callable[[Tensor], Tensor]


class Network:
    """Maps inputs ``(B, C, H, W)`` in [0, 1] to logits ``(B, K)``, or to any `output`; call it within `measuring`.

    Args:
        model: gives logits ``(B, K)``, alone or as in `augkit.architectures.outputs`, or another output; moved to
            ``device``, in ``eval()`` while it is measured.
        mean, std: per channel, applied before the network sees its input.
        precision: ``float32`` (true float32: TensorFloat-32 is switched off), ``bf16`` or ``fp16`` (autocast). The
            weights keep their dtype, and a network in float64 is measured in float64.
        compiled: compile the network by `torch.compile`.
        device: device of the computation; that of the model when None.

    Raises:
        InputTypeError: the model is not a module.
        InputError: mean and std do not fit each other, the precision is unknown or is half precision for a float64
            network, or the weights have no values.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        precision: str = "float32",
        compiled: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        check_network(model)
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
        if (mean is None) != (std is None):
            raise InputError("mean and std: expected both or neither")
        if mean is not None and std is not None and len(mean) != len(std):
            raise InputError(f"mean and std: expected as many values, got {len(mean)} and {len(std)}")
        _check_finite("mean", mean, -math.inf, "finite values")
        _check_finite("std", std, 0.0, "values above 0")
        if compiled and isinstance(model, torch.jit.ScriptModule):
            raise InputError("compiled: expected a network that torch.compile takes, torch.jit has compiled it already")
        first = next((p for p in model.parameters() if p.is_floating_point()), None)
        self.device = torch.device(device or (first.device if first is not None else "cpu"))
        # The dtype of images before they are moved: at least float32.
        self.dtype = torch.promote_types(first.dtype if first is not None else torch.float32, torch.float32)
        self._weights = first.dtype if first is not None else torch.float32
        if PRECISIONS[precision] is not None and self.dtype == torch.float64:
            raise InputError(f"precision '{precision}': the network is in float64; convert it first, or use float32")
        self.model, self.precision, self.compiled = model.to(self.device), precision, compiled
        self.memory_format = "contiguous"
        self.folds = False
        self._pairs: list[FoldablePair] | None = None  # to fold; None before the first pass
        self._fold: contextlib.ExitStack | None = None  # within `measuring`, until norms are folded
        self._run = torch.compile(self.model) if compiled else self.model
        self._mean, self._std = (None if v is None else self._per_channel(v) for v in (mean, std))
        # The first convolution nearly always receives the images; its channels are mentioned only if the network fails.
        self._stem_channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        self._repeat = 0
        self._classes: int | None = None  # K of the logits so far

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """Context of evaluation mode, no gradients, and full float32 products; the previous modes return on exit.

        Layers that use the global random state even in evaluation mode draw the same numbers every time.
        """
        # Weights created in inference mode could never be trained.
        without_gradients = torch.no_grad() if is_lazy(self.model) else torch.inference_mode()
        cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.allow_tf32, products.allow_tf32
        self._classes = None
        cudnn.allow_tf32 = products.allow_tf32 = False
        try:
            with (
                evaluated(self.model),
                drawing(self.device, 0, MEASUREMENT),
                without_gradients,
                contextlib.ExitStack() as fold,
            ):
                self._fold = fold
                yield
        finally:
            self._fold = None
            cudnn.allow_tf32, products.allow_tf32 = before

    def use_memory_format(self, name: str) -> None:
        """Run the network on inputs and with weights in a memory format of `MEMORY_FORMATS` from now on.

        Logits change by rounding alone.

        Raises:
            InputError: there is no memory format of that name.
        """
        if name not in MEMORY_FORMATS:
            raise unknown_name("memory format", name, MEMORY_FORMATS)
        with torch.inference_mode(False):  # weights that are laid out anew within `measuring` could never be trained
            self.model.to(memory_format=MEMORY_FORMATS[name])
        self.memory_format = name

    def use_folding(self, on: bool) -> None:
        """Fold batch norms into the convolutions before them (`augkit.architectures.folding`) within `measuring`.

        Outputs change by rounding alone, except where another layer uses the output of such a convolution, too.
        """
        self.folds = on
        if on:
            _ = self.digest  # of the weights as they are

    def speed(self) -> dict[str, object]:
        """How the passes run, which changes outputs by rounding alone, for `restore_speed`."""
        return {"memory_format": self.memory_format, "folds": self.folds}

    def restore_speed(self, state: Mapping[str, Any]) -> None:
        """Let the passes run as when `speed` returned these values; older states lack some of them."""
        self.use_memory_format(state.get("memory_format", "contiguous"))
        self.use_folding(state.get("folds", False))

    def fit_channels(self, channels: int) -> str:
        """Prepare for images of ``channels``; gray images are repeated for a network that expects red, green and blue.

        Returns:
            A description of the channels, for the settings.

        Raises:
            InputError: mean and std have another length.
        """
        self._repeat = 3 if channels == 1 and self._stem_channels == 3 else 0
        seen = self._repeat or channels
        if self._mean is not None and self._mean.shape[1] not in (1, seen):
            raise InputError(f"mean and std: expected {seen} values each, got {self._mean.shape[1]}")
        return f"1 repeated to {seen}" if self._repeat else str(channels)

    def load(self, images: Tensor) -> Tensor:
        """Return images on the device, uint8 scaled to [0, 1], in the dtype of the images before they are moved."""
        images = images.to(self.device, non_blocking=True)
        return images.to(self.dtype) / 255 if images.dtype == torch.uint8 else images.to(self.dtype)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the logits ``(B, K)`` of float inputs ``(B, C, H, W)`` on the device.

        Raises:
            InputError: the network fails on these inputs, or its output is not ``(B, K)`` with K >= 2 and the same K
                every time.
            RunError: the device is out of memory.
        """
        logits: Tensor = self.output(inputs, logits_in)
        check_logits(logits, len(inputs), classes=self._classes)
        self._classes = logits.shape[1]
        return logits

    def output(
        self, inputs: Tensor, take: Callable[[Any], Any] = lambda output: output, *, hooked: bool = False
    ) -> Any:
        """Return ``take`` of whatever the network returns for float inputs ``(B, C, H, W)`` on the device, unchecked.

        With ``hooked`` no batch norms are folded for this pass, because hooks of the caller watch the layers.

        Raises:
            InputError: the network or ``take`` fails.
            RunError: the device is out of memory.
        """
        given = inputs
        if self._repeat:
            inputs = inputs.expand(-1, self._repeat, -1, -1)
        if self._mean is not None and self._std is not None:
            inputs = (inputs - self._mean).div_(self._std)  # in place, as the difference is still in the cache
        half = PRECISIONS[self.precision]
        inputs = inputs.to(self._weights)
        if self.memory_format == "channels_last":
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        if inputs.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
            inputs = inputs.clone()  # networks may write into their input, which can be the caller's images
        context = torch.autocast(self.device.type, half) if half is not None else contextlib.nullcontext()
        try:
            with context:
                if self.folds and self._fold is not None and not hooked:
                    fold, self._fold = self._fold, None
                    fold.enter_context(folded(self._find_pairs(inputs)))
                return run_network(self._run, inputs, take)
        except torch.OutOfMemoryError:
            raise RunError(
                f"out of memory on {self.device}: {len(inputs)} images at once; lower the batch size"
            ) from None
        except InputError as error:
            wanted, channels = self._stem_channels, inputs.shape[1]
            if wanted not in (None, 0, channels):  # 0 of a lazy one
                raise InputError(f"images: the model expects {wanted} channels, the images have {channels}") from error
            raise

    def _find_pairs(self, inputs: Tensor) -> list[FoldablePair]:
        """The batch norms that can be folded, from an extra pass the first time."""
        if self._pairs is None:
            with drawing(self.device, 0, MEASUREMENT):  # the extra pass takes no random number of the measurement
                self._pairs = foldable_pairs(self.model, lambda: run_network(self._run, inputs.clone()))
        return self._pairs

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of the weights, which identifies the network."""
        whole = hashlib.sha256()
        for name, values in self.model.state_dict().items():
            if not isinstance(values, Tensor):  # added by `get_extra_state` of a custom module
                whole.update(f"{name} {values!r}".encode())
                continue
            whole.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
            whole.update(values.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return whole.hexdigest()

    def _per_channel(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(list(values), device=self.device, dtype=self.dtype).view(1, -1, 1, 1)


@dataclass(frozen=True)
class CheckedForward:
    """Maps images in [0, 1] to checked logits by any function, such as one that is differentiated.

    Attributes:
        forward: maps normalized images to logits, alone or as in `augkit.architectures.outputs`.
        device: device of the computation.
        dtype: input dtype of ``forward``.
        mean, std: per channel, applied before ``forward``.
    """

    forward: Forward
    device: torch.device
    dtype: torch.dtype
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def load(self, images: Tensor) -> Tensor:
        """Return images on the device, uint8 scaled to [0, 1], in the network's dtype but at least float32."""
        scaled = images.to(self.device)
        scaled = scaled.to(torch.float32) / 255 if images.dtype == torch.uint8 else scaled
        return scaled.to(torch.promote_types(self.dtype, torch.float32))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, K)`` of images ``(B, C, H, W)``, at least in float32.

        Raises:
            InputError: the network fails, or its output is not ``(B, K)``.
        """
        if self.mean is not None and self.std is not None:
            mean, std = (images.new_tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
            images = (images - mean) / std
        # A copy, since networks may write into their input.
        logits: Tensor = run_network(self.forward, images.to(self.dtype, copy=True))
        check_logits(logits, len(images), least=1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))


@contextlib.contextmanager
def evaluating(
    model: nn.Module,
    images: Tensor,
    *,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    device: torch.device | str | None,
) -> Iterator[CheckedForward]:
    """Context with ``model`` in ``eval()``, on ``device`` and without gradients.

    On exit the model and torch's random state are as before.

    Raises:
        InputTypeError: the model is not a module.
        InputError: there are no images, mean and std do not fit them, or the weights have no values.
    """
    check_images(images)
    check_network(model)
    if len(images) < 1:
        raise InputError("images: expected at least 1, got none")
    _check_normalization(mean, std, images.shape[1])
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    home = torch.device("cpu") if weight is None else weight.device
    place = home if device is None else torch.device(device)
    own = images.dtype if images.is_floating_point() else torch.float32
    with evaluated(model), drawing(place, 0, MEASUREMENT), torch.no_grad():
        try:
            if device is not None:
                model.to(place)
            yield CheckedForward(model, place, own if weight is None else weight.dtype, mean, std)
        finally:
            if device is not None:
                model.to(home)


def _check_normalization(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise InputError("mean and std: expected both or neither")
    if len(mean) not in (1, channels) or len(mean) != len(std):
        raise InputError(f"mean and std: expected {channels} values each, got {len(mean)} and {len(std)}")
    if not min(std) > 0:
        raise InputError(f"std: expected values above 0, got {min(std):g}")


def batch_slices(count: int, batch_size: int, on_batch: Callable[[int, int], None] | None) -> Iterator[slice]:
    """Yield slices of at most ``batch_size`` that cover ``count``; call ``on_batch(done, count)`` after each."""
    check_whole("batch_size", batch_size, 1, optional=False)
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        yield slice(start, stop)
        if on_batch is not None:
            on_batch(stop, count)


def check_finite(values: Tensor, what: str, start: int) -> Tensor:
    """Return ``values`` on the CPU in float64, or raise `InputError` where they are not finite.

    One copy and one synchronization with the device.
    """
    values = on_cpu(values)
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"model: expected finite {what}, got NaN or infinity on images from {start} on")
    return values


def _check_finite(name: str, values: Sequence[float] | None, least: float, form: str) -> None:
    wrong = next((value for value in values or () if not least < value < math.inf), None)
    if wrong is not None:
        raise InputError(f"{name}: expected {form}, got {wrong:g}")
