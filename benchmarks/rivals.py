"""Two ways to choose augmentation without a search, against searches of the same cost, on digits.

    python benchmarks/rivals.py      # reads results/tune-table-digits.jsonl, about 5 minutes of one thread

**One network that is told the strengths** (conditional norms as in de Vries et al. 2017 and FiLM, Perez et al. 2018):
each group of 8 images of a batch is augmented by a configuration of the table and the network is told its eight
strengths, from which a linear layer scales and shifts every batch norm. After one long training it is measured once for
each configuration, told its strengths; the best three by its answers are what it returns.

**Invariance as a constraint** (Hounie et al. 2023): recipes with ``constraint.learned_invariance``, see
`augkit.train.constraint`, for three targets. Each is one training; the control whose shift information sets the bound
is not counted, as the searches' is not.

Beside them stands what needs neither: shifts as far as invariance is measured, in one training.

Both are verified as the searches are: the first by the verified networks of the table; the second, whose networks are
themselves the result, on the same unseen images, against controls of the same seeds. Costs are in full trainings
(8 epochs and full measuring), whose seconds are measured in between, so that the load of the machine does not decide.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import environment, loads
from torch import Tensor, nn
from tune_pool import FEW, Pool, Rung, interval, read_pool, standing
from tune_replay import TOP, events_of, follow, reference, verified_volume
from tune_table import GROUNDS, Trainer, make_space, scores_of, small

from augkit.augment import Augment, Policy
from augkit.train.build import build_recipe_model, describe_input
from augkit.train.loop import fit
from augkit.train.optimizer import make_optimizer, set_rate
from augkit.train.recipe import Recipe
from augkit.train.schedule import rate_at
from augkit.tune.promotion import ranked
from augkit.tune.rung_report import rank_correlation
from augkit.tune.volume import dominated_volume

HERE = Path(__file__).parent
GROUP = 8  # images that share a configuration
CONDITIONED_EPOCHS = (8, 24)
PLAIN = 1 / 8  # of the groups are not augmented, so that the network knows its own control
TARGETS = (0.4, 0.6, 0.8)
SHIFTS = "shifts alone"  # in the place of a target
SECONDS = time.thread_time


@dataclass
class Bench:
    """Data and table of the ground.

    Attributes:
        trainer: data and measuring of the table.
        recipe: without augmentation.
        pool: the table.
        images: training images (N, 1, H, W), uint8, on their canvas.
        labels: their labels.
    """

    trainer: Trainer
    recipe: Recipe
    pool: Pool
    images: Tensor = field(init=False)
    labels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        train = self.trainer.dataset.train.put_on_canvas(self.recipe.data.canvas)
        assert train.labels is not None
        self.images, self.labels = train.images, train.labels

    def network(self, seed: int) -> nn.Module:
        """An untrained network."""
        return build_recipe_model(self.recipe, describe_input(self.recipe, self.trainer.dataset), seed)

    def augment(self, policy: Policy) -> Augment:
        """A policy for the images of the ground."""
        return policy.augment(normalize=(self.recipe.data.mean, self.recipe.data.std), dtype=torch.float32)

    def batches(self, epochs: int, seed: int) -> Iterator[tuple[Tensor, float]]:
        """Indices of each batch, and the share of the learning rate."""
        generator, size = torch.Generator().manual_seed(seed), self.recipe.train.batch_size
        count = len(self.images) // size
        for step in range(epochs * count):
            if step % count == 0:
                order = torch.randperm(len(self.images), generator=generator)
            rate = rate_at(step, epochs * count, self.recipe.schedule)
            yield order[step % count * size :][:size], rate

    def train(
        self,
        network: nn.Module,
        epochs: int,
        seed: int,
        loss: Callable[[Tensor], Tensor],
        on_epoch: Callable[[], object] = lambda: None,
    ) -> None:
        """Minimize a loss of batches, given by the indices of their images, as `augkit.fit` would."""
        optimizer = make_optimizer(network, self.recipe.optim)
        length = len(self.images) // self.recipe.train.batch_size
        for step, (indices, rate) in enumerate(self.batches(epochs, seed)):
            if step and step % length == 0:
                on_epoch()
            network.train()
            set_rate(optimizer, self.recipe.optim.lr * rate)
            loss(indices).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        network.eval()

    def unseen(self, network: nn.Module) -> dict[str, Any]:
        """Scores on the images of the verification."""
        settings = {**self.recipe.invariance.model_dump(), "pairs": self.trainer.pairs}
        return scores_of(network, self.recipe.replaced(invariance=settings), self.trainer.unseen)

    def full_training(self) -> float:
        """Seconds of training and fully measuring one configuration."""
        began = SECONDS()
        recipe = self.recipe.replaced(policy={"shift": {"max_pixels": 2.0}, "rotate": {"max_degrees": 15.0}})
        self.trainer.searched(fit(recipe, dataset=self.trainer.dataset, device="cpu").model, recipe, cheap=False)
        return SECONDS() - began


class ToldNorm(nn.Module):
    """A batch norm whose scale and offset depend on the strengths that the network was told."""

    def __init__(self, norm: nn.BatchNorm2d, told: dict[str, Tensor], fields: int) -> None:
        super().__init__()
        self.norm, self.told, self.film = norm, told, nn.Linear(fields, 2 * norm.num_features)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps ``(B, C, H, W)``, for strengths ``(B, D)`` or ``(1, D)``."""
        scale, offset = self.film(self.told["strengths"])[..., None, None].chunk(2, dim=1)
        out: Tensor = self.norm(maps) * (1 + scale) + offset
        return out


def condition(network: nn.Module, fields: int) -> dict[str, Tensor]:
    """Replace the batch norms of a network; the mapping that is returned holds the strengths it is told."""
    told: dict[str, Tensor] = {}
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and not isinstance(module, ToldNorm):
                setattr(module, name, ToldNorm(child, told, fields))
    return told


def told_network(bench: Bench, epochs: int, seed: int) -> dict[str, Any]:
    """Train one conditioned network; its cost, and the verified volume of the three that it says are best."""
    pool, space = bench.pool, make_space(GROUNDS["digits"])
    nothing = torch.tensor(pool.place(space.preset(0.0)), dtype=torch.float32)
    points = torch.cat([torch.tensor(pool.points, dtype=torch.float32), nothing[None]])
    policies = [space.with_values(values).policy for values in pool.parameters]
    ways = [bench.augment(policy) for policy in [*policies, bench.recipe.policy]]
    network, generator = bench.network(seed), torch.Generator().manual_seed(seed)
    told = condition(network, points.shape[1])

    def loss(indices: Tensor) -> Tensor:
        groups = indices.split(GROUP)
        chosen = torch.randint(len(pool.points), (len(groups),), generator=generator)
        chosen[torch.rand(len(groups), generator=generator) < PLAIN] = len(pool.points)
        views = [ways[k](bench.images[g], generator=generator) for k, g in zip(chosen.tolist(), groups, strict=True)]
        told["strengths"] = points[chosen].repeat_interleave(GROUP, dim=0)[: len(indices)]
        return F.cross_entropy(network(torch.cat(views)), bench.labels[indices])

    began = SECONDS()
    bench.train(network, epochs, seed, loss)
    answers = []
    for point in points:
        told["strengths"] = point[None]
        answers.append(bench.trainer.searched(network, bench.recipe, cheap=True))
    seconds, own = SECONDS() - began, answers.pop()
    images = min(FEW, len(bench.trainer.dataset.validation))
    standings = tuple(standing(k, answer, own, images) for k, answer in enumerate(answers))
    ranks = {
        name: rank_correlation([s.values[place] for s in standings], [v[place] for v in pool.verified])
        for place, name in enumerate(("accuracy", "learned_invariance"))
    }
    best = ranked(standings)[:TOP]
    volume = verified_volume(pool, best) / reference(pool)
    return {"seconds": seconds, "volume": volume, "ranks": ranks, "returned": best, "own_accuracy": own["accuracy"]}


def constrained(bench: Bench, target: float, information: float, seed: int) -> dict[str, Any]:
    """One training under the bound, and its scores on unseen images."""
    began = SECONDS()
    asked = {"learned_invariance": target, "control": information}
    measured = {**bench.recipe.invariance.model_dump(), "images": FEW}
    run = fit(bench.recipe.replaced(constraint=asked, invariance=measured), seed, dataset=bench.trainer.dataset)
    seconds, dual = SECONDS() - began, [row["dual"] for row in run.history]
    return {"seconds": seconds, "target": target, "seed": seed, "dual": dual, **bench.unseen(run.model)}


def by_constraint(bench: Bench, seeds: int) -> dict[str, Any]:
    """Controls, networks that are only shifted, and constrained networks of every seed and target, verified."""
    rows: list[dict[str, Any]] = []
    reach = {"shift": {"max_pixels": bench.recipe.invariance.max_shift}}
    for seed in range(101, 101 + seeds):
        unit, data = bench.full_training(), bench.trainer.dataset
        network = fit(bench.recipe, seed, dataset=data, device="cpu").model
        information = bench.trainer.searched(network, bench.recipe, cheap=True)["shift_information"]
        control, began = bench.unseen(network), SECONDS()
        only = fit(bench.recipe.replaced(policy=reach), seed, dataset=data, device="cpu").model
        here = [{"seconds": SECONDS() - began, "target": SHIFTS, "seed": seed, **bench.unseen(only)}]
        here += [constrained(bench, target, information, seed) for target in TARGETS]
        for row in here:
            row["trainings"] = row["seconds"] / unit
            row["learned_invariance"] = 1 - row["shift_information"] / control["shift_information"]
        rows += here
        print(f"constraint, seed {seed}: " + ", ".join(f"{r['learned_invariance']:.2f}" for r in here), flush=True)
    keys = ("accuracy", "learned_invariance", "trainings")
    by = {t: [row for row in rows if row["target"] == t] for t in (SHIFTS, *TARGETS)}
    targets = {str(t): {key: interval([row[key] for row in found]) for key in keys} for t, found in by.items()}
    result: dict[str, Any] = {"targets": targets, "rows": rows}
    for name, mine in {
        "a constraint, for three targets": [row for row in rows if row["target"] != SHIFTS],
        "shifts as far as is measured": by[SHIFTS],
    }.items():
        cost, volume = _sums(bench, mine)
        result[name] = {
            "trainings": cost,
            "volume": volume,
            "searches": searches(bench.pool, round(cost["value"], 1), 20),
        }
    return result


def _sums(bench: Bench, rows: list[dict[str, Any]]) -> tuple[dict[str, float], dict[str, float]]:
    """Cost and volume of the networks of a seed together, over seeds."""
    seeds = sorted({row["seed"] for row in rows})
    each = [[row for row in rows if row["seed"] == seed] for seed in seeds]
    points = [[(row["accuracy"], row["learned_invariance"]) for row in found] for found in each]
    volumes = [dominated_volume(pairs, [0.0, 0.0]) / reference(bench.pool) for pairs in points]
    return interval([sum(row["trainings"] for row in found) for found in each]), interval(volumes)


def searches(pool: Pool, budget: float, seeds: int) -> dict[str, dict[str, float]]:
    """Volumes that searches return for as many full trainings, the control not counted."""
    ladders: dict[str, list[Rung]] = {"random": [pool.whole], "halving": pool.rungs, "halving of forks": pool.forks}
    found = {}
    for name, rungs in ladders.items():
        events = [events_of(pool, rungs, "random", seed) for seed in range(seeds)]
        runs = [follow(pool, rungs, e, reference(pool), (budget,)) for e in events]
        found[name] = interval([run["volumes"][str(budget)] for run in runs])
    return found


def main() -> None:
    """Train, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", choices=("told", "constraint"), help="this part alone; the other stays as it was")
    parser.add_argument("--table", type=Path, default=HERE / "results" / "tune-table-digits.jsonl")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "rivals.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ground, began = GROUNDS["digits"], environment("cpu", ["augkit", "torch", "numpy"])
    recipe = make_space(ground).recipe.control()
    dataset = small(ground, recipe, None)
    bench = Bench(Trainer(dataset, dataset.open_test(), ground.pairs), recipe, read_pool(options.table))
    bench.full_training()  # loads and compiles
    result = json.loads(options.output.read_text()) if options.output.is_file() else {}
    result |= {"seeds": options.seeds, "configurations": len(bench.pool.points)}
    for name, measure in {"told": by_telling, "constraint": by_constraint}.items():
        if options.part in (None, name):
            result[name] = measure(bench, options.seeds)
            result.setdefault("environments", {})[name] = began | {"load_after": loads()}
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(table(result))
    print(table(result))


def by_telling(bench: Bench, seeds: int) -> dict[str, Any]:
    """Told networks of every seed, trained for as many epochs as is listed."""
    found: dict[str, Any] = {}
    for epochs in CONDITIONED_EPOCHS:
        runs = []
        for seed in range(seeds):
            unit = bench.full_training()
            runs.append(told_network(bench, epochs, seed))
            runs[-1]["trainings"] = runs[-1]["seconds"] / unit
            print(f"told, {epochs} epochs, seed {seed}: {runs[-1]}", flush=True)
        cost, volume = (interval([run[key] for run in runs]) for key in ("trainings", "volume"))
        rivals = searches(bench.pool, round(cost["value"], 1), 20)
        found[str(epochs)] = {"trainings": cost, "volume": volume, "searches": rivals, "rows": runs}
    return found


def table(result: dict[str, Any]) -> str:
    """As Markdown: verified volumes as percentages of that of the long reference search."""
    head = ["without a search", "cost, full trainings", "volume, %", "random, %", "halving, %", "halving of forks, %"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    rows = {f"one told network, {epochs} epochs": row for epochs, row in result["told"].items()}
    rows |= {name: row for name, row in result["constraint"].items() if name not in ("targets", "rows")}
    for name, row in rows.items():
        shares = [row["volume"], *row["searches"].values()]
        words = [f"{100 * s['value']:.0f} [{100 * s['low']:.0f}, {100 * s['high']:.0f}]" for s in shares]
        lines.append("| " + " | ".join([name, f"{row['trainings']['value']:.1f}", *words]) + " |")
    lines += ["", "| learned invariance asked for | given | accuracy, % |", "|--:|--:|--:|"]
    for target, row in result["constraint"]["targets"].items():  # the first asks for nothing
        given, accuracy = row["learned_invariance"], row["accuracy"]
        words = [f"{given['value']:.2f} [{given['low']:.2f}, {given['high']:.2f}]"]
        words.append(f"{100 * accuracy['value']:.1f} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]")
        lines.append("| " + " | ".join([target, *words]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
