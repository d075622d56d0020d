"""How invariant networks with ImageNet weights are: a table that people can use.

    python benchmarks/pretrained.py efficientnet_lite0 efficientnet_lite1 efficientnet_lite2 --data parquet:DIR
    python benchmarks/pretrained.py resnet50.a1_in1k convnext_tiny.fb_in1k --data folder:DIR --device cuda
    python benchmarks/pretrained.py torchvision:resnet18@IMAGENET1K_V1 --data parquet:DIR --limit 50000
    python benchmarks/pretrained.py --pages          # JSON into Markdown and HTML again, without measuring
    python benchmarks/pretrained.py --merge DIR/pretrained.json     # rows measured with --output DIR, then as --pages

Names are those of `pretrained_networks.py`; each network is measured as it is, and with blur pooling in place of its
strides (``antialias``, not trained further). A row is written as soon as it is measured, and is not measured again. It
takes the place of one of the same network and surgery with other settings.

Images are resized so that the shorter side is the network's input and 16 pixels on either side; the window moves over
it by whole pixels (protocol ``crop``), so that no pixel is interpolated. Labels are the classes' numbers of ImageNet.

- **one pixel**: share of pairs whose top-1 answer changes where the window moves one pixel right and down (Azulay &
  Weiss 2019), from a place drawn within 15 pixels.
- **16 px**: the same between two windows at offsets -15..16, as Zhang 2019 draws them; consistency is 1 minus this.
- **shift information**: the share of what the answers say that is about the shift, over those windows.
- **worst case**: share of images whose answer changes at any of the 8 places 16 pixels away, beside and diagonal.
- **atypical**: top-1 change (16 px) upside down, with shuffled patches, and erased, on fewer images; typical beside.
- **loses most**: the layer that adds most to the squared error of the logits under circular shifts, with its share.

An H200 makes 50 networks of timm in about an hour with its defaults; `--precision bf16` is faster still.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from machine import environment
from pretrained_networks import Pretrained, load
from pretrained_page import docs_with_table, markdown, page
from torch import Tensor

from augkit.core.allocator import keep_freed_memory
from augkit.core.errors import InputError
from augkit.core.files import write
from augkit.data import Images, atypical_versions, batches, load_dataset
from augkit.invariance import InvarianceReport, Measurement, Network, Pairs, Plan, layerwise_equivariance
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.fast_passes import choose_fast_passes
from augkit.measure.settings import BATCHES

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "pretrained.md"
PACKAGES = ["torch", "torchvision", "timm", "numpy", "augkit"]
FAR = 16  # pixels
AROUND = tuple((FAR * x, FAR * y) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0))


@dataclass(frozen=True)
class Settings:
    """What is measured of every network."""

    images: int
    atypical_images: int
    layer_images: int
    pairs: int
    precision: str
    seed: int = 0

    @property
    def plans(self) -> dict[str, Plan]:
        """The displacements of the typical images, and of the atypical ones."""
        windows = Pairs(self.pairs, 1 - FAR, FAR, quantum=1.0)
        return {
            "typical": Plan(pairs=windows, grid=AROUND),
            "one pixel": Plan(pairs=Pairs(self.pairs, 1 - FAR, FAR - 1, quantum=1.0, step=(1.0, 1.0))),
            "atypical": Plan(pairs=windows),
        }


@dataclass(frozen=True)
class Photographs:
    """Images by side, decoded once for all networks of that side."""

    data: str
    labels_file: Path | None
    settings: Settings

    def of_side(self, side: int) -> Images:
        """The images with 16 pixels beside what a network of that side sees, in memory."""
        dataset = load_dataset(self.data, image_size=side + 2 * FAR, channels=3, labels_file=self.labels_file)
        found = dataset.open_test(self.settings.images, seed=self.settings.seed)
        labels = found.labels
        if labels is not None and self.labels_file is None:
            if not all(name.isdecimal() for name in dataset.classes):
                raise InputError("--data: expected labels that are numbers of ImageNet classes; map others by --labels")
            labels = torch.tensor([int(name) for name in dataset.classes])[labels]
        return Images(torch.cat(list(batches(found, 64))), labels)


def measured(found: Pretrained, images: Images, plan: Plan, device: str, settings: Settings) -> InvarianceReport:
    """The report on images in memory."""
    network = Network(found.model, mean=found.mean, std=found.std, precision=settings.precision, device=device)
    measurement = Measurement(network, plan, ProtocolOptions("crop", input_size=found.side), seed=settings.seed)
    size = BATCHES[network.device.type]
    measurement.count_classes(images.images[:1])
    passes = len(plan.layout.columns) * -(-len(images) // size)
    choose_fast_passes(network, lambda: measurement.unshifted(images.images[:size]), passes)
    labels = images.labels
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    measurement.run((images.images[part], None if labels is None else labels[part]) for part in parts)
    return measurement.report()


def worst_layer(found: Pretrained, images: Tensor, device: str, settings: Settings) -> dict[str, Any] | None:
    """The layer with the largest share of the error of the logits; None where no share is defined."""
    inner = images[: settings.layer_images, :, FAR:-FAR, FAR:-FAR]
    layers = layerwise_equivariance(
        found.model, inner, draws=2, mean=found.mean, std=found.std, batch_size=2, device=device, seed=settings.seed
    )
    shared = [layer for layer in layers if layer.share.defined and layer.name not in ("logits", "penultimate")]
    return max(shared, key=lambda layer: layer.share.value).to_dict() if shared else None


def row_of(found: Pretrained, surgery: str | None, images: Images, device: str, settings: Settings) -> dict[str, Any]:
    """One network measured."""
    start, plans = time.perf_counter(), settings.plans
    gmacs, size = found.gmacs(), found.parameters()
    typical = measured(found, images, plans["typical"], device, settings)
    one_pixel = measured(found, images, plans["one pixel"], device, settings)
    few = images.take(torch.arange(min(len(images), settings.atypical_images)))
    unlike = {}
    for kind, versions in {"typical": few, **atypical_versions(few, seed=settings.seed)}.items():
        report = measured(found, versions, plans["atypical"], device, settings)
        names = ("top1_change", "shift_information", "accuracy")
        unlike[kind] = {name: report.metrics[name].to_dict() for name in names if name in report.metrics}
    names = ("accuracy", "shifted_accuracy", "worst_accuracy", "consistency", "top1_change", "shift_information")
    return {
        "name": found.name,
        "surgery": surgery,
        "input": found.side,
        "gmacs": round(gmacs, 4),
        "million_parameters": round(size, 3),
        **{name: typical.metrics[name].to_dict() for name in (*names, "worst_case") if name in typical.metrics},
        "one_pixel": one_pixel.metrics["top1_change"].to_dict(),
        "atypical": unlike,
        "loses_most": worst_layer(found, images.images, device, settings),
        "memory_format": typical.settings.memory_format,
        "n": len(images),
        "settings": asdict(settings),
        "device": device,
        "seconds": round(time.perf_counter() - start, 1),
        "date": time.strftime("%Y-%m-%d"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, write as it comes."""
    options = _parser().parse_args(arguments)
    keep_freed_memory()
    file = options.output / "pretrained.json"
    record: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"rows": []}
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    settings = Settings(options.limit, options.atypical, options.layer_images, options.pairs, options.precision)
    photographs, failed = Photographs(options.data, options.labels, settings), 0
    for path in options.merge:
        record = merged(record, json.loads(path.read_text()))
        write(file, json.dumps(record, indent=1, allow_nan=False) + "\n")
    for name in [] if options.pages else options.names:
        for surgery in options.surgery:
            if any(_is(row, name, surgery, settings) for row in record["rows"]):
                continue
            print(f"{name}, {surgery or 'as it is'} ...", file=sys.stderr, flush=True)
            try:
                found = load(name)
                found = found if surgery is None else found.operated()
                row = row_of(found, surgery, photographs.of_side(found.side), device, settings)
            except InputError as error:
                print(f"left out: {error}", file=sys.stderr)
                failed += 1
                continue
            here = environment(device, PACKAGES) | {"command": _command(options)}
            record = merged(record, {**here, "rows": [row | {"command": here["command"]}]})
            options.output.mkdir(parents=True, exist_ok=True)
            write(file, json.dumps(record, indent=1, allow_nan=False) + "\n")
            print(f"  accuracy {row.get('accuracy')}, one pixel {row['one_pixel']}", file=sys.stderr, flush=True)
    if record["rows"]:
        write(options.output / "pretrained.md", markdown(record))
        write(options.output / "pretrained.html", page(record))
        if options.output.resolve() == (HERE / "results").resolve():
            write(DOCS, docs_with_table(DOCS.read_text(), record))
        print(markdown(record))
    return 1 if failed else 0


def merged(record: dict[str, Any], newer: dict[str, Any]) -> dict[str, Any]:
    """The newer rows in the places of those of the same networks and surgery, new ones last; and the newer machine."""
    rows = {(row["name"], row["surgery"]): row for row in (*record["rows"], *newer["rows"])}
    return {**newer, "rows": list(rows.values())}


def _is(row: dict[str, Any], name: str, surgery: str | None, settings: Settings) -> bool:
    return (row["name"], row["surgery"], row["settings"]) == (name, surgery, asdict(settings))


def _command(options: argparse.Namespace) -> str:
    """The command, without the place of the images."""
    form, surgery = options.data.partition(":")[0], " ".join(name or "none" for name in options.surgery)
    numbers = f"--limit {options.limit} --atypical {options.atypical} --layer-images {options.layer_images}"
    how = f"--pairs {options.pairs} --precision {options.precision} --surgery {surgery}"
    return f"python benchmarks/pretrained.py {' '.join(options.names)} --data {form}:DIR {numbers} {how}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks")
    parser.add_argument("--data", default="", help="photographs with ImageNet labels: folder:DIR or parquet:DIR")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="which class is which output of the network")
    parser.add_argument("--limit", type=int, default=800, help="images, stratified by class")
    parser.add_argument("--atypical", type=int, default=400, help="images of each atypical kind")
    parser.add_argument("--layer-images", type=int, default=16, help="images for the layer that loses most")
    parser.add_argument("--pairs", type=int, default=2, help="pairs of windows per image")
    parser.add_argument("--precision", default="float32", help="float32 or bf16")
    parser.add_argument("--device", help="cpu or cuda")
    parser.add_argument("--surgery", nargs="+", default=[None, "blurpool"], type=_surgery, help="none, blurpool")
    parser.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR")
    text = "rows of these files, such as another machine's, take the places of those of the same networks and surgery"
    parser.add_argument("--merge", nargs="+", default=[], type=Path, metavar="FILE", help=text)
    parser.add_argument("--pages", action="store_true", help="measure nothing; write Markdown and HTML from the JSON")
    return parser


def _surgery(text: str) -> str | None:
    if text not in ("none", "blurpool"):
        raise argparse.ArgumentTypeError(f"expected none or blurpool, got '{text}'")
    return None if text == "none" else text


if __name__ == "__main__":
    sys.exit(main())
