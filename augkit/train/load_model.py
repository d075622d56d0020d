"""Loads the network of a MODEL argument, with the known facts about its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from augkit.architectures.external import (
    Embedder,
    open_clip_network,
    timm_network,
    torchvision_network,
    torchvision_weights,
    transformers_network,
)
from augkit.architectures.weights import final_layer, fit_weights, read_weights, unwrapped
from augkit.core.errors import InputError
from augkit.core.named import load_named
from augkit.core.schema import validate
from augkit.train.build import NetworkInput, build_recipe_model
from augkit.train.checkpoint import FILE as CHECKPOINT
from augkit.train.checkpoint import read_checkpoint
from augkit.train.export import WEIGHTS, network_input, read_facts
from augkit.train.recipe import Recipe

FORMS = "a run folder, a checkpoint, torchvision:NAME, timm:NAME, hf:NAME, open_clip:NAME or package.module:callable"
# Builds a network with a number of classes; with its own number when None.
Make = Callable[[int | None], nn.Module]


@dataclass(frozen=True)
class LoadedModel:
    """A network and facts about it, None where they are unknown.

    Attributes:
        model: gives logits ``(B, K)``, or embeddings ``(B, D)`` where ``embeds``.
        recipe: the recipe of a run of augkit.
        mean, std: per channel, of images in [0, 1].
        input_size: side of its input in pixels.
        channels: of its input, for a run of augkit.
        num_classes: K, the number of outputs of its final layer.
        crop_pct: the share of the shorter side that its own evaluation keeps: images are resized to
            ``input_size / crop_pct``, then the center is cropped.
        classes: names of the classes, in the order of its outputs.
        notes: sentences about exceptions, such as omitted weights.
        embeds: whether the network has no classifier, so that its output is an embedding.
    """

    model: nn.Module
    recipe: Recipe | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    input_size: int | None = None
    channels: int | None = None
    num_classes: int | None = None
    crop_pct: float | None = None
    classes: list[str] | None = None
    notes: tuple[str, ...] = ()
    embeds: bool = False


def load_model(
    source: str | Path, weights: str | Path | None = None, *, strict: bool = True, pretrained: bool = False
) -> LoadedModel:
    """Load a network.

    Args:
        source: a run folder or checkpoint of augkit, ``torchvision:NAME`` or ``torchvision:NAME@WEIGHTS`` (such as
            ``resnet50@IMAGENET1K_V2``), ``timm:NAME``, ``hf:NAME`` (transformers; NAME is on the hub or a folder),
            ``open_clip:NAME`` or ``open_clip:NAME/PRETRAINED``, or ``package.module:callable``, called without
            arguments.
        weights: a file with a state dict, see `augkit.architectures.weights.read_weights`. Networks of torchvision,
            timm and transformers are built with the number of classes of the weights.
        strict: raise an error if not all weights fit; otherwise load those that fit, and list the others in ``notes``.
        pretrained: load the trained weights that torchvision and timm have for their networks, from their caches or by
            a download. Without these and without ``weights``, ``torchvision:NAME``, ``timm:NAME`` and
            ``open_clip:NAME`` are untrained, as ``notes`` say. Others come with weights of their own, and nothing
            changes for them.

    Raises:
        InputError: the source does not exist, its own weights are asked for together with ``weights`` or cannot be
            downloaded, or the weights do not fit; the message lists the keys.
    """
    source, path = str(source), Path(source).expanduser()
    own = pretrained or (source.startswith("torchvision:") and "@" in source)
    if weights is not None and own:
        raise InputError(f"model '{source}': expected its own weights or those of --weights {weights}, got both")
    state = None if weights is None else read_weights(weights)
    if path.exists():
        loaded = _from_run(path)
    elif source.startswith("torchvision:"):
        loaded = _from_torchvision(source.removeprefix("torchvision:"), state, pretrained=pretrained)
    elif source.startswith("timm:"):
        loaded = _from_timm(source.removeprefix("timm:"), state, pretrained=pretrained)
    elif source.startswith("hf:"):
        loaded = _from_transformers(source.removeprefix("hf:"), state)
    elif source.startswith("open_clip:"):
        loaded = _from_open_clip(source.removeprefix("open_clip:"), pretrained=pretrained)
    elif ":" in source:
        loaded = _from_callable(source)
    else:
        raise InputError(f"model '{source}': expected {FORMS}; there is no such file or folder")
    if state is not None and weights is not None:
        left_out = fit_weights(loaded.model, state, weights, strict=strict)
        if left_out:
            return replace(loaded, notes=(f"weights '{weights}' were taken as far as they fit: {left_out}",))
    elif not own and (remedy := _untrained(source, path)):
        return replace(loaded, notes=(*loaded.notes, f"{source} is untrained: add {remedy}"))
    return loaded


def _untrained(source: str, path: Path) -> str | None:
    """What gives trained weights to a network that has none; None for one that has."""
    if path.exists():
        return None
    if source.startswith(("timm:", "torchvision:")):
        return "--pretrained for its own weights, or --weights FILE"
    if source.startswith("open_clip:") and "/" not in source:
        return "/PRETRAINED to its name, or --weights FILE"
    return None


def _from_run(path: Path) -> LoadedModel:
    """Load from a checkpoint, or from a folder with one, or with the files of `augkit.train.export`."""
    if path.is_dir() and not (path / CHECKPOINT).is_file():
        return _from_export(path)
    path = path / CHECKPOINT if path.is_dir() else path
    try:
        state = read_checkpoint(path)
    except InputError as error:
        raise InputError(f"{error}; for another network give package.module:callable, which returns it") from None
    if "recipe" not in state:
        raise InputError(f"'{path}': a bare state dict names no network; give MODEL and --weights {path}")
    recipe = validate(Recipe, state["recipe"], str(path))
    kept = state.get("input", {})
    if "model" in kept:
        own = f"'{path}' holds a network of your own ({kept['model']})"
        raise InputError(f"{own}; give package.module:callable --weights {path}")
    kinds = {"classes": list, "channels": int, "side": int}
    if not all(isinstance(kept.get(key), kind) for key, kind in kinds.items()):
        raise InputError(f"'{path}': expected a checkpoint of augkit, with 'input'; give MODEL and --weights {path}")
    given = NetworkInput(list(kept["classes"]), kept["channels"], kept["side"])
    return _built(recipe, given, state["model"], path)


def _from_export(folder: Path) -> LoadedModel:
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"model '{folder}': expected a run folder with {CHECKPOINT} or {WEIGHTS}, there is none")
    facts, recipe = read_facts(folder), Recipe.load(folder)
    if facts.model is not None or facts.channels is None or facts.side is None:
        own = f"'{folder}' holds a network of your own ({facts.model})"
        raise InputError(f"{own}; give package.module:callable --weights {folder / WEIGHTS}")
    return _built(recipe, network_input(facts), read_weights(folder / WEIGHTS), folder / WEIGHTS)


def _built(recipe: Recipe, given: NetworkInput, state: Mapping[str, Tensor], path: Path) -> LoadedModel:
    """The network of a recipe with the weights that came from ``path``."""
    model = build_recipe_model(recipe, given, recipe.seed, fresh=False)
    fit_weights(model, state, path)
    channels, side = given.image()
    return LoadedModel(
        model,
        recipe,
        recipe.data.mean,
        recipe.data.std,
        side,
        channels,
        len(given.classes),
        classes=given.classes,
    )


def _from_torchvision(source: str, state: Mapping[str, Tensor] | None, *, pretrained: bool) -> LoadedModel:
    name, given, version = source.partition("@")
    if given and not version:
        raise InputError(f"model 'torchvision:{source}': expected the name of its weights after @, such as @DEFAULT")
    trained = version or ("DEFAULT" if pretrained else None)
    model = _with_classes_of(lambda classes: torchvision_network(name, classes, weights=trained), state)
    best = torchvision_weights(name, version or "DEFAULT")  # describes the input, without a download
    preset = best.transforms()
    side, resized = preset.crop_size[0], preset.resize_size[0]
    described = LoadedModel(
        model,
        None,
        list(preset.mean),
        list(preset.std),
        side,
        crop_pct=side / resized,
        classes=list(best.meta["categories"]),
    )
    return _counted(described)


def _from_timm(name: str, state: Mapping[str, Tensor] | None, *, pretrained: bool) -> LoadedModel:
    return _described_by_timm(
        _with_classes_of(lambda classes: timm_network(name, classes, pretrained=pretrained), state)
    )


def _described_by_timm(model: nn.Module) -> LoadedModel:
    """Return the facts about the input in the ``pretrained_cfg`` of a network of timm."""
    found = getattr(model, "pretrained_cfg", None)
    config = found if isinstance(found, dict) else {}
    return _counted(
        LoadedModel(
            model,
            mean=list(config.get("mean") or ()) or None,
            std=list(config.get("std") or ()) or None,
            input_size=(config.get("input_size") or (None,))[-1],
            crop_pct=config.get("crop_pct"),
            classes=list(config.get("label_names") or ()) or None,
        )
    )


def _from_transformers(name: str, state: Mapping[str, Tensor] | None) -> LoadedModel:
    own = state is None  # weights that are given replace its own, which need not be downloaded then
    model = _with_classes_of(lambda classes: transformers_network(name, classes, pretrained=own), state)
    if isinstance(model, Embedder):
        return _with_processor(LoadedModel(model, embeds=True), name, model.network)
    config: Any = model.config
    named = [str(config.id2label.get(k, "")) for k in range(config.num_labels)]
    classes = None if all(name.startswith("LABEL_") for name in named) else named
    return _with_processor(LoadedModel(model, num_classes=config.num_labels, classes=classes), name, model)


def _with_processor(loaded: LoadedModel, name: str, network: Any) -> LoadedModel:
    """Add the facts of the image processor that was saved with a network of transformers."""
    from transformers import AutoImageProcessor

    side = getattr(getattr(network.config, "vision_config", network.config), "image_size", None)
    side = side if isinstance(side, int) else None
    folder = Path(name).expanduser()
    try:
        processor: Any = AutoImageProcessor.from_pretrained(str(folder) if folder.is_dir() else name)
    except Exception as error:  # none was saved, or it needs a package that is not installed
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        note = f"'hf:{name}' has no image processor ({why}), so mean and std of its images are unknown"
        return replace(loaded, input_size=side, notes=(note,))
    resized, cut = _edge(getattr(processor, "size", None)), _edge(getattr(processor, "crop_size", None))
    cut = cut if getattr(processor, "do_center_crop", False) and cut else None
    normal = bool(getattr(processor, "do_normalize", True))
    mean, std = processor.image_mean if normal else None, processor.image_std if normal else None
    channels = len(mean or ()) or 3
    return replace(
        loaded,
        mean=list(mean or [0.0] * channels),
        std=list(std or [1.0] * channels),
        input_size=cut or resized or side,
        crop_pct=cut / resized if cut and resized else 1.0,
    )


def _edge(size: Any) -> int | None:
    """The side in the ``size`` of an image processor: a number, or a dict of several forms."""
    if isinstance(size, int):
        return size
    found = (getattr(size, "get", lambda _: None)(key) for key in ("shortest_edge", "height", "longest_edge"))
    return next((int(value) for value in found if value), None)


def _from_open_clip(name: str, *, pretrained: bool) -> LoadedModel:
    if pretrained and "/" not in name:
        raise InputError(f"model 'open_clip:{name}': expected NAME/PRETRAINED with --pretrained, such as {name}/openai")
    model: Any = open_clip_network(name)
    config = getattr(model.visual, "preprocess_cfg", {})
    size = config.get("size") or getattr(model.visual, "image_size", None)
    side = size[0] if isinstance(size, tuple | list) else size
    return LoadedModel(model, None, list(config["mean"]), list(config["std"]), side, crop_pct=1.0, embeds=True)


def _from_callable(source: str) -> LoadedModel:
    make = load_named(source, "model")
    if not callable(make):
        raise InputError(f"model '{source}': expected a callable, got {type(make).__name__}")
    try:
        model = make()
    except Exception as error:  # the user's own code may raise anything; their traceback is one call away
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"model '{source}': calling it failed ({type(error).__name__}: {reason})") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model '{source}': expected it to return an nn.Module, got {type(model).__name__}")
    return _described_by_timm(model)


def _with_classes_of(make: Make, state: Mapping[str, Tensor] | None) -> nn.Module:
    """Build the network with its own number of classes, or with that of the final layer in ``state``."""
    model = make(None)
    final = final_layer(model)
    if state is None or final is None:
        return model
    weight = unwrapped(state, model.state_dict()).get(f"{final[0]}.weight")
    if weight is None or weight.ndim == 0 or len(weight) == final[1]:
        return model
    return make(len(weight))


def _counted(loaded: LoadedModel) -> LoadedModel:
    """Add K, from the network's ``num_classes`` or its final layer, and keep class names only if there are K."""
    own, final = getattr(loaded.model, "num_classes", None), final_layer(loaded.model)
    count = own if isinstance(own, int) and own > 0 else final[1] if final is not None else None
    named = loaded.classes is not None and len(loaded.classes) == count
    return replace(loaded, num_classes=count, classes=loaded.classes if named else None)
