"""Images per second of training with and without augmentation, and of the same training with torchvision or kornia.

    python benchmarks/training.py                  # CPU, about 5 minutes; writes results/training-cpu.json
    python benchmarks/training.py --device cuda    # writes results/training-cuda.json
    python benchmarks/training.py --quick          # a smoke run of seconds; writes nothing unless --output is given

One network and one optimizer take turns on four sources of batches, in random order in every round:

- ``none``: images that lie on the device as uint8, normalized and nothing else;
- ``augkit``: the same, with a shift of up to 4 px, rescaling by up to 1.25, a crop of 35 to 100 % of the area, a flip;
- ``kornia``: the same ranges as a sequence of kornia's ops on the device (the shift and the scale in one op);
- ``torchvision``: the same ranges by torchvision v2, image by image in two workers, which decode nothing.

A turn is some steps, timed from the first batch on; a round's ratio is a source's time over that of ``none``, and its
interval a 95 % bootstrap of the median over rounds. ``source`` is the time that the batches alone take, over that of
the steps without augmentation: below 1 they can keep up, if they are made at the same time.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import environment, loads
from torch import Tensor, nn

import augkit

HERE = Path(__file__).parent
PACKAGES = ["torch", "torchvision", "kornia", "numpy", "numba", "triton", "augkit"]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PIXELS, FACTOR, AREA, RATIO = 4.0, 1.25, (0.35, 1.0), (3 / 4, 4 / 3)
SIDE, COUNT = 32, 2048
# network, images per step, steps per turn, precision
CASES = {
    "cpu": [("resnet18", 64, 2, torch.float32), ("small_cnn", 64, 40, torch.float32)],
    "cuda": [("resnet18", 512, 40, torch.bfloat16), ("resnet18", 512, 20, torch.float32)],
}
AIM = {"cpu": 1.15, "cuda": 1.05}  # of a ResNet-18 step
Batch = tuple[Tensor, Tensor]
Source = Callable[[], Iterator[Batch]]


def images_and_labels() -> Batch:
    """Noise: what an image shows does not change how long it takes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (COUNT,), generator=generator)


def on_device(augment: Callable[[Tensor], Tensor], batch: int, device: str) -> Source:
    """Random batches of images that lie on the device, through ``augment``."""
    images, labels = (values.to(device) for values in images_and_labels())

    def batches() -> Iterator[Batch]:
        while True:
            chosen = torch.randint(0, COUNT, (batch,)).to(device)
            yield augment(images[chosen]), labels[chosen]

    return batches


def sources(batch: int, device: str) -> dict[str, Source]:
    """The contenders."""
    geometry = {"kernel": "bilinear", "padding": "zeros", "normalize": (MEAN, STD), "dtype": torch.float32}
    ops = [
        augkit.RandomSubpixelShift(PIXELS),
        augkit.RandomRescale(FACTOR),
        augkit.RandomSubpixelCrop(area=AREA, ratio=RATIO),
        augkit.RandomHorizontalFlip(),
    ]
    return {
        "none": on_device(augkit.Augment(**geometry).to(device), batch, device),  # type: ignore[arg-type]
        "augkit": on_device(augkit.Augment(*ops, **geometry).to(device), batch, device),  # type: ignore[arg-type]
        "kornia": on_device(with_kornia(device), batch, device),
        "torchvision": with_torchvision(batch, device),
    }


def with_kornia(device: str) -> Callable[[Tensor], Tensor]:
    """kornia's ops in sequence, on floats."""
    import kornia.augmentation as K

    ops = [
        K.RandomAffine(0.0, (PIXELS / SIDE, PIXELS / SIDE), (1 / FACTOR, FACTOR), p=1.0),
        K.RandomResizedCrop((SIDE, SIDE), AREA, RATIO, p=1.0),
        K.RandomHorizontalFlip(),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ]
    sequence = nn.Sequential(*ops).to(device)
    return lambda images: sequence(images.float() / 255)


def with_torchvision(batch: int, device: str) -> Source:
    """torchvision v2 per image, in workers."""
    from torchvision.transforms import v2

    affine = v2.RandomAffine(
        0, (PIXELS / SIDE, PIXELS / SIDE), (1 / FACTOR, FACTOR), interpolation=v2.InterpolationMode.BILINEAR
    )
    transform = v2.Compose(
        [
            affine,
            v2.RandomResizedCrop((SIDE, SIDE), AREA, RATIO, antialias=False),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    images, labels = images_and_labels()

    class Samples(torch.utils.data.Dataset[Batch]):
        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, index: int) -> Batch:
            return transform(images[index]), labels[index]

    loader = torch.utils.data.DataLoader(
        Samples(), batch, shuffle=True, drop_last=True, num_workers=2, pin_memory=device == "cuda"
    )

    def batches() -> Iterator[Batch]:
        while True:
            for inputs, targets in loader:
                yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)

    return batches


def trainer(name: str, device: str, precision: torch.dtype) -> Callable[[Tensor, Tensor], None]:
    """One update of the weights."""
    model = augkit.build_model(name, num_classes=10, in_channels=3, seed=0)
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def update(inputs: Tensor, targets: Tensor) -> None:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device, precision, enabled=precision != torch.float32):
            loss = F.cross_entropy(model(inputs), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return update


def turn(batches: Iterator[Batch], update: Callable[[Tensor, Tensor], None] | None, steps: int, device: str) -> float:
    """Seconds of ``steps`` steps; of making the batches alone without ``update``."""
    next(batches)  # workers have started
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        inputs, targets = next(batches)
        if update is not None:
            update(inputs, targets)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def race(case: tuple[str, int, int, torch.dtype], device: str, rounds: int) -> dict[str, Any]:
    """Images per second of every source, and ratios to ``none``, over rounds in which they take turns."""
    name, batch, steps, precision = case
    update, contenders = trainer(name, device, precision), sources(batch, device)
    for make in contenders.values():
        turn(make(), update, 1, device)
    times: dict[str, list[float]] = {key: [] for key in contenders}
    alone: dict[str, list[float]] = {key: [] for key in contenders}
    for _ in range(rounds):
        for key in random.sample(list(contenders), len(contenders)):
            times[key].append(turn(contenders[key](), update, steps, device))
            alone[key].append(turn(contenders[key](), None, steps, device))
    base = np.array(times["none"])
    rows = {}
    for key, found in times.items():
        ratios = np.array(found) / base
        drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
        low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
        rows[key] = {
            "images_per_second": round(batch * steps / float(np.median(found)), 1),
            "ratio": [round(float(v), 4) for v in (np.median(ratios), low, high)],
            "source": round(float(np.median(alone[key]) / np.median(base)), 4),
        }
    return {
        "network": name,
        "input": SIDE,
        "batch": batch,
        "steps": steps,
        "precision": str(precision).removeprefix("torch."),
        "n": rounds,
        "rows": rows,
        "aim": AIM[device] if name == "resnet18" else None,
        "met": rows["augkit"]["ratio"][0] <= AIM[device] if name == "resnet18" else None,
    }


def main() -> None:
    """Race, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="a small network, two rounds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file; results/training-DEVICE.json")
    parser.add_argument("--note", default="", help="a remark for the results, such as what else was running")
    options = parser.parse_args()
    random.seed(0)
    record = environment(options.device, PACKAGES) | {"note": options.note}
    cases = [("small_cnn", 32, 3, torch.float32)] if options.quick else CASES[options.device]
    cells = []
    for case in cases:
        cells.append(race(case, options.device, 2 if options.quick else options.rounds))
        for key, row in cells[-1]["rows"].items():
            ratio, low, high = row["ratio"]
            shown = f"{ratio:.3f} [{low:.3f}, {high:.3f}]  source {row['source']:.3f}"
            print(f"{case[0]:10s} {key:12s} {row['images_per_second']:9,.0f} images/s  {shown}", flush=True)
    record |= {"cases": cells, "load_after": loads()}
    output = options.output or HERE / "results" / f"training-{options.device}.json"
    if options.output or not options.quick:
        output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
