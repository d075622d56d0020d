"""Networks of timm and torchvision by name, untrained by default; of transformers and open_clip, with their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from augkit.architectures.weights import final_layer
from augkit.core.errors import InputError, unknown_name


def timm_network(name: str, classes: int | None, *, channels: int = 3, pretrained: bool = False) -> nn.Module:
    """Build a network of timm.

    Args:
        name: name of the network in timm.
        classes: number of classes; the network's own number when None.
        channels: channels of the images.
        pretrained: download trained weights.

    Raises:
        InputError: timm is not installed, does not know the name, or cannot build or download the network.
    """
    try:
        import timm
    except ImportError:
        raise InputError("model 'timm:...': timm is not installed; pip install 'augkit[timm]'") from None
    if "/" not in name and not timm.is_model(name.partition(".")[0]):
        raise unknown_name("timm model", name, timm.list_models())
    try:
        made: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels)
    except Exception as error:  # timm's own exceptions, and those of the hub's client for hf-hub:NAME
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"model 'timm:{name}': {reason[:200]}") from None
    return made


def torchvision_weights(name: str, version: str) -> Any:
    """The trained weights of a network of torchvision, and the facts about them; nothing is downloaded.

    Args:
        name: name of the network in torchvision.
        version: name of its weights, such as ``IMAGENET1K_V2``, or ``DEFAULT``.

    Raises:
        InputError: torchvision does not know the network or the weights.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name.lower() not in known:
        raise unknown_name("torchvision model", name, known)
    found = models.get_model_weights(name)
    if version not in found.__members__:
        raise unknown_name(f"weights of torchvision's {name}", version, list(found.__members__))
    return found[version]


def torchvision_network(name: str, classes: int | None, *, weights: str | None = None, load: bool = True) -> nn.Module:
    """Build a network of torchvision.

    Args:
        name: name of the network in torchvision.
        classes: number of classes; the network's own number when None.
        weights: name of trained weights, such as ``IMAGENET1K_V2``, or ``DEFAULT``, downloaded unless torch's cache has
            them; a final layer of another number of classes is untrained. All of the network is when None.
        load: whether to load them. If not, the network has the form that they need, such as the size of its positions.

    Raises:
        InputError: torchvision does not know the network or the weights, or they cannot be downloaded.
    """
    from torchvision import models

    trained = torchvision_weights(name, weights or "DEFAULT")
    if weights is None:
        # Without the option, these two warn that its default will change.
        options = {"init_weights": True} if name.lower() in ("googlenet", "inception_v3") else {}
        count = {} if classes is None else {"num_classes": classes}
        untrained: nn.Module = models.get_model(name, weights=None, **options, **count)
        return untrained
    if not load:
        blank: nn.Module = models.get_model(
            name,
            weights=None,
            **_trained_form(name.lower(), trained),
            **({} if classes is None else {"num_classes": classes}),
        )
        return blank
    options = {"aux_logits": False} if name.lower() == "inception_v3" else {}  # as googlenet's are when trained
    try:
        made: nn.Module = models.get_model(name, weights=trained, progress=False, **options)
    except Exception as error:  # of urllib, the file system, or torch.hub for a broken download
        raise _not_had(f"model 'torchvision:{name}'", error, "the connection, or give a file of weights") from None
    final = final_layer(made)
    if classes is not None and final is not None and final[1] != classes:
        made.set_submodule(final[0], _resized(made.get_submodule(final[0]), classes))
    return made


def _trained_form(name: str, trained: Any) -> dict[str, object]:
    """The arguments by which torchvision builds a network for these weights in another form than without."""
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True, "aux_logits": False, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": trained.meta["min_size"][0]}
    return {}


def _resized(layer: nn.Module, classes: int) -> nn.Module:
    """A fresh final layer of the same inputs with another number of classes."""
    if isinstance(layer, nn.Conv2d):
        return nn.Conv2d(layer.in_channels, classes, 1, bias=layer.bias is not None)
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, classes, bias=layer.bias is not None)


def transformers_network(name: str, classes: int | None = None, *, pretrained: bool = True) -> nn.Module:
    """Load a network of transformers: a classifier if it was saved as one, else an `Embedder`.

    Args:
        name: name on the Hugging Face hub, or a folder that ``save_pretrained`` wrote. The cache of the hub and
            ``HF_HUB_OFFLINE`` are honored. Code that comes with a model is never run.
        classes: number of classes of a classifier; the network's own number when None.
        pretrained: load its weights, not only its configuration.

    Raises:
        InputError: transformers is not installed, there is no such network, or loading it needs an internet
            connection.
    """
    try:
        from transformers import AutoConfig, AutoModel, AutoModelForImageClassification
    except ImportError:
        raise InputError("model 'hf:...': transformers is not installed; pip install 'augkit[transformers]'") from None
    where, folder = f"model 'hf:{name}'", Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(f"{where}: expected a folder with config.json, as save_pretrained writes it, there is none")
    if not folder.is_dir() and (name[:1] in "./~" or name.count("/") > 1):
        raise InputError(f"{where}: there is no such folder; give one, or the name of a model on the hub")
    source = str(folder) if folder.is_dir() else name
    try:
        config = AutoConfig.from_pretrained(source)
        saved_as = " ".join(getattr(config, "architectures", None) or ())
        kind: Any = AutoModelForImageClassification if "ForImageClassification" in saved_as else AutoModel
        if classes is not None and kind is AutoModelForImageClassification:
            config.num_labels = classes
        if not pretrained:
            made: nn.Module = kind.from_config(config)
            missing: Any = ()
        else:
            made, loading = kind.from_pretrained(
                source, config=config, output_loading_info=True, ignore_mismatched_sizes=classes is not None
            )
            missing = loading["missing_keys"]
    except Exception as error:  # of transformers, the client of the hub, or the files
        raise _not_had(where, error, "the name, the connection, HF_HUB_OFFLINE, or give a folder") from None
    pooler = not any("pooler" in key for key in missing)
    return made if kind is AutoModelForImageClassification else Embedder(made, pooler)


def open_clip_network(name: str) -> nn.Module:
    """Build the image tower of a network of open_clip, which gives embeddings ``(B, D)``.

    Args:
        name: ``NAME`` (untrained), ``NAME/PRETRAINED`` (a tag of open_clip or a file), or ``hf-hub:OWNER/NAME``.

    Raises:
        InputError: open_clip is not installed, does not know the name or the tag, or cannot download the weights.
    """
    try:
        import open_clip
    except ImportError:
        raise InputError("model 'open_clip:...': open_clip is not installed; pip install open_clip_torch") from None
    where = f"model 'open_clip:{name}'"
    hub = name.startswith(("hf-hub:", "local-dir:"))
    kind, _, tag = (name, "", "") if hub else name.partition("/")
    if not hub:
        if kind not in open_clip.list_models():
            raise unknown_name("open_clip model", kind, open_clip.list_models())
        tags = open_clip.list_pretrained_tags_by_model(kind)
        if tag and tag not in tags and not Path(tag).expanduser().is_file():
            raise unknown_name(f"weights of open_clip's {kind}", tag, tags)
    try:
        made = open_clip.create_model(kind, pretrained=str(Path(tag).expanduser()) if tag else None)
    except Exception as error:  # of open_clip, the client of the hub, or the files
        raise _not_had(where, error, "the connection, HF_HUB_OFFLINE, or give a file of weights") from None
    return ImageTower(made)


def _not_had(where: str, error: Exception, remedy: str) -> InputError:
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(f"{where}: expected a network that can be loaded, got none ({text[:160]}); check {remedy}")


class Embedder(nn.Module):
    """A network of transformers without a classifier; maps images ``(B, C, H, W)`` to embeddings ``(B, D)``.

    These are the image features if it also embeds texts (CLIP), else its pooled output, else its class token, else
    the mean over places.

    Args:
        network: the network.
        pooler: whether its pooled output was trained.
    """

    def __init__(self, network: nn.Module, pooler: bool = True) -> None:
        super().__init__()
        self.network, self.pooler = network, pooler
        self.has_token = any(name.endswith(("cls_token", "class_embedding")) for name, _ in network.named_parameters())

    def forward(self, images: Tensor) -> Tensor:
        features = getattr(self.network, "get_image_features", None)
        output: Any = self.network(images) if features is None else features(pixel_values=images)
        pooled: Any = output if isinstance(output, Tensor) else getattr(output, "pooler_output", None)
        if isinstance(pooled, Tensor) and self.pooler:
            return pooled.flatten(1)
        last: Tensor = output.last_hidden_state
        if last.ndim == 4:
            return last.mean((2, 3))
        return last[:, 0] if self.has_token else last.mean(1)


class ImageTower(nn.Module):
    """The image tower of an open_clip network; maps images ``(B, C, H, W)`` to embeddings ``(B, D)``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.visual: Any = network.visual

    def forward(self, images: Tensor) -> Tensor:
        output = self.visual(images)
        pooled: Tensor = output[0] if isinstance(output, tuple) else output
        return pooled
