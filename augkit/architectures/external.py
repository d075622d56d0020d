"""Networks of timm and torchvision by name, untrained unless said otherwise."""

from __future__ import annotations

from torch import nn

from augkit.core.errors import InputError, unknown_name


def timm_network(name: str, classes: int | None, *, channels: int = 3, pretrained: bool = False) -> nn.Module:
    """The network of timm called ``name``; ``classes`` None keeps its own number. ``pretrained`` downloads weights.

    Raises:
        InputError: timm is not installed, does not know the name, or cannot make or download it.
    """
    try:
        import timm
    except ImportError:
        raise InputError("model 'timm:...': timm is not installed; pip install 'augkit[timm]'") from None
    if "/" not in name and not timm.is_model(name.partition(".")[0]):
        raise unknown_name("timm model", name, timm.list_models())
    try:
        made: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels)
    except Exception as error:  # timm's own kinds, and those of the hub's client for hf-hub:NAME
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"model 'timm:{name}': {reason[:200]}") from None
    return made


def torchvision_network(name: str, classes: int | None) -> nn.Module:
    """The network of torchvision called ``name``; ``classes`` None keeps its own number.

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
