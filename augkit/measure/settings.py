"""Settings of a measurement: images, displacements, analyses, and how the network is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from augkit.core.errors import InputError, brief, unknown_name
from augkit.invariance.network import MEMORY_FORMATS
from augkit.invariance.presets import PRESETS, Preset

ANALYZED = 64  # images
SPLITS = ("test", "validation", "all")
BATCHES = {"cpu": 32, "cuda": 256}  # images per forward pass; that of the CPU is by `benchmarks/measure_speed.py`
# The fields that a preset fixes, and those that conflict with a single displacement.
FIXED_BY_PRESET = ("protocol", "kernel", "background", "axis", "max_shift", "max_scale", "shift", "grid", "curves")
UNUSED_BY_SHIFT = ("axis", "max_shift", "max_scale", "pairs", "grid", "curves")


@dataclass(frozen=True)
class MeasureSettings:
    """Settings of one measurement; each field is the flag of ``python -m augkit.measure`` with that name.

    Attributes:
        weights: file with a state dict to load.
        pretrained: load the weights that torchvision and timm have for their networks, see `augkit.train.load_model`.
        strict: raise an error for weights that do not fit; ``--not-strict`` loads those that fit.
        ood: further datasets to measure beside the first.
        ood_builtin: also measure atypical versions of the images.
        labels: file that maps the classes of the data to the outputs of the network.
        skip_corrupt: omit files that cannot be read, and count them.
        max_megapixels: larger images are an error; Pillow's limit, 179, when None.
        root: folder of torchvision datasets.
        split: ``test``, ``validation``, or ``all`` for a network that was trained on none of the images.
        limit: measure this many images, stratified by class; all when None.
        image_size: resize and center-crop images of folders to this side (pixels). When None, images of several sizes
            get that of the network's input, and for ``crop`` the room of the largest displacement.
        crop_share: share of the shorter side that the cropped center shows, in (0, 1]; default: the run's own, else 1.
        decode_size: decode JPEG files at a half, a quarter or an eighth of their size where the shorter side keeps this
            many pixels, at least ``image_size / crop_share``; default: the run's own, else their full size.
        input_size: side of the network's input (pixels).
        mean, std: per channel, of images in [0, 1]; the network's own when None.
        preset: name of a published protocol; it fixes `FIXED_BY_PRESET`.
        protocol, kernel, background: see `augkit.invariance.make_protocol`; the run's own, else ``crop``, when None.
        axis: ``shift`` (when None) or ``scale``.
        max_shift: largest shift along each axis (pixels).
        max_scale: largest factor; 1.25 when None.
        shift: a single displacement ``(x, y)`` in pixels, compared with none.
        pairs: pairs of displacements per image; 4 when None.
        grid: ``(step,)`` or ``(step, extent)`` in pixels, for the worst case over a grid.
        curves: also measure response curves; ``--no-curves`` leaves them out.
        certify: find which layer breaks exact shift invariance, and why.
        layers: measure equivariance layer by layer.
        lie: measure Lie derivatives.
        relative: measure relative invariance of the penultimate features.
        probe_images: images for ``layers``, ``lie`` and ``relative``.
        precision: see `augkit.invariance.Network`.
        compile: compile the network first.
        batch_size: images per forward pass; `BATCHES` by device when None.
        memory_format: ``contiguous`` or ``channels_last``; when None the faster one on the first batch, contiguous for
            short measurements. It changes numbers by rounding alone.
        fold: fold batch norms into the convolutions before them; when None where that is faster on the first batch, not
            for short measurements nor on a GPU. It changes numbers by rounding alone.
        device: ``cpu``, ``cuda``, ...; a GPU if there is one when None.
        seed: seed of all random numbers.
        output_kind: kind of output, a key of `augkit.invariance.outputs.KINDS`; ``auto`` recognizes it, and takes
            ``(B, K)`` for logits. The fields below are for outputs other than logits.
        quantum: shifts are multiples of this many pixels; 1 when None, any fraction when 0.
        map_kernel: kernel that moves maps and images; chosen from their size when None.
        border: pixels of the input that are left out at each border of a map.
        gallery: dataset among whose embeddings neighbors are looked for; the images themselves when None.
        class_embeddings: file with the embeddings ``(K, D)`` of the classes, for zero-shot answers: ``.npy``, or a
            tensor saved by `torch.save`.
        neighbors: nearest neighbors of embeddings; 5 when None.
        box_score, box_iou, box_border, keypoint_score: see `augkit.invariance.outputs.OutputOptions`.
    """

    weights: Path | None = None
    pretrained: bool = False
    strict: bool = True
    ood: Sequence[str] = ()
    ood_builtin: bool = False
    labels: Path | None = None
    skip_corrupt: bool = False
    max_megapixels: int | None = None
    root: str | None = None
    split: str = "test"
    limit: int | None = None
    image_size: int | None = None
    crop_share: float | None = None
    decode_size: int | None = None
    input_size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    preset: str | None = None
    protocol: str | None = None
    kernel: str | None = None
    background: float | str | None = None
    axis: str | None = None
    max_shift: float | None = None
    max_scale: float | None = None
    shift: tuple[float, float] | None = None
    pairs: int | None = None
    grid: tuple[float, ...] | None = None
    curves: bool = True
    certify: bool = False
    layers: bool = False
    lie: bool = False
    relative: bool = False
    probe_images: int = ANALYZED
    precision: str = "float32"
    compile: bool = False
    batch_size: int | None = None
    memory_format: str | None = None
    fold: bool | None = None
    device: str | None = None
    seed: int = 0
    output_kind: str = "auto"
    quantum: float | None = None
    map_kernel: str | None = None
    border: float = 0.0
    gallery: str | None = None
    class_embeddings: Path | None = None
    neighbors: int | None = None
    box_score: float | None = None
    box_iou: float | None = None
    box_border: float | None = None
    keypoint_score: float | None = None

    def images_at_once(self, device: torch.device) -> int:
        """Return the images per forward pass on a device."""
        return self.batch_size or BATCHES.get(device.type, BATCHES["cpu"])

    def changed(self) -> dict[str, object]:
        """Return the fields that differ from their defaults.

        >>> MeasureSettings(max_shift=2.0, lie=True).changed()
        {'max_shift': 2.0, 'lie': True}
        """
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def read(self, model: str, data: str | None) -> list[str | Path | None]:
        """Return the names of all that a measurement of ``model`` on ``data`` reads, among them files and folders."""
        return [model, data, *self.ood, self.gallery, self.weights, self.labels, self.class_embeddings, self.root]

    def find_preset(self) -> Preset | None:
        """Return the published protocol of the name ``preset``; None without one.

        Raises:
            InputError: the name is unknown, or a field that the preset fixes is also set.
        """
        if self.preset is None:
            return None
        if self.preset not in PRESETS:
            raise unknown_name("preset", self.preset, PRESETS)
        for name in FIXED_BY_PRESET:
            if name in self.changed():
                raise InputError(f"--preset {self.preset} fixes {flag(name)}: leave one of them out")
        return PRESETS[self.preset]

    def check(self) -> None:
        """Raise InputError if fields contradict each other."""
        if not self.strict and self.weights is None:
            raise InputError("--not-strict: expected --weights FILE, of which it takes what fits")
        if self.crop_share is not None and not 0 < self.crop_share <= 1:
            raise InputError(f"--crop-share: expected a number above 0 and at most 1, got {brief(self.crop_share)}")
        if self.split not in SPLITS:
            raise unknown_name("split", self.split, SPLITS)
        if self.memory_format not in (None, *MEMORY_FORMATS):
            raise unknown_name("memory format", str(self.memory_format), MEMORY_FORMATS)
        if self.fold and self.compile:
            raise InputError("--fold: expected no --compile, whose graph keeps the weights as they were; leave one out")
        self.find_preset()
        if self.shift is not None:
            for name in UNUSED_BY_SHIFT:
                if name in self.changed():
                    raise InputError(f"--shift is one displacement against none: leave out {flag(name)}")


def flag(name: str) -> str:
    """Return the command-line flag of a field.

    >>> flag("max_shift"), flag("curves")
    ('--max-shift', '--no-curves')
    """
    return "--no-curves" if name == "curves" else f"--{name.replace('_', '-')}"
