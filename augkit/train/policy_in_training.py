"""What a recipe's policy needs of training: the epoch, for its schedule, the labels, for its classes, and the numbers
of the images, for its share of them and for even draws.

All of them follow from the recipe, the seed and the number of the update, so a run that resumes sees the same images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.augment.compose import Augment
from augkit.augment.even_draws import even_draws
from augkit.augment.op_strengths import Strength, scaled
from augkit.augment.ops.aug_mix import AugMixSettings
from augkit.augment.ragged import Ragged
from augkit.augment.whole_images import square_views
from augkit.core.errors import InputError
from augkit.core.random_streams import AUGMENTATION, random_stream
from augkit.train.augmix import VIEWS, three_views
from augkit.train.batches import Batch
from augkit.train.constraint import VIEWS as CONSTRAINED_VIEWS
from augkit.train.constraint import policy_with_shift, two_views
from augkit.train.distributed import Process
from augkit.train.recipe import Recipe


@dataclass(frozen=True)
class PolicyInTraining:
    """The policy of ``recipe`` on the batches of one process.

    Attributes:
        augment: on the device of training.
        chosen: whether the images of each class are augmented, ``(K,)`` bool there; None for all.
    """

    recipe: Recipe
    augment: Augment
    chosen: Tensor | None
    device: torch.device
    process: Process

    @classmethod
    def begin(cls, recipe: Recipe, classes: Sequence[str], device: torch.device, process: Process) -> PolicyInTraining:
        """The policy for a network of these ``classes``, by name.

        Raises:
            InputError: ``policy.classes`` names others.
        """
        if js_weight_of(recipe) and (recipe.train.mixup or recipe.train.cutmix):
            raise InputError(
                "policy.augmix.js_weight: expected no train.mixup or train.cutmix beside it, whose targets are not of"
                " one image; set them to 0"
            )
        normalize = (recipe.data.mean, recipe.data.std)
        policy = recipe.policy if recipe.constraint is None else policy_with_shift(recipe)
        augment = policy.augment(normalize=normalize, dtype=torch.float32).to(device)
        chosen = recipe.policy.class_mask(classes)
        return cls(recipe, augment, None if chosen is None else chosen.to(device), device, process)

    def images(self, batch: Batch, step: int, length: int) -> Tensor:
        """The images of ``batch`` augmented, for update number ``step``; an epoch has ``length`` updates.

        With `js_weight` each gives three, side by side (`augkit.train.augmix`); with a constraint, two
        (`augkit.train.constraint`).
        """
        generator = torch.Generator(self.device)
        generator.manual_seed(random_stream(self.recipe.seed, AUGMENTATION, step, self.process.rank))
        strength = self.strength(batch.labels, step / length, batch.augmented)
        augment, side = self.augment, self.recipe.data.image_size
        if isinstance(batch.images, Ragged) and side is not None:
            augment = square_views(augment, side)
        if self.recipe.constraint is not None:
            return two_views(augment, batch.images, generator, strength)
        draws = self.draws(batch, step // length)
        if self.js_weight:
            return three_views(augment, batch.images, generator, strength, draws)
        return torch.as_tensor(augment(batch.images, generator=generator, strength=strength, draws=draws))

    @property
    def js_weight(self) -> float:
        """The weight of AugMix's divergence between views; 0 where there is one view."""
        return js_weight_of(self.recipe)

    def strength(self, labels: Tensor, epoch: float, augmented: Tensor | None = None) -> Strength | None:
        """The strength of each op after ``epoch`` epochs, of each image where images differ; None for the policy's.

        Of ``labels`` that are probabilities ``(B, K)`` the most probable class counts. ``augmented`` is as in `Batch`.
        """
        policy, strength = self.recipe.policy, None
        if policy.schedule is not None:
            strength = {name: policy.strength_of(name, epoch) for name in self.augment.op_names}
        if self.chosen is not None:
            truth = labels.argmax(-1) if labels.ndim == 2 else labels
            augmented = self.chosen[truth] if augmented is None else self.chosen[truth] & augmented
        if augmented is None:
            return strength
        return scaled(self.augment.strength if strength is None else strength, augmented.float())

    def draws(self, batch: Batch, epoch: int) -> Tensor | None:
        """Even draws for the images of ``batch``, by their numbers; None where the policy has random ones."""
        if self.recipe.policy.draws != "even" or batch.numbers is None:
            return None
        counts = [op.draws for op in self.augment.geometry]
        return even_draws(counts, batch.numbers, epoch, self.recipe.seed)

    @property
    def views(self) -> int:
        """How many rows of `images` an image has, side by side."""
        if self.recipe.constraint is not None:
            return CONSTRAINED_VIEWS
        return VIEWS if self.js_weight else 1


def js_weight_of(recipe: Recipe) -> float:
    """``policy.augmix.js_weight`` of a recipe, where its policy has AugMix and a strength above 0."""
    settings = recipe.policy.own_ops.get("augmix")
    return settings.js_weight if isinstance(settings, AugMixSettings) and recipe.policy.strength else 0.0
