"""The source of a module with a small training loop, for tests that import it by name, also in other processes."""

LOOP = """
from pathlib import Path
import time

import torch
from torch import nn

import augkit


def shapes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 0.2 * torch.rand(count, 1, 12, 12, generator=generator)
    places = torch.randint(3, 6, (count, 2), generator=generator).tolist()
    for image, label, (y, x) in zip(images, labels, places, strict=True):
        if label == 0:
            image[0, y : y + 4, x : x + 4] = 1
        image[0, y + 2, x : x + 5] = 1 if label == 1 else image[0, y + 2, x : x + 5]
        image[0, y : y + 5, x + 2] = 1 if label else image[0, y : y + 5, x + 2]
    return images, labels


IMAGES, LABELS = shapes(60, 0)
validation = shapes(60, 1)
space = augkit.Policy(shift={"max_pixels": 1.0})
policies = {"shifted": space, "far": augkit.Policy(shift={"max_pixels": 2.0})}


def network(outputs=3):
    layers = nn.Conv2d(1, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(54, outputs))


def train(policy, *, epochs, seed, start):
    torch.manual_seed(seed)
    model, augment = network(), policy.augment()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(5 * epochs):
        loss = nn.functional.cross_entropy(model(augment(IMAGES)), LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def slow(policy, *, epochs, seed, start):
    time.sleep(1.0)
    model = train(policy, epochs=epochs, seed=seed, start=start)
    if start is not None:
        (start / f"epoch-{epochs}").touch()
    return model


def half(model):
    return 0.5
"""
