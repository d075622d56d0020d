"""What the allocator, the memory format and the batch size bring to measuring on a CPU, with EfficientNet-Lite0.

    python benchmarks/measure_speed.py            # ten minutes of one core; adds "speed" to results/measure-cpu.json
    python benchmarks/measure_speed.py --parts outputs              # six minutes; the other parts stay as they are
    python benchmarks/measure_speed.py --quick    # seconds; prints alone

Two processes take turns: **before** is malloc of glibc as it is, contiguous maps and batches of 64; **after** is what
the commands do: freed memory is kept (`augkit.core.allocator`), the faster format, batch norms are folded, and batches
of `BATCHES`. Each turn
measures the same random images with `augkit.invariance.Measurement`. Times are those of the processor (user and
kernel) with one thread, so that other processes on the machine have little part in them; wall clock stands beside.

- **measure**: images seen per second, and after over before in each round.
- **bare**: the same forward passes of the network as it is, in the same format, and nothing else in the process
  *after*; measure over bare is the overhead. **folded** is the same with its batch norms folded.
- **outputs**: the same ratio for embeddings and maps (`measure_speed_outputs.py`).
- **layers**, **certify**: the analyses of `--layers` and `--certify`, which run contiguous in both.
- **memory**: the peak of each process in MiB beyond what it held before the first batch; then, in fresh processes, the
  resident memory after 20 and after 200 batches of varying size at 64 px.
- **batches**: images per second by batch size in bare forward passes, after, the best of the rounds, and the peak of
  memory up to that size.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment, loads
from memory import peak, restart_peak
from torch import Tensor, nn

from augkit.architectures.folding import foldable_pairs, folded
from augkit.core.allocator import VARIABLE, keep_freed_memory
from augkit.invariance import Measurement, Network, Pairs, Plan, certify, layerwise_equivariance
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.settings import BATCHES

HERE = Path(__file__).parent
PACKAGES = ["torch", "torchvision", "timm", "numpy", "augkit"]
SIDE, AIM, BARE_AIM = 224, 4.0, 1.10
PLAN = Plan(pairs=Pairs(1, -4.0, 4.0, quantum=1.0))
PARTS = ("turns", "outputs", "batches", "stream")
SIZES = (4, 8, 16, 32, 64)
MODES = {"before": ("system", "contiguous", 64, False), "after": ("keep", "channels_last", BATCHES["cpu"], True)}


def lite() -> nn.Module:
    """EfficientNet-Lite0 with random weights, whose numbers do not matter here."""
    import timm

    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0").eval()


class Side:
    """One of the two processes: what it does on a word from its input."""

    def __init__(self, mode: str, images: int) -> None:
        allocator, memory_format, self.batch, fold = MODES[mode]
        assert keep_freed_memory() == (allocator == "keep")
        torch.set_num_threads(1)
        self.network = Network(lite())
        self.network.use_memory_format(memory_format)
        self.network.use_folding(fold)
        self.pixels = torch.randint(0, 256, (images, 3, SIDE + 8, SIDE + 8), dtype=torch.uint8)
        self.start = restart_peak()

    def measure(self) -> None:
        """Measure all images, as the command does."""
        measurement = Measurement(self.network, PLAN, ProtocolOptions("crop", input_size=SIDE))
        measurement.run((part, None) for part in self.pixels.split(self.batch))
        measurement.report().to_dict()

    def warm(self) -> None:
        """One batch, so that what is compiled is at hand."""
        measurement = Measurement(self.network, PLAN, ProtocolOptions("crop", input_size=SIDE))
        measurement.run([(self.pixels[: self.batch], None)])

    def bare(self) -> None:
        """The same forward passes on the same number of images."""
        inputs = [part.float()[..., 4:-4, 4:-4] / 255 for part in self.pixels.split(self.batch)]
        layout = torch.channels_last if self.network.memory_format == "channels_last" else torch.contiguous_format
        with torch.inference_mode():
            for part in inputs:
                for _ in PLAN.layout.columns:
                    self.network.model(part.contiguous(memory_format=layout))

    def folded(self) -> None:
        """As `bare`, with the batch norms folded."""
        model, first = self.network.model, self.pixels[:1].float()
        with torch.inference_mode():
            pairs = foldable_pairs(model, lambda: model(first))
        with folded(pairs):
            self.bare()

    def layers(self) -> None:
        """Equivariance layer by layer, of 4 images."""
        self.network.use_memory_format("contiguous")  # as the command does
        layerwise_equivariance(self.network.model, self.pixels[:4, :, 4:-4, 4:-4], draws=1)

    def certify(self) -> None:
        """The certificate at 96 px, in float64."""
        certify(self.network.model, (96, 96))


def serve(mode: str, images: int) -> None:
    """Do what the words on standard input say, and answer with times and memory."""
    side = Side(mode, images)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        getattr(side, line.strip())()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak() - side.start}), flush=True)


def start(mode: str, images: int) -> Callable[[str], dict[str, float]]:
    """Start a process, and return a function that sends it a word and waits for its answer."""
    variables = {**os.environ, VARIABLE: MODES[mode][0], "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--serve", mode, "--images", str(images)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)

    def ask(word: str) -> dict[str, float]:
        assert process.stdin is not None
        assert process.stdout is not None
        print(word, file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    return ask


def turns(images: int, rounds: int) -> dict[str, Any]:
    """Before and after by turns."""
    ask = {mode: start(mode, images) for mode in MODES}
    found: dict[str, dict[str, list[dict[str, float]]]] = {mode: {} for mode in MODES}
    jobs = [("before", "measure"), ("after", "measure"), ("after", "bare"), ("after", "folded")]
    turn = [("after", "warm"), ("before", "warm")]
    turn += [job for _ in range(rounds) for job in random.sample(jobs, len(jobs))]
    turn += [
        ("after", "measure"),
        ("after", "bare"),
        ("after", "folded"),
    ] * rounds  # cheap, and their ratio is close to 1
    # Last, as the memory of the analyses would count for what is measured.
    turn += [(mode, word) for word in ("layers", "layers", "certify") for mode in MODES]
    for mode, word in turn:
        said = ask[mode](word)
        found[mode].setdefault(word, []).append(said)
        print(mode, word, {key: round(value, 2) for key, value in said.items()}, file=sys.stderr, flush=True)
    for mode in MODES:
        found[mode]["layers"].pop(0)  # the first one warms up
    passes = images * len(PLAN.layout.columns)
    out: dict[str, Any] = {"images": images, "views": len(PLAN.layout.columns), "rounds": rounds, "modes": MODES}
    for mode, words in found.items():
        seconds = {word: {key: _median(said, key) for key in ("cpu", "wall")} for word, said in words.items()}
        rate = round(passes / seconds["measure"]["cpu"], 2)
        out[mode] = {"seconds": seconds, "images_per_cpu_second": rate, "peak_mib": round(words["measure"][-1]["peak"])}
    for word in ("measure", "layers", "certify"):
        pairs = zip(found["before"][word], found["after"][word], strict=False)
        out[f"{word}_gain"] = _spread([before["cpu"] / after["cpu"] for before, after in pairs])
    for word in ("bare", "folded"):
        pairs = zip(found["after"]["measure"], found["after"][word], strict=True)
        out[f"over_{word}"] = _spread([ours["cpu"] / passes["cpu"] for ours, passes in pairs])
    return out | {"aim": AIM, "met": out["measure_gain"][0] >= AIM, "bare_aim": BARE_AIM}


def _median(said: list[dict[str, float]], key: str) -> float:
    return round(float(np.median([one[key] for one in said])), 3)


def _spread(ratios: list[float]) -> list[float]:
    """Median, least and most."""
    return [round(float(f(ratios)), 3) for f in (np.median, np.min, np.max)]


def outputs_after(rounds: int) -> dict[str, Any]:
    """Embeddings and maps, in this process."""
    from measure_speed_outputs import outputs

    keep_freed_memory()
    torch.set_num_threads(1)
    return outputs(rounds)


def stream(mode: str) -> list[float]:
    """MiB resident after 20 and after 200 batches of varying size, beyond those before the first."""
    if MODES[mode][0] == "keep":
        keep_freed_memory()
    torch.set_num_threads(1)
    random.seed(0)
    network = Network(lite())
    network.use_memory_format(MODES[mode][1])
    before, out = restart_peak(), []
    with network.measuring():
        for k in range(200):
            network(torch.rand(32 if k == 0 else random.randint(1, 32), 3, 64, 64))
            if k in (19, 199):
                out.append(round(restart_peak() - before, 1))
    return out


def batch_sizes(images: int, rounds: int) -> dict[str, Any]:
    """Images per second of processor time by batch size, the best of the rounds, and the peak of memory so far."""
    keep_freed_memory()
    torch.set_num_threads(1)
    from torchvision import models

    networks = {"tf_efficientnet_lite0, 224 px": (lite(), 224), "resnet18, 128 px": (models.resnet18().eval(), 128)}
    out: dict[str, Any] = {}
    for name, (model, side) in networks.items():
        model.to(memory_format=torch.channels_last)
        inputs, best = torch.rand(images, 3, side, side).contiguous(memory_format=torch.channels_last), {}
        before = restart_peak()
        for k in range(rounds):
            for size in SIZES if k == 0 else random.sample(SIZES, len(SIZES)):
                seconds = _seconds(model, inputs, size)
                row = best.setdefault(str(size), {"images_per_cpu_second": 0.0})
                row["images_per_cpu_second"] = max(row["images_per_cpu_second"], round(images / seconds, 1))
                row.setdefault("peak_mib", round(peak() - before))
        out[name] = best
        print(name, best, file=sys.stderr, flush=True)
    return out


def _seconds(model: nn.Module, inputs: Tensor, size: int) -> float:
    with torch.inference_mode():
        model(inputs[:size])
        start = time.process_time()
        for part in inputs.split(size):
            model(part)
        return time.process_time() - start


def _fresh(flag: str, mode: str, rounds: int = 1) -> Any:
    variables = {**os.environ, VARIABLE: MODES[mode][0], "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, flag, mode, "--rounds", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=variables)
    return json.loads(done.stdout)


def main() -> None:
    """Time by turns, watch memory, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others stay as they are")
    parser.add_argument("--quick", action="store_true", help="8 images, one round; writes nothing")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "measure-cpu.json")
    parser.add_argument("--serve", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--stream", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--outputs", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--batches", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.images)
    elif options.stream:
        print(json.dumps(stream(options.stream)))
    elif options.outputs:
        print(json.dumps(outputs_after(options.rounds)))
    elif options.batches:
        print(json.dumps(batch_sizes(max(SIZES), 2)))
    else:
        images, rounds = (8, 1) if options.quick else (options.images, options.rounds)
        torch.set_num_threads(1)
        record = json.loads(options.output.read_text()) if options.output.is_file() else {}
        speed: dict[str, Any] = record.get("speed", {})
        how: dict[str, tuple[str, Callable[[], Any]]] = {
            "turns": ("turns", lambda: turns(images, rounds)),
            "outputs": ("outputs", lambda: _fresh("--outputs", "after", 2 * rounds)),
            "batches": ("batches", lambda: _fresh("--batches", "after")),
            "stream": ("stream_mib", lambda: {mode: _fresh("--stream", mode) for mode in MODES}),
        }
        for part in ("turns",) if options.quick else options.parts:
            here, (name, measured) = environment("cpu", PACKAGES), how[part]
            here["command"] = f"python benchmarks/measure_speed.py --parts {part} --images {images} --rounds {rounds}"
            speed[name] = measured()
            # Of each part, as it may be measured on another day than the others.
            speed["runs"] = speed.get("runs", {}) | {part: here | {"load_after": loads()}}
        if not options.quick:
            options.output.write_text(json.dumps(record | {"speed": speed}, indent=1) + "\n")
        print(json.dumps(speed, indent=1))


if __name__ == "__main__":
    main()
