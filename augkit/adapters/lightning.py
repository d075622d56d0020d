"""Augment the training batches of a Lightning ``Trainer``, on its device; needs the extra ``lightning``.

>>> import augkit
>>> from augkit.adapters.lightning import AugmentCallback
>>> callback = AugmentCallback(augkit.Augment(augkit.RandomSubpixelShift(2.0)))
>>> batch = [torch.rand(4, 3, 16, 16), torch.arange(4)]
>>> callback.on_train_batch_start(None, None, batch, 0)  # what lightning.Trainer(callbacks=[callback]) does
>>> batch[0].shape
torch.Size([4, 3, 16, 16])
"""

from __future__ import annotations

from collections.abc import MutableMapping, MutableSequence
from typing import Any

import lightning

from augkit.adapters.batch import IMAGES_FIRST, Keys, augmented, check_arguments, has_sizes
from augkit.augment.compose import Augment
from augkit.core.errors import InputTypeError


class AugmentCallback(lightning.Callback):
    """Replaces the images (and targets) of each training batch, but not of validation, test and prediction.

    Images of different sizes, an `augkit.Ragged` or a list, are replaced there as well: by what ``augment`` gives in
    ``eval()``, their centers fitted to its output size.

    Lightning passes the batch itself to a callback, so it is changed in place. It must be a list or a dict, as returned
    by torch's default collation.

    The result is converted as Lightning converts its input, such as to bfloat16 under ``precision="bf16-true"``. Under
    DDP each rank has its own draws, even where ``seed_everything`` seeded all ranks alike, and a seed repeats them.

    Args:
        augment: the augmentation; it is moved to the batch's device.
        keys: keys of images and targets in a batch; the first entry by default.
    """

    def __init__(self, augment: Augment, keys: Keys = IMAGES_FIRST) -> None:
        check_arguments("AugmentCallback", augment, keys)
        self.augment, self.keys = augment, keys

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        del trainer
        self.augment.to(pl_module.device)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        del pl_module, batch_idx
        self._replace(trainer, batch)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self._fit(trainer, pl_module, batch)

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self._fit(trainer, pl_module, batch)

    def on_predict_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self._fit(trainer, pl_module, batch)

    def _fit(self, trainer: Any, pl_module: Any, batch: Any) -> None:
        if not has_sizes(batch, self.keys.images):
            return
        training = self.augment.training
        try:
            self.augment.to(pl_module.device).eval()
            self._replace(trainer, batch)
        finally:
            self.augment.train(training)

    def _replace(self, trainer: Any, batch: Any) -> None:
        if not isinstance(batch, (MutableSequence, MutableMapping)):
            raise InputTypeError(
                f"AugmentCallback: expected batches that are lists or dicts, got {type(batch).__name__}; "
                "make collate_fn return a list"
            )
        values = augmented(self.augment, batch, self.keys)
        if trainer is not None:  # Lightning has converted the batch already, but uint8 becomes floating only now
            values = trainer.precision_plugin.convert_input(values)
        for key, value in values.items():
            batch[key] = value  # type: ignore[index]
