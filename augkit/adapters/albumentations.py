"""The CPU twin of a policy as an albumentations transform, and seeds for the workers of a DataLoader.

`PolicyTransform` and `Compose` are what `augkit.Policy.albumentations` makes. Albumentations 2.0.8 draws the same
augmentations in every worker and every epoch; `worker_init_fn` mends that for any pipeline in a dataset.
"""

from augkit.augment.albumentations_twin import Compose, PolicyTransform, seed_pipeline, worker_init_fn

__all__ = ["Compose", "PolicyTransform", "seed_pipeline", "worker_init_fn"]
