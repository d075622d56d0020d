"""A small detector and a small segmenter for ``flicker.py``, and their training.

Both have the same backbone of stride 4. The detector has a heat map for each class (CenterNet, Zhou et al. 2019,
https://arxiv.org/abs/1904.07850) and the distances to the four sides of the box (FCOS, Tian et al. 2019,
https://arxiv.org/abs/1904.01355). Its targets are Gaussians around the true center between the cells, not around the
cell that holds it: CenterNet's rounding would teach the flicker that is to be measured.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from flicker_shapes import CLASSES, Shapes, crop, draw
from torch import Tensor, nn

from augkit.architectures import BlurPool2d, DenseMaxPool2d

STRIDE = 4
SIDE = 64  # of the network's input, pixels
MARGIN = 8  # around it, on every side
WIDTHS = (8, 16, 32)
POOLS = ("maxpool", "blurpool")
BATCH = 16  # images of a training step
SIGMA = 1.0  # of the target's Gaussian, cells
MOST = 16  # boxes per image
LEAST_SCORE = 0.02
Detection = dict[str, Tensor]


def pool(kind: str) -> nn.Module:
    """Halve a map: by the largest of 2 x 2, or by the largest at stride 1, a binomial filter and every second pixel."""
    return nn.MaxPool2d(2) if kind == "maxpool" else nn.Sequential(DenseMaxPool2d(2), BlurPool2d(size=4, stride=2))


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution, batch norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Backbone(nn.Sequential):
    """Maps of an image ``(B, 1, H, W)`` at a fourth of its size, ``(B, 32, H / 4, W / 4)``."""

    def __init__(self, kind: str) -> None:
        a, b, c = WIDTHS
        super().__init__(block(1, a), pool(kind), block(a, b), pool(kind), block(b, c), block(c, c))


class Detector(nn.Module):
    """Gives torchvision's list of dicts in evaluation mode, and its maps in training."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.backbone = Backbone(kind)
        self.head = nn.Conv2d(WIDTHS[-1], len(CLASSES) + 4, 1)
        nn.init.constant_(self.head.bias[: len(CLASSES)], -3.0)  # rare objects

    def forward(self, images: Tensor) -> Tensor | list[Detection]:
        maps: Tensor = self.head(self.backbone(images))
        return maps if self.training else decode(maps)


class Segmenter(nn.Module):
    """Logits of background and classes, enlarged bilinearly to the size of the image: ``(B, 4, H, W)``."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.backbone = Backbone(kind)
        self.head = nn.Conv2d(WIDTHS[-1], len(CLASSES) + 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.head(self.backbone(images))
        return F.interpolate(maps, scale_factor=STRIDE, mode="bilinear", align_corners=False)


NETWORKS: dict[str, type[Detector] | type[Segmenter]] = {"detector": Detector, "segmenter": Segmenter}


def decode(maps: Tensor) -> list[Detection]:
    """Boxes at the local maxima of the heat map, at most `MOST` of an image."""
    heat, distances = maps[:, : len(CLASSES)].sigmoid(), F.softplus(maps[:, len(CLASSES) :])
    score, label = heat.max(1)
    peak = score == F.max_pool2d(score[:, None], 3, 1, 1)[:, 0]
    center = cells(maps)
    boxes = torch.cat([center - distances[:, :2] * STRIDE, center + distances[:, 2:] * STRIDE], dim=1)
    found = []
    for k in range(len(maps)):
        best = (score[k] * peak[k]).flatten().topk(MOST)
        at = best.indices[best.values > LEAST_SCORE]
        rows = boxes[k].flatten(1).T[at]
        found.append({"boxes": rows, "scores": score[k].flatten()[at], "labels": label[k].flatten()[at]})
    return found


def cells(maps: Tensor) -> Tensor:
    """Centers of the cells along the edges of pixels, ``(1, 2, h, w)`` as (x, y)."""
    y, x = (STRIDE * (torch.arange(n, dtype=maps.dtype, device=maps.device) + 0.5) for n in maps.shape[-2:])
    return torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))])[None]


def detection_loss(maps: Tensor, shapes: Shapes) -> Tensor:
    """Quality focal loss (Li et al. 2020, https://arxiv.org/abs/2006.04388) and L1 of the sides near the centers."""
    center = cells(maps)
    boxes = shapes.boxes[..., None, None]  # (B, N, 4, 1, 1)
    middle = (boxes[:, :, :2] + boxes[:, :, 2:]) / 2
    away = ((center[:, None] - middle) / STRIDE).square().sum(2)
    near = torch.exp(-away / (2 * SIGMA**2)) * (shapes.labels >= 0)[..., None, None]  # (B, N, h, w)
    heat = torch.stack([(near * (shapes.labels == k)[..., None, None]).amax(1) for k in range(len(CLASSES))], dim=1)
    logits = maps[:, : len(CLASSES)]
    entropy = F.binary_cross_entropy_with_logits(logits, heat, reduction="none")
    focal = ((logits.sigmoid() - heat).square() * entropy).sum()
    weight, which = near.max(1)
    weight = weight * (weight > math.exp(-1.0))
    sides = torch.cat([center[:, None] - boxes[:, :, :2], boxes[:, :, 2:] - center[:, None]], dim=2) / STRIDE
    wanted = sides.gather(1, which[:, None, None].expand(-1, 1, 4, -1, -1))[:, 0]
    off = (F.softplus(maps[:, len(CLASSES) :]) - wanted).abs().sum(1)
    return (focal + 0.25 * (weight * off).sum()) / (shapes.labels >= 0).sum().clamp(min=1)


def batch(count: int, generator: torch.Generator) -> Shapes:
    """Random windows of fresh images."""
    whole = draw(count, SIDE + 2 * MARGIN, generator)
    left, top = torch.randint(2 * MARGIN + 1, (2,), generator=generator).tolist()
    return crop(whole, left, top, SIDE)


def train(task: str, kind: str, seed: int, steps: int, keep: tuple[int, ...]) -> dict[int, dict[str, Tensor]]:
    """Train a network on fresh images; return its weights after each of the steps in ``keep``."""
    torch.manual_seed(seed)
    network = NETWORKS[task](kind).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.15)
    network.train()
    kept = {}
    for step in range(1, steps + 1):
        shapes = batch(BATCH, generator)
        output = network(shapes.images.contiguous(memory_format=torch.channels_last))
        loss = detection_loss(output, shapes) if task == "detector" else F.cross_entropy(output, shapes.classes)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in keep:
            kept[step] = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return kept
