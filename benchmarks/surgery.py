"""Surgery over families of torchvision and timm: what is changed, what stays, and how far logits still move.

Each network has random weights, in all its branches (many start with scales of 0, which hide a branch), and batch
norm statistics of the images it is measured on: crops of the two photographs of scikit-learn, on the torus. The
movement is that of logits under shifts by one pixel (right, down, both), in float32: its root mean square, as a share
of the standard deviation of the logits over images. 1.4 is what two unrelated images differ by.

- **as it is**: the network with its own padding. **circular**: only the padding is changed.
- **blurpool**, **aps**: `augkit.antialias` with circular padding.
- **aps, double**: the largest change of a logit as a share of the largest logit, in float64, under those shifts and two
  of more pixels. Where it is exact, it is rounding.

    python benchmarks/surgery.py                 # twenty minutes on one core; writes surgery.json and surgery.md
    python benchmarks/surgery.py --only resnet18 vgg11_bn    # measures these rows and keeps the others of surgery.json
    python benchmarks/surgery.py --only transformers
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torchvision import models

from augkit.architectures import antialias, surgery_report
from augkit.architectures.antialiased_layer import change_padding
from augkit.architectures.strided_calls import trace
from augkit.core.errors import InputError
from augkit.core.files import environment, write

# Family, network, side of the image: 128, or what the network needs for no map to be smaller than its padding.
FAMILIES = [
    ("alexnet", "torchvision:alexnet", 128),
    ("vgg", "torchvision:vgg11_bn", 128),
    ("resnet", "torchvision:resnet18", 128),
    ("resnet", "torchvision:resnet50", 128),
    ("resnext", "torchvision:resnext50_32x4d", 128),
    ("wide_resnet", "torchvision:wide_resnet50_2", 128),
    ("densenet", "torchvision:densenet121", 128),
    ("googlenet", "torchvision:googlenet", 128),
    ("inception", "torchvision:inception_v3", 192),
    ("mobilenet v2", "torchvision:mobilenet_v2", 128),
    ("mobilenet v3", "torchvision:mobilenet_v3_small", 128),
    ("mnasnet", "torchvision:mnasnet0_5", 128),
    ("shufflenet", "torchvision:shufflenet_v2_x0_5", 128),
    ("squeezenet", "torchvision:squeezenet1_1", 128),
    ("efficientnet", "torchvision:efficientnet_b0", 128),
    ("efficientnet v2", "torchvision:efficientnet_v2_s", 128),
    ("regnet", "torchvision:regnet_y_400mf", 128),
    ("convnext", "torchvision:convnext_tiny", 128),
    ("resnetv2", "timm:resnetv2_50", 128),
    ("BiT", "timm:resnetv2_50x1_bit", 128),
    ("regnet", "timm:regnety_002", 128),
    ("efficientnet (TF)", "timm:tf_efficientnet_b0", 128),
    ("mobilenet v3 (TF)", "timm:tf_mobilenetv3_small_minimal_100", 128),
    ("mobilenet v4", "timm:mobilenetv4_conv_small", 128),
    ("dla", "timm:dla34", 128),
    ("hrnet", "timm:hrnet_w18_small", 128),
    ("rexnet", "timm:rexnet_100", 128),
    ("ghostnet", "timm:ghostnet_050", 128),
    ("ghostnet v2", "timm:ghostnetv2_100", 192),
    ("nfnet", "timm:nfnet_l0", 128),
    ("res2net", "timm:res2net50_14w_8s", 128),
    ("repvgg", "timm:repvgg_a0", 128),
    ("dpn", "timm:dpn68", 128),
    ("sknet", "timm:skresnet18", 128),
    ("mixnet", "timm:mixnet_s", 192),
    ("xception", "timm:xception41", 128),
    ("inception v4", "timm:inception_v4", 192),
    ("tresnet", "timm:tresnet_m", 128),
    ("convnext", "timm:convnext_atto", 128),
]
# Behind the name: options of `timm.create_model`. Where there is "no position", positions are left out.
TRANSFORMERS = [
    ("vit", "timm:vit_tiny_patch16_224 img_size=64", 64),
    ("vit, no position", "timm:vit_tiny_patch16_224 img_size=64 pos_embed=none", 64),
    ("deit", "timm:deit_tiny_distilled_patch16_224 img_size=64", 64),
    ("cait", "timm:cait_xxs24_224 img_size=64", 64),
    ("xcit", "timm:xcit_nano_12_p16_224", 64),
    ("xcit, no position", "timm:xcit_nano_12_p16_224 use_pos_embed=false", 64),
    ("pvt v2", "timm:pvt_v2_b0", 128),
    ("mobilevit", "timm:mobilevit_xxs", 128),
    ("mobilevit v2", "timm:mobilevitv2_050", 128),
    ("levit", "timm:levit_128s img_size=128", 128),
    ("swin", "timm:swin_tiny_patch4_window7_224 img_size=112", 112),
    ("swin v2", "timm:swinv2_tiny_window8_256 img_size=128", 128),
    ("maxvit", "timm:maxvit_rmlp_pico_rw_256 img_size=128", 128),
]
FAMILIES += TRANSFORMERS
SHIFTS = [(0, 1), (1, 0), (1, 1)]  # pixels (down, right)
FAR = [*SHIFTS, (3, 5), (17, -7)]
CLASSES = 100
EXACT = 1e-11  # a movement below, in float64, is rounding
COLUMNS = {"as_it_is": "as it is", "circular": "circular", "blurpool": "blurpool", "aps": "aps"}


def build(name: str) -> nn.Module:
    """The network by its name, with random weights in all its branches."""
    source, _, name = name.partition(":")
    if source == "timm":
        name, *given = name.split()
        options = dict(option.split("=") for option in given)
        model = timm.create_model(name, num_classes=CLASSES, **{key: yaml.safe_load(v) for key, v in options.items()})
    else:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = models.get_model(name, weights=None, num_classes=CLASSES, **extra)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.numel() == max(parameter.shape, default=1):
                parameter.uniform_(*((-0.1, 0.1) if key.endswith("bias") else (0.5, 1.0)))
    return model.eval()


def photographs(count: int, side: int) -> Tensor:
    """Crops of photographs, halved first, standardised: ``(count, 3, side, side)``."""
    generator, crops = torch.Generator().manual_seed(0), []
    for k in range(count):
        photograph = torch.tensor(load_sample_images().images[k % 2]).permute(2, 0, 1)[None].float()
        photograph = nn.functional.avg_pool2d(photograph, 2)
        room = torch.tensor(photograph.shape[-2:]) - side
        y, x = (torch.rand(2, generator=generator) * room).long().tolist()
        crops.append(photograph[..., y : y + side, x : x + side])
    images = torch.cat(crops)
    return (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)


def calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with batch norm statistics of the images, in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
            module.train()  # alone: some networks run other branches in training
    with torch.no_grad():
        model(images)
    return model.eval()


@torch.no_grad()
def movement(model: nn.Module, images: Tensor, shifts: list[tuple[int, int]]) -> tuple[float, float]:
    """Change of logits under the shifts: root mean square over the spread, and largest over the largest logit."""
    logits = model(images)
    changes = torch.stack([model(images.roll(shift, (-2, -1))) - logits for shift in shifts])
    spread = logits.var(0).mean().sqrt()
    return (changes.pow(2).mean().sqrt() / spread).item(), (changes.abs().max() / logits.abs().max()).item()


def measure(family: str, name: str, side: int, images: Tensor) -> dict[str, Any]:
    """One row of the table."""
    torch.manual_seed(0)
    model, images = build(name), images[..., :side, :side]
    circular = copy.deepcopy(model)
    change_padding(circular, trace(circular, (3, side, side)), "circular")
    operated, refused = {}, None
    for method in ("blurpool", "aps"):
        try:
            operated[method] = antialias(model, method, "circular", odd="allow", input_size=side)
        except InputError as error:  # patches of transformers cannot be blurred
            refused = str(error)
    learnable = antialias(model, "lps", input_size=side)
    report = surgery_report(operated["aps"])
    with torch.no_grad():
        shapes = {network(images[:1]).shape for network in (model, learnable, *operated.values())}
    variants = {"as_it_is": model, "circular": circular, **operated}
    row = {
        "family": family,
        "model": name,
        "side": side,
        "changed": len(report.changed),
        "unchanged": [entry._asdict() for entry in report.unchanged],
        "unpadded": [entry._asdict() for entry in report.unpadded],
        "placed": [entry._asdict() for entry in report.placed],
        "blurpool_refused": refused,
        "blurpool": None,
        "same_shape": len(shapes) == 1,
        "weights_load": all(_loads(network, model) for network in (learnable, *operated.values())),
    }
    row |= {key: movement(calibrated(network, images), images, SHIFTS)[0] for key, network in variants.items()}
    double = images[:4].double()
    row["aps_double"] = movement(calibrated(operated["aps"].double(), double), double, FAR)[1]
    row["exact"] = row["aps_double"] < EXACT
    return row


def _loads(network: nn.Module, original: nn.Module) -> bool:
    try:
        network.load_state_dict(original.state_dict(), strict=True)
    except RuntimeError:
        return False
    return True


def markdown(results: dict[str, Any]) -> str:
    """The table, then what was not changed and why."""
    titles = ["family", "network", "px", "changed", "not", "shape", "weights load", *COLUMNS.values()]
    lines = ["| " + " | ".join([*titles, "aps, double"]) + " |", "|---|---|--:|--:|--:|---|---|--:|--:|--:|--:|--:|"]
    for row in results["rows"]:
        cells = [row["family"], row["model"], row["side"], row["changed"], len(row["unchanged"])]
        cells += ["same" if row["same_shape"] else "**differs**", "yes" if row["weights_load"] else "**no**"]
        cells += [_movement(row[key]) for key in COLUMNS]
        double = f"{row['aps_double']:.0e}"
        lines.append("| " + " | ".join(map(str, [*cells, f"**{double}**" if row["exact"] else double])) + " |")
    exact = sum(row["exact"] for row in results["rows"])
    shares = [row["blurpool"] / row["circular"] for row in results["rows"] if row["blurpool"] is not None]
    blurred = math.prod(shares) ** (1 / len(shares)) if shares else math.nan
    commands = dict.fromkeys([*(row.get("command", results["command"]) for row in results["rows"])])
    lines += [
        "",
        f"Exact with aps: {exact} of {len(results['rows'])} (bold). With blurpool logits move {blurred:.2f} times as "
        "far as with circular padding alone (geometric mean). "
        f"{', '.join(f'`{command}`' for command in commands)}; torch {results['versions']['torch']}, torchvision "
        f"{results['versions']['torchvision']}, timm {results['versions']['timm']}; {results['machine']['system']}, "
        f"{results['machine']['threads']} thread(s).",
        "",
        "Not changed, not padded, or dependent on the place:",
        "",
    ]
    for row in results["rows"]:
        reasons: dict[str, list[str]] = {}
        for entry in (*row["unchanged"], *row["unpadded"], *row.get("placed", ())):
            reasons.setdefault(entry["reason"], []).append(f"`{entry['name']}`")
        for reason, names in reasons.items():
            more = f" and {len(names) - 2} more" if len(names) > 3 else ""
            lines.append(f"- {row['model']}: {', '.join(names[: 2 if more else 3])}{more}: {reason}")
        if row.get("blurpool_refused"):
            lines.append(f"- {row['model']}: {row['blurpool_refused']}")
    return "\n".join(lines) + "\n"


def _movement(value: float | None) -> str:
    if value is None:
        return "refused"
    return f"{value:.1e}" if value < 1e-3 else f"{value:.2f}"


def merged(rows: list[dict[str, Any]], path: Path) -> dict[str, Any]:
    """The results of an earlier run with these rows in the place of its own, in the order of the families.

    Raises:
        ValueError: the earlier rows are of other versions, so that one table cannot hold both.
    """
    earlier: dict[str, Any] = json.loads(path.read_text())
    found, now = earlier["versions"], {**environment()["versions"], "timm": timm.__version__}
    differ = [key for key in ("torch", "torchvision", "timm") if found[key] != now[key]]
    if differ:
        raise ValueError(f"{path}: expected rows of the same {', '.join(differ)}; measure all rows anew")
    by_model = {row["model"]: row for row in (*earlier["rows"], *rows)}
    return {**earlier, "rows": [by_model[name] for _, name, _ in FAMILIES if name in by_model]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, print the table."""
    parser = argparse.ArgumentParser(description="Surgery over families of networks.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks by name, or transformers; other rows stay")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    images, rows = photographs(8, 192), []
    for family, name, side in FAMILIES:
        short = name.partition(":")[2].split()[0]
        chosen = options.only is None or short in options.only
        if chosen or ("transformers" in options.only and (family, name, side) in TRANSFORMERS):
            rows.append(measure(family, name, side, images))
            print(json.dumps(rows[-1])[:200], file=sys.stderr)
    results: dict[str, Any] = {**environment(), "rows": rows, "images": len(images)}
    results["command"] = results["command"].replace("python -m surgery.py", "python benchmarks/surgery.py")
    results["versions"]["timm"] = timm.__version__
    if options.only is not None and (options.output / "surgery.json").is_file():
        for row in rows:
            row["command"] = results["command"]
        results = merged(rows, options.output / "surgery.json")
    write(options.output / "surgery.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    write(options.output / "surgery.md", markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
