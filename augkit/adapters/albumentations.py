"""The CPU twin of a policy as an albumentations transform, and seeds for the workers of a DataLoader.

`augkit.Policy.albumentations` returns a `Compose` with a `PolicyTransform`. Albumentations 2.0.8 draws the same
augmentations in every worker and every epoch; `worker_init_fn` corrects that for any pipeline in a dataset.

>>> import augkit, numpy
>>> policy = augkit.Policy(shift={"max_pixels": 2.0}, flip={})
>>> twin = policy.albumentations(size=(32, 32), seed=0)
>>> twin(image=numpy.zeros((32, 32, 3), numpy.uint8))["image"].shape
(32, 32, 3)
"""

from augkit.augment.albumentations_twin import Compose, PolicyTransform, seed_pipeline, worker_init_fn

__all__ = ["Compose", "PolicyTransform", "seed_pipeline", "worker_init_fn"]
