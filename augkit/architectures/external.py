"""Networks of timm and torchvision by name, untrained by default."""

from __future__ import annotations

from torch import nn

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


def torchvision_network(name: str, classes: int | None) -> nn.Module:
    """Build a network of torchvision without trained weights.

    Args:
        name: name of the network in torchvision.
        classes: number of classes; the network's own number when None.

    Raises:
        InputError: torchvision does not know the name.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name.lower() not in known:
        raise unknown_name("torchvision model", name, known)
    # Without the option, these two warn that its default will change.
    options = {"init_weights": True} if name.lower() in ("googlenet", "inception_v3") else {}
    count = {} if classes is None else {"num_classes": classes}
    made: nn.Module = models.get_model(name, weights=None, **options, **count)
    return made
