"""The output metrics as `torchmetrics` metrics, for evaluation loops; needs the extra ``torchmetrics``.

``update`` takes the outputs of a network for the same images under two shifts, ``p`` and ``q``, ``(..., K)`` each:
probabilities, or logits where the metric has ``logits=True``. The state holds sums and counts, and ``compute``
divides, so batches of any sizes and any number of processes give the value of the whole set.
Definitions: `augkit.invariance.metrics`.

>>> import augkit
>>> from augkit.adapters.torchmetrics import Consistency
>>> consistency = Consistency(logits=True)
>>> network, images = augkit.build_model("small_cnn", 10, 1).eval(), torch.rand(4, 1, 32, 32)
>>> consistency.update(network(images), network(images.roll(16, -1)))
>>> 0 <= consistency.compute() <= 1
tensor(True)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from augkit.augment.checks import check_dense, check_flag, is_float
from augkit.augment.kernels import HALF_WIDTH
from augkit.core.errors import InputError, InputTypeError, brief, unknown_name
from augkit.core.precision import widest
from augkit.invariance import information, metrics
from augkit.invariance.outputs.dense import Region, energies
from augkit.invariance.outputs.regions import moved, shared, snapped


class PairMetric(Metric):
    """Base of the metrics: a mean over all pairs of outputs."""

    is_differentiable = False
    full_state_update = False
    summed = torch.float32
    total: Tensor
    count: Tensor

    def __init__(self, *, logits: bool = False, validate: bool = True, **torchmetrics_options: Any) -> None:
        super().__init__(**torchmetrics_options)  # torchmetrics refuses options that it does not know, by name
        self.logits, self.validate = check_flag("logits", logits), check_flag("validate", validate)
        self.add_state("total", torch.zeros((), dtype=self.summed), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self._add_marker(logits=logits, validate=validate)

    def _add_marker(self, **options: Any) -> None:
        """Add a state named after this class and ``options``, which are all that ``update`` depends on.

        A `torchmetrics.MetricCollection` updates only one of several metrics whose states have the same names and,
        after the first batch, the same values, and sums of different metrics may all be 0 after one batch.
        """
        words = [f"{name}_{value}" for name, value in options.items()]
        self.add_state("_".join(["of", type(self).__name__, *words]), torch.zeros(()), dist_reduce_fx="sum")

    def set_dtype(self, dst_type: str | torch.dtype) -> PairMetric:
        """Set the dtype of the sums, at least float32, so that a sum over many images stays exact enough."""
        wanted = getattr(torch, dst_type) if isinstance(dst_type, str) else dst_type
        super().set_dtype(torch.promote_types(wanted, torch.float32))
        return self

    def _probabilities(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both as probabilities ``(M, K)``, float32 at least."""
        first, second = self._pair(p, q)
        return (first.softmax(-1), second.softmax(-1)) if self.logits else (first, second)

    def _pair(self, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both, checked, as they are given: ``(M, K)``, float32 at least."""
        for each in (p, q):
            if not (isinstance(each, Tensor) and is_float(each)):
                got = each.dtype if isinstance(each, Tensor) else type(each).__name__
                raise InputTypeError(f"p and q: expected floating tensors (..., K), got {got}")
            check_dense("p and q", each, "(..., K)")
        if p.device != q.device:
            raise InputError(f"p and q: expected tensors on one device, got {p.device} and {q.device}; move one before")
        if p.shape != q.shape or p.ndim < 2 or p.shape[-1] < 2:
            raise InputError(f"p and q: expected the same shape (..., K), K at least 2, got {tuple(p.shape)} and"
                             f" {tuple(q.shape)}")  # fmt: skip
        pair = [each.detach().to(torch.promote_types(each.dtype, torch.float32)).flatten(0, -2) for each in (p, q)]
        if self.validate:
            _check_values(torch.cat(pair), self.logits)
        return pair[0], pair[1]

    def _add(self, values: Tensor) -> None:
        self.total += values.sum().to(self.total.dtype)
        self.count += values.numel()

    def compute(self) -> Tensor:
        """The mean, a scalar; NaN before the first update."""
        return self.total / self.count


def _checked_classes(num_classes: Any) -> int:
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise InputTypeError(f"num_classes: expected an integer of at least 2, got {brief(num_classes)}")
    if num_classes < 2:
        raise InputError(f"num_classes: expected at least 2, got {num_classes}")
    return num_classes


def _check_values(values: Tensor, logits: bool) -> None:
    """Raise unless the values are finite and, without ``logits``, distributions; synchronizes with the device."""
    if not bool(torch.isfinite(values).all()):
        raise InputError("p and q: expected finite values, got NaN or infinity")
    if not logits and not bool(((values.sum(-1) - 1).abs() < 1e-2).all() & (values >= 0).all()):
        raise InputError("p and q: expected probabilities that sum to 1; pass logits=True if they are logits")


class PairMean(PairMetric):
    """The mean over pairs of a metric of `augkit.invariance.metrics`.

    Args:
        metric: name of a metric of two views, such as ``js``, ``mac`` or ``logit_change``.
        logits: whether ``update`` receives logits; required for metrics of logits.
        validate, torchmetrics_options: as in `TopOneChange`.

    >>> change = PairMean("logit_change", logits=True)
    >>> change.update(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]))
    >>> change.compute()
    tensor(1.5000)
    """

    def __init__(self, metric: str, **options: Any) -> None:
        super().__init__(**options)
        known = [row.name for row in metrics.ROWS if row.pairwise is not None]
        if metric not in known:
            raise unknown_name("metric", metric, known)
        self.metric = metric
        if self._pairwise.of == "logits" and not self.logits:
            raise InputError(f"metric '{metric}': it is of logits; pass logits=True, and logits to update")
        self._add_marker(metric=metric)

    @property
    def higher_is_better(self) -> bool | None:
        """Whether larger is better, from the row of the metric; None for neither."""
        return metrics.METRICS[self.metric].higher_is_better

    @property
    def _pairwise(self) -> metrics.Pairwise:
        return metrics.PAIRWISE[metrics.METRICS[self.metric].needs[0]]

    def update(self, p: Tensor, q: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, the same images under two shifts."""
        pair = self._pair(p, q) if self._pairwise.of == "logits" else self._probabilities(p, q)
        self._add(self._pairwise.function(*pair))


class TopOneChange(PairMetric):
    """Share of pairs whose most probable class differs (Azulay & Weiss 2019), in [0, 1].

    Args:
        logits: whether ``update`` receives logits, to which it applies a softmax, instead of probabilities.
        validate: check values, which synchronizes with the device; shapes are always checked.
        torchmetrics_options: options of `torchmetrics.Metric`, such as ``sync_on_compute``.

    >>> change = TopOneChange()
    >>> change.update(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([[0.8, 0.2], [0.3, 0.7]]))
    >>> change.compute()
    tensor(0.5000)
    """

    higher_is_better = metrics.METRICS["top1_change"].higher_is_better
    summed = torch.long  # exact, however many

    def update(self, p: Tensor, q: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, the same images under two shifts."""
        self._add(metrics.top1_change(*self._probabilities(p, q)))


class Consistency(TopOneChange):
    """Share of pairs whose most probable class is the same (Zhang 2019), in [0, 1]. Arguments: `TopOneChange`."""

    higher_is_better = metrics.METRICS["consistency"].higher_is_better

    def compute(self) -> Tensor:
        """1 minus the top-1 change, a scalar; NaN before the first update."""
        return 1 - super().compute()


class MeanAbsoluteChange(PairMetric):
    """Mean change in probability of the class that ``p`` favors (Azulay & Weiss 2019), in [0, 1].

    Swapping ``p`` and ``q`` changes it. Arguments: `TopOneChange`.
    """

    higher_is_better = metrics.METRICS["mac"].higher_is_better

    def update(self, p: Tensor, q: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, the same images under two shifts."""
        self._add(metrics.mean_absolute_change(*self._probabilities(p, q)))


class JensenShannon(PairMetric):
    """Mean Jensen-Shannon divergence in bits (Lin 1991), in [0, 1]. Arguments: `TopOneChange`."""

    higher_is_better = metrics.METRICS["js"].higher_is_better

    def update(self, p: Tensor, q: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, the same images under two shifts."""
        self._add(metrics.jensen_shannon(*self._probabilities(p, q)))


class ShiftInformation(PairMetric):
    """Share of the information in a network's outputs that is about the shift and not about the image, in [0, 1].

    Unlike `JensenShannon` it hardly depends on how confident the network is; see `augkit.invariance.information`. With
    two shifts per image it is half of its value with many shifts, for every network.

    Args:
        num_classes: K.
        logits, validate, torchmetrics_options: as in `TopOneChange`.
    """

    higher_is_better = metrics.METRICS["shift_information"].higher_is_better
    bits: Tensor
    probabilities: Tensor

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes = _checked_classes(num_classes)
        self.add_state("bits", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("probabilities", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, p: Tensor, q: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, the same images under two shifts."""
        views = torch.stack(self._probabilities(p, q), dim=1)
        views = views.to(widest(views.device))  # entropies of nearly certain outputs cancel in float32
        if views.shape[-1] != self.num_classes:
            raise InputError(f"p and q: expected {self.num_classes} classes, got {views.shape[-1]}")
        self._add(information.shift_bits(views))
        self.bits += information.entropy(views).mean(1).sum().to(self.bits.dtype)
        self.probabilities += views.mean(1).sum(0).to(self.probabilities.dtype)

    def compute(self) -> Tensor:
        """The share, a scalar; NaN before the first update, and where the answers carry no information."""
        means = {"shift_bits": self.total[None], "answer_bits": self.bits[None], "answer_mean": self.probabilities}
        return information.share_of_shift({name: total / self.count for name, total in means.items()})


class Kappa(PairMetric):
    """Consistency corrected for chance, at most 1; 0 for a constant classifier.

    Args:
        num_classes: K.
        logits, validate, torchmetrics_options: as in `TopOneChange`.
    """

    higher_is_better = metrics.METRICS["kappa"].higher_is_better
    summed = torch.long
    predictions: Tensor

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes = _checked_classes(num_classes)
        self._add_marker(num_classes=num_classes)
        self.add_state("predictions", torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, p: Tensor, q: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, the same images under two shifts."""
        p, q = self._probabilities(p, q)
        if p.shape[-1] != self.num_classes:
            raise InputError(f"p and q: expected {self.num_classes} classes, got {p.shape[-1]}")
        self._add(metrics.top1_change(p, q))
        answers = torch.cat([p, q]).argmax(-1)
        # A sum over one-hot rows, which is deterministic on a GPU, where bincount is not.
        self.predictions += torch.nn.functional.one_hot(answers, self.num_classes).sum(0)

    def compute(self) -> Tensor:
        """Kappa, a scalar; NaN before the first update."""
        shares = self.predictions / (2 * self.count)
        return metrics.kappa(self.total / self.count, shares)


class ShiftAccuracy(PairMetric):
    """Accuracy under shift: share of answers, under both shifts, that are the label. Arguments: `TopOneChange`.

    With ``worst=True`` a pair counts only where both answers are right.
    """

    higher_is_better = metrics.METRICS["shifted_accuracy"].higher_is_better
    summed = torch.long

    def __init__(self, *, worst: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.worst = check_flag("worst", worst)
        self._add_marker(worst=worst)

    def update(self, p: Tensor, q: Tensor, labels: Tensor) -> None:
        """Add pairs: ``p`` and ``q`` ``(..., K)``, and ``labels`` ``(...)``, class indices."""
        pair = self._probabilities(p, q)
        whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
        if not whole or labels.dtype == torch.bool or labels.shape != p.shape[:-1]:
            got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
            raise InputTypeError(f"labels: expected integers {tuple(p.shape[:-1])}, got {got}")
        labels = labels.flatten().to(torch.long)
        if self.validate and not bool(((labels >= 0) & (labels < p.shape[-1])).all()):
            got = f"{int(labels.min())} to {int(labels.max())}"
            raise InputError(f"labels: expected 0 to {p.shape[-1] - 1}, got {got}; leave out pairs without a label")
        right = torch.stack([each.argmax(-1) == labels for each in pair])
        self._add(right.all(0) if self.worst else right)


class EquivarianceError(PairMetric):
    """Mean relative difference between a moved map and the map of the moved image; 0 where the map moves with it.

    It is that of `augkit.measure_outputs`: the root mean square of ``T f(x) - f(T x)`` over the pixels that both share,
    relative to that of ``T f(x)`` about its mean, averaged over pairs. Constant maps are left out.

    Args:
        kernel: moves the map; ``fourier`` with ``circular``.
        circular: whether images are tori, so that all pixels are shared.
        validate, torchmetrics_options: as in `TopOneChange`.

    >>> error = EquivarianceError()
    >>> maps = torch.rand(2, 3, 8, 8)
    >>> error.update(maps, maps.roll(1, -1), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> error.compute()
    tensor(0.)
    """

    higher_is_better = False

    def __init__(self, *, kernel: str = "sinc", circular: bool = False, validate: bool = True, **options: Any) -> None:
        super().__init__(validate=validate, **options)
        known = ("fourier",) if check_flag("circular", circular) else tuple(HALF_WIDTH)
        if kernel not in known and not (circular and kernel == "sinc"):
            raise unknown_name("kernel", kernel, known)
        self.kernel, self.circular = "fourier" if circular else kernel, circular
        self._add_marker(kernel=self.kernel)

    def update(self, first: Tensor, second: Tensor, pixels: Tensor) -> None:
        """Add maps ``(B, C, h, w)`` of images and of the same images moved by ``pixels`` ``(B, 2)`` (x, y) of the map.

        A shift of the input by s pixels moves a map of stride r by ``s / r`` of its pixels.
        """
        for each in (first, second):
            if not (isinstance(each, Tensor) and is_float(each) and each.ndim == 4):
                got = f"{each.dtype} {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
                raise InputTypeError(f"first and second: expected floating maps (B, C, h, w), got {got}")
            check_dense("first and second", each, "(B, C, h, w)")
        if first.device != second.device:
            devices = f"{first.device} and {second.device}"
            raise InputError(f"first and second: expected tensors on one device, got {devices}; move one before")
        if not isinstance(pixels, Tensor) or pixels.is_complex() or pixels.dtype == torch.bool:
            kind = pixels.dtype if isinstance(pixels, Tensor) else type(pixels).__name__
            raise InputTypeError(f"pixels: expected a real tensor (B, 2), got {kind}")
        if first.shape != second.shape or pixels.shape != (len(first), 2):
            shapes = ", ".join(str(tuple(each.shape)) for each in (first, second, pixels))
            raise InputError(f"first, second, pixels: expected two maps of one shape and (B, 2), got {shapes}")
        if not len(first):
            return
        for name, values in (("first and second", torch.stack([first, second])), ("pixels", pixels)):
            if self.validate and not bool(torch.isfinite(values).all()):
                raise InputError(f"{name}: expected finite values, got NaN or infinity")
        maps = [each.detach().to(torch.promote_types(each.dtype, torch.float32)) for each in (first, second)]
        moves, size = snapped(pixels), (first.shape[-2], first.shape[-1])
        expected = moved(maps[0], moves, self.kernel, circular=self.circular)
        mask = torch.ones_like(maps[0][:, 0]) if self.circular else shared(size, moves, self.kernel).to(maps[0].dtype)
        found = energies(Region(expected, maps[1], mask, mask.sum((-2, -1)).clamp_min(1)))
        self.total += found["relative"].sum().to(self.total.dtype)
        self.count += found["varied"].sum().to(self.count.dtype)
