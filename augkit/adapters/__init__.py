"""Adapters of augkit for other training loops. Import a module by its name; each needs only its own library.

- `augkit.adapters.albumentations`: the CPU twin of a policy, and the seeding of DataLoader workers.
- `augkit.adapters.collate`: augment inside ``collate_fn``.
- `augkit.adapters.torchvision`: a transform for ``torchvision.transforms.v2.Compose``.
- `augkit.adapters.torchmetrics`: the output metrics for evaluation loops; an extra of the same name.
- `augkit.adapters.lightning`, `augkit.adapters.timm`, `augkit.adapters.huggingface`: extras of the same names.
"""
