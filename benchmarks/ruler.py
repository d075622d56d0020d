"""Which measure of learned invariance takes a change of confidence for invariance?

    python benchmarks/ruler.py                # about 8 minutes on 2 cores; writes results/ruler.json and ruler.md
    python benchmarks/ruler.py --seeds 2 --output FILE

Networks of `mnist5k` are compared with the same recipe without augmentation: the very same networks with their logits
divided, networks trained with label smoothing, other learning rates, batches and weight decay, networks that nearly
collapsed, a constant one, and, as the effect that is really meant, networks trained with shifts of 3 px. Every row is
learned invariance by four variabilities, on the test split, paired by seed; and what `compare_invariance` says. Runs
are kept in ``--runs`` and are not trained again.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from machine import environment
from torch import nn

import augkit
from augkit.data import Dataset
from augkit.invariance import Estimate, InvarianceReport, learned_invariance
from augkit.invariance.bootstrap import replicates
from augkit.invariance.learned import compare_invariance
from augkit.train.evaluate import measure_model

HERE = Path(__file__).parent
DIVISORS = (2, 4, 8)
TRAINED = {
    "label smoothing 0.2": ["train.label_smoothing=0.2"],
    "label smoothing 0.4": ["train.label_smoothing=0.4"],
    "label smoothing 0.6": ["train.label_smoothing=0.6"],
    "learning rate 0.02": ["optim.lr=0.02"],
    "batch 512": ["train.batch_size=512"],
    "weight decay 0.02": ["optim.weight_decay=0.02"],
    "nearly collapsed: learning rate 0.005": ["optim.lr=0.005"],
    "nearly collapsed: 1 epoch at 0.02": ["optim.lr=0.02", "train.epochs=1"],
    "shifts of 3 px": ["policy.shift.max_pixels=3"],
    "shifts of 3 px, label smoothing 0.2": ["policy.shift.max_pixels=3", "train.label_smoothing=0.2"],
}
METRICS = ("shift_information", "entropy_matched_js", "top1_change", "js")


class Divided(nn.Module):
    """A network with its logits divided by a number."""

    def __init__(self, network: nn.Module, divisor: float) -> None:
        super().__init__()
        self.network, self.divisor = copy.deepcopy(network), divisor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, K)``."""
        logits: torch.Tensor = self.network(images)
        return logits / self.divisor


class Constant(nn.Module):
    """Always the same logits."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.arange(10.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, 10)``."""
        return self.logits.expand(len(images), -1)


def row(name: str, treated: list[InvarianceReport], control: list[InvarianceReport]) -> dict[str, Any]:
    """One line of the table."""
    statistics = [report.statistics for report in treated]
    kept = {name: replicates(name, statistics).estimate(-1, 1).to_dict() for name in ("accuracy", "kappa")}
    by = {metric: learned_invariance(treated, control, metric=metric).to_dict() for metric in METRICS}
    said = compare_invariance(treated, control)
    return {"change": name, **kept, "by": by, "verdict": said.verdict, "dissent": list(said.dissent)}


def measured(seeds: int, runs: Path) -> dict[str, list[InvarianceReport]]:
    """Reports on the test split of every change, one per seed; the control is named ``control``."""
    base = augkit.Recipe.load("mnist5k").control()
    dataset: Dataset = augkit.load_dataset("mnist5k")
    test = dataset.open_test()
    found: dict[str, list[InvarianceReport]] = {}
    constant = measure_model(Constant(), base, test)
    for seed in range(seeds):
        for name, overrides in {"control": [], **TRAINED}.items():
            recipe = augkit.Recipe.load("mnist5k", ["policy={}", *overrides])
            folder = runs / f"{name.replace(' ', '-').replace(':', '').replace(',', '')}-seed{seed}"
            run = augkit.fit(recipe, seed, output=folder, resume=True, dataset=dataset)
            found.setdefault(name, []).append(measure_model(run.model, base, test))
            if name == "control":
                for divisor in DIVISORS:
                    divided = measure_model(Divided(run.model, divisor), base, test)
                    found.setdefault(f"the same network, logits divided by {divisor}", []).append(divided)
        found.setdefault("a constant network", []).append(constant)
        print(f"seed {seed}: {len(found)} networks", flush=True)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    head = ["change, against no augmentation", "accuracy, %", *METRICS, "said"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 2) + "|---|"]
    for each in rows:
        numbers = [_percent(each["accuracy"]), *(_percent(each["by"][metric]) for metric in METRICS)]
        said = each["verdict"] + (f" ({', '.join(each['dissent'])})" if each["dissent"] else "")
        lines.append("| " + " | ".join([each["change"], *numbers, said]) + " |")
    return "\n".join(lines) + "\n"


def _percent(estimate: dict[str, float | None]) -> str:
    found = Estimate(*(float("nan") if v is None else 100 * v for v in estimate.values()))
    return format(found, ".0f")


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/ruler"))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "ruler.json")
    options = parser.parse_args()
    found = measured(options.seeds, options.runs)
    rows = [row(name, reports, found["control"]) for name, reports in found.items() if name != "control"]
    control = [report.statistics for report in found["control"]]
    result = {
        "environment": environment("cpu", ["augkit", "torch", "kornia", "numpy"]),
        "recipe": "mnist5k, policy={}",
        "n_seeds": options.seeds,
        "n_images": len(control[0]["changed"]),
        "control": {m: replicates(m, control).estimate().to_dict() for m in ("accuracy", "kappa", "shift_information")},
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    options.output.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
