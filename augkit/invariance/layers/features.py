"""Penultimate features of a network: the input of its head."""

from __future__ import annotations

from torch import Tensor, nn

from augkit.core.errors import unknown_name


class Penultimate:
    """Context manager that keeps the features of the latest forward pass; its hooks are removed on exit.

    Args:
        model: the network.
        name: module whose output is kept; when None, the input of the last ``nn.Linear`` that ran is kept.

    Raises:
        InputError: the model has no module of that name.
    """

    def __init__(self, model: nn.Module, name: str | None = None) -> None:
        named = dict(model.named_modules())
        if name is not None and name not in named:
            raise unknown_name("module", name, named)
        self._name, self._answers = name, 0
        self._seen: Tensor | None = None
        self._hooks = (
            [named[name].register_forward_hook(self._keep_output)]
            if name is not None
            else [m.register_forward_hook(self._keep_input) for m in named.values() if isinstance(m, nn.Linear)]
        )

    def _keep_input(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module
        self._seen, self._answers = inputs[0], output.shape[-1]

    def _keep_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del module, inputs
        self._seen = output

    def features(self, logits: Tensor) -> Tensor | None:
        """Return the features ``(B, D)`` of the pass that returned ``logits`` ``(B, K)``.

        None where nothing was recorded, or where the output of the last linear layer is not ``(B, K)``.
        """
        seen, self._seen = self._seen, None  # held no longer than needed
        if not isinstance(seen, Tensor) or len(seen) != len(logits):
            return None
        if self._name is None and (self._answers != logits.shape[-1] or seen.ndim != 2):
            return None
        return seen.flatten(1)

    def __enter__(self) -> Penultimate:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
