"""``python -m augkit.tune``: search augmentation, then say whether it made the network invariant.

Control, search, retraining with fresh seeds, one look at the test split, report. The functions are in the
order in which they run.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch

from augkit import search
from augkit.building import choose_device, load_recipe_data
from augkit.command import (
    Display,
    Interrupted,
    add_writing,
    make_parser,
    new_folder,
    one_recipe,
    positive,
    print_json,
    run,
)
from augkit.comparison import (
    Arm,
    closing_table,
    conclusion,
    jsonable,
    measure_run,
    open_test_sets,
    response_curve,
)
from augkit.data import Dataset
from augkit.errors import InputError, RunError
from augkit.evaluation import check_measurable
from augkit.invariance import Estimate, InvarianceReport, learned_invariance
from augkit.policy import Policy
from augkit.recipe import Recipe
from augkit.report.figures import save_png, summary
from augkit.report.page import tuning_page
from augkit.report.sheet import contact_sheet, save
from augkit.report.table import print_table
from augkit.storage import claim, environment, write
from augkit.training import Run, fit

EXAMPLE = "python -m augkit.tune mnist5k train.epochs=12 --trials 40 --seeds 5 --output runs/longer"
STRENGTHS = (0.25, 0.5, 0.75)
CURVE_POINTS = 8
SHEET_ROWS = 6


@dataclass
class Tuning:
    """What every step of a tuning needs."""

    recipe: Recipe
    folder: Path
    trials: int
    trial_epochs: int
    seeds: int
    storage: str | Path
    study_name: str
    device: torch.device
    dataset: Dataset
    display: Display
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def control_policy(self) -> Policy:
        """No augmentation, with the kernel and the padding of the recipe."""
        return self.recipe.control().policy

    @property
    def final_seeds(self) -> list[int]:
        """Seeds that the search did not use, so that its luck does not count."""
        return [self.recipe.seed + 1 + k for k in range(self.seeds)]

    @property
    def lengths(self) -> list[float]:
        """Lengths of shifts in pixels at which the response curve is taken."""
        return [self.recipe.invariance.max_shift * (k + 1) / CURVE_POINTS for k in range(CURVE_POINTS)]

    def train(self, policy: Policy, seed: int, epochs: int, output: Path | None) -> Run:
        """One run, gone on with or only loaded where ``output`` holds it."""
        settings = self.recipe.train.model_copy(update={"epochs": epochs})
        recipe = self.recipe.replaced(policy=policy, train=settings)
        before = [0]

        def on_epoch(row: dict[str, Any]) -> None:
            before[0] += 1
            self.display.advance(1)

        run = fit(
            recipe,
            seed,
            output=output,
            resume=True,
            device=self.device,
            dataset=self.dataset,
            on_epoch=on_epoch,
        )
        self.display.skip(epochs - before[0])
        return run

    def measure(self, run: Run, images: Any, *, curve: bool = False) -> InvarianceReport:
        """Measure a run on some images, with the response curve if asked for."""
        lengths = self.lengths if curve else []
        report = measure_run(run, images, lengths=lengths, device=self.device)
        self.display.advance(self.work(len(images), len(lengths)))
        return report

    def work(self, images: int, lengths: int = 0) -> float:
        """What measuring costs, in epochs of training: a forward pass is about two thirds of a training step."""
        return images * (1 + 2 * self.recipe.invariance.pairs + lengths) / (1.5 * len(self.dataset.train))


def tune(  # noqa: PLR0913 (the flags of the command)
    recipe: Recipe,
    folder: Path,
    *,
    trials: int = 10,
    trial_epochs: int | None = None,
    seeds: int = 3,
    storage: str | None = None,
    study_name: str = "augkit",
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Tune a recipe's policy for accuracy and learned invariance, and judge the result on the test split.

    Args:
        recipe: data, network and training; its policy is the first trial.
        folder: gets ``best.yaml``, ``study.journal``, ``results.json``, ``report.html`` and the final runs.
        trials: completed trials of the search, the control not counted.
        trial_epochs: epochs of a trial; half the recipe's when None.
        seeds: final training seeds of control and best.
        storage: Optuna storage (file or URL); ``study.journal`` in ``folder`` when None.
        study_name: of the Optuna study.
        device, resume, overwrite: as in `augkit.fit`.
        quiet: no progress on standard error.

    Returns:
        All that ``results.json`` holds, with `Estimate`s.

    Raises:
        InputError, RunError: one line each.
    """
    if trials < 1 or seeds < 1 or (trial_epochs is not None and trial_epochs < 1):
        raise InputError(f"tune: expected trials, seeds, epochs of at least 1, got {trials}, {seeds}, {trial_epochs}")
    started = time.monotonic()
    target, dataset = choose_device(device), load_recipe_data(recipe)
    check_measurable(recipe, dataset.validation)
    claim(folder, resume=resume, overwrite=overwrite)
    epochs = trial_epochs or math.ceil(recipe.train.epochs / 2)
    tuning = Tuning(
        recipe,
        folder,
        trials,
        epochs,
        seeds,
        storage or folder / "study.journal",
        study_name,
        target,
        dataset,
        Display(0, quiet=True),
    )
    with Display(_total_work(tuning), quiet=quiet) as tuning.display:
        study = _open(tuning, resume)
        control = _train_control(tuning)
        _search(tuning, study, control)
        chosen = _choose(tuning, study)
        runs = _retrain(tuning, chosen)
        dose = _dose_response(tuning, chosen, runs)
        arms = _final_measurements(tuning, runs)
        results = _results(tuning, study, chosen, dose, arms, time.monotonic() - started)
        _write(tuning, chosen, results)
    return results


def _total_work(tuning: Tuning) -> float:
    validation, final = len(tuning.dataset.validation), 2 * tuning.seeds
    short = (tuning.trials + 1) * (tuning.trial_epochs + tuning.work(validation))
    # The test split is not opened to count it; that it is twice the validation split only moves the bar.
    measured = final * (3 * tuning.work(2 * validation) + tuning.work(2 * validation, CURVE_POINTS))
    doses = len(STRENGTHS) * tuning.recipe.train.epochs + (2 + len(STRENGTHS)) * tuning.work(validation)
    return short + final * tuning.recipe.train.epochs + doses + measured


def _open(tuning: Tuning, resume: bool) -> optuna.Study:
    kept = tuning.folder / "recipe.yaml"
    if resume and kept.is_file() and Recipe.load(kept) != tuning.recipe:
        raise InputError(f"'{tuning.folder}' tunes another recipe; resume with {kept}")
    digest = f"{tuning.recipe.digest()}:{tuning.trial_epochs}"
    study = search.open_study(
        tuning.storage,
        tuning.study_name,
        tuning.recipe.policy,
        digest,
        resume=resume,
        seed=tuning.recipe.seed,
    )
    if not kept.is_file():
        write(kept, tuning.recipe.to_yaml("what this folder tunes"))
    write(tuning.folder / "environment.json", json.dumps(environment(), indent=2))
    again = search.recover(study)
    if again:
        tuning.display.line(f"{again} unfinished trial(s) of an earlier session will be run again")
    return study


def _train_control(tuning: Tuning) -> InvarianceReport:
    tuning.display.stage("control, not augmented")
    folder = tuning.folder / "control"
    run = tuning.train(tuning.control_policy, tuning.recipe.seed, tuning.trial_epochs, folder)
    report = tuning.measure(run, tuning.dataset.validation)
    if not learned_invariance(report, report).defined:
        raise RunError(
            "the control's answers hardly vary under shift, so learned invariance is undefined; "
            "train longer (train.epochs) or measure larger shifts (invariance.max_shift)"
        )
    tuning.display.line(
        f"control   accuracy {100 * report.accuracy.value:5.1f} %  JS {report.js.value:.4f} bits (not augmented)"
    )
    return report


def _search(tuning: Tuning, study: optuna.Study, control: InvarianceReport) -> None:
    started = time.monotonic()
    if not any(trial.user_attrs.get("control") for trial in study.trials):
        search.begin(study, tuning.recipe.policy, control.accuracy.value)
    already = search.completed(study)
    tuning.display.skip(len(already) * (tuning.trial_epochs + tuning.work(len(tuning.dataset.validation))))

    def evaluate(policy: Policy, number: int) -> dict[str, Any]:
        tuning.display.stage(f"trial {len(search.completed(study)) + 1} of {tuning.trials}")
        began = time.monotonic()
        run = tuning.train(policy, tuning.recipe.seed, tuning.trial_epochs, None)
        report = tuning.measure(run, tuning.dataset.validation)
        return {
            "accuracy": report.accuracy.value,
            "learned_invariance": learned_invariance(report, control).value,
            "js": report.js.value,
            "kappa": report.kappa.value,
            "seconds": time.monotonic() - began,
        }

    def on_trial(trial: optuna.trial.FrozenTrial) -> None:
        policy = search.policy_of(trial, tuning.recipe.policy)
        accuracy, learned = trial.values
        tuning.display.line(
            f"trial {trial.number:3d} accuracy {100 * accuracy:5.1f} %  learned invariance"
            f" {100 * learned:5.1f} %  {policy}"
        )
        best = search.choose(search.completed(study), control.accuracy.value, len(tuning.dataset.validation))
        tuning.display.best(f"best {100 * best.values[0]:.1f} %, invariance {100 * best.values[1]:.0f} %")

    search.search(study, tuning.recipe.policy, tuning.trials, evaluate, on_trial)
    tuning.phases["search"] = time.monotonic() - started


def _choose(tuning: Tuning, study: optuna.Study) -> dict[str, Any]:
    control = next(trial for trial in study.trials if trial.user_attrs.get("control"))
    trial = search.choose(search.completed(study), control.values[0], len(tuning.dataset.validation))
    policy = search.policy_of(trial, tuning.recipe.policy)
    rule = "the most invariant of those within two standard errors of the best accuracy"
    tuning.display.line(f"chosen    trial {trial.number}, {rule}")
    return {"number": trial.number, "policy": policy, "rule": rule}


def _retrain(tuning: Tuning, chosen: dict[str, Any]) -> dict[str, list[Run]]:
    started = time.monotonic()
    runs: dict[str, list[Run]] = {"control": [], "best": []}
    # A resumed search may choose another trial: its runs must not be taken for those of the first choice.
    folders = {"control": "control", "best": f"trial{chosen['number']}"}
    for name, policy in (("control", tuning.control_policy), ("best", chosen["policy"])):
        for seed in tuning.final_seeds:
            tuning.display.stage(f"final run: {name}, seed {seed}")
            folder = tuning.folder / "final" / f"{folders[name]}-seed{seed}"
            runs[name].append(tuning.train(policy, seed, tuning.recipe.train.epochs, folder))
    tuning.phases["final runs"] = time.monotonic() - started
    return runs


def _dose_response(tuning: Tuning, chosen: dict[str, Any], runs: dict[str, list[Run]]) -> list[dict[str, Any]]:
    started = time.monotonic()
    seed, validation = tuning.final_seeds[0], tuning.dataset.validation
    reports = {
        0.0: tuning.measure(runs["control"][0], validation),
        1.0: tuning.measure(runs["best"][0], validation),
    }
    for strength in STRENGTHS:
        tuning.display.stage(f"dose-response: strength {strength:g}")
        policy = chosen["policy"].model_copy(update={"strength": strength * chosen["policy"].strength})
        folder = tuning.folder / "dose" / f"trial{chosen['number']}-strength{strength:g}-seed{seed}"
        reports[strength] = tuning.measure(tuning.train(policy, seed, tuning.recipe.train.epochs, folder), validation)
    tuning.phases["dose-response"] = time.monotonic() - started
    return [
        {
            "strength": strength,
            "accuracy": report.accuracy,
            "learned_invariance": Estimate(0.0, 0.0, 0.0)
            if strength == 0
            else learned_invariance(report, reports[0.0]),
        }
        for strength, report in sorted(reports.items())
    ]


def _final_measurements(tuning: Tuning, runs: dict[str, list[Run]]) -> list[Arm]:
    started = time.monotonic()
    sets = open_test_sets(tuning.dataset)
    arms = []
    for name, several in runs.items():
        reports = []
        for trained in several:
            tuning.display.stage(f"test split: {name}, seed {trained.seed}")
            reports.append(
                {key: tuning.measure(trained, images, curve=key == "typical") for key, images in sets.items()}
            )
        arms.append(Arm(name, reports))
    tuning.phases["test split"] = time.monotonic() - started
    return arms


def _results(
    tuning: Tuning,
    study: optuna.Study,
    chosen: dict[str, Any],
    dose: list[dict[str, Any]],
    arms: list[Arm],
    seconds: float,
) -> dict[str, Any]:
    recipe = tuning.recipe
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    on_front = {trial.number for trial in search.front(done)}
    table = closing_table(arms)
    return {
        "conclusion": conclusion(table, "best", recipe.invariance.max_shift),
        "chosen": {**chosen, "policy": str(chosen["policy"]), "fields": chosen["policy"].model_dump()},
        "table": table,
        "response": {arm.name: response_curve(arm) for arm in arms},
        "dose_response": dose,
        "trials": [
            {
                "number": trial.number,
                "accuracy": trial.values[0],
                "learned_invariance": trial.values[1],
                "front": trial.number in on_front,
                "chosen": trial.number == chosen["number"],
                "control": bool(trial.user_attrs.get("control")),
                "parameters": trial.user_attrs.get("values", trial.params),
                "js": trial.user_attrs.get("js"),
                "kappa": trial.user_attrs.get("kappa"),
                "seconds": trial.user_attrs.get("seconds"),
            }
            for trial in done
        ],
        "importance": search.importance(study),
        "settings": {
            "name": recipe.name,
            "trials": len(search.completed(study)),
            "trial_epochs": tuning.trial_epochs,
            "epochs": recipe.train.epochs,
            "seeds": tuning.seeds,
            "final_seeds": tuning.final_seeds,
            **{key: arms[0].on("typical")[0].settings[key] for key in ("protocol", "kernel", "max_shift", "pairs")},
            "device": str(tuning.device),
        },
        "cost": {
            "seconds": round(seconds, 1),
            **{key: round(value, 1) for key, value in tuning.phases.items()},
        },
        "environment": environment(),
    }


def _write(tuning: Tuning, chosen: dict[str, Any], results: dict[str, Any]) -> None:
    tuning.display.stage("writing the report")
    recipe = tuning.recipe.replaced(name=f"{tuning.recipe.name}-tuned", policy=chosen["policy"])
    best = recipe.to_yaml(_header(tuning, results))
    shown = tuning.dataset.validation.on_canvas(recipe.data.canvas)[:: max(1, len(tuning.dataset.validation) // 6)]
    sheet = contact_sheet(chosen["policy"], shown[:SHEET_ROWS])
    picture = summary(results["response"], [row for row in results["table"] if row["arm"] == "best"])
    write(tuning.folder / "best.yaml", best)
    write(tuning.folder / "contact-sheet.png", lambda path: save(sheet, path))
    write(tuning.folder / "summary.png", lambda path: save_png(picture, path))
    write(tuning.folder / "results.json", json.dumps(jsonable(results), indent=2, allow_nan=False))
    write(tuning.folder / "report.html", tuning_page(results, best, sheet))


def _header(tuning: Tuning, results: dict[str, Any]) -> str:
    row = next(row for row in results["table"] if row["arm"] == "best" and row["images"] == "typical")
    learned = format(row["learned_invariance"], ".3f")
    return (
        f"Chosen by augkit.tune among {results['settings']['trials']} trials, for accuracy and learned invariance.\n"
        f"Test split, {row['n_images']} images, {row['n_seeds']} seeds: accuracy {row['accuracy']:.3f}, learned"
        f" invariance {learned}.\n"
        f"Run it: python -m augkit.train {tuning.folder / 'best.yaml'}"
    )


def main(arguments: list[str]) -> None:
    """Parse, tune, print."""
    parser = make_parser(
        "tune",
        "Search shift, rescale and crop augmentation for accuracy and learned invariance; without arguments, on"
        " 5,000 digits in about two minutes.",
        EXAMPLE,
    )
    parser.add_argument("recipe", nargs="*", metavar="RECIPE [dotted.key=value ...]", help="(default: mnist5k)")
    parser.add_argument("--trials", type=positive, default=10, help="completed trials (default: 10)")
    parser.add_argument("--trial-epochs", type=positive, metavar="N", help="(default: half the recipe's epochs)")
    parser.add_argument("--seeds", type=positive, default=3, help="final seeds of control and best (default: 3)")
    parser.add_argument("--storage", metavar="URL", help="Optuna storage (default: study.journal in the folder)")
    parser.add_argument("--study", default="augkit", metavar="NAME", help="name of the study (default: augkit)")
    add_writing(parser)
    options = parser.parse_intermixed_args(arguments)
    folder = _folder(options)
    recipe = one_recipe(options.recipe, str(folder) if options.resume else "mnist5k")
    if options.seed is not None:
        recipe = recipe.replaced(seed=options.seed)
    try:
        results = tune(
            recipe,
            folder,
            trials=options.trials,
            trial_epochs=options.trial_epochs,
            seeds=options.seeds,
            storage=options.storage,
            study_name=options.study,
            device=options.device,
            resume=options.resume,
            overwrite=options.overwrite,
            quiet=options.quiet,
        )
    except KeyboardInterrupt:
        if not (folder / "recipe.yaml").is_file():
            raise
        raise Interrupted(_resume_line(options, folder)) from None
    if options.json:
        print_json({**jsonable(results), "folder": str(folder)})
        return
    print_table(results["table"])
    print(results["conclusion"])
    print(f"\nchosen: {results['chosen']['policy']}\nreport: {folder / 'report.html'}\nrecipe: {folder / 'best.yaml'}")


def _folder(options: Any) -> Path:
    if options.output is not None:
        return Path(options.output)
    if options.resume:
        raise InputError("--resume: expected --output DIR, the folder to go on with")
    return new_folder("tune")


def _resume_line(options: Any, folder: Path) -> str:
    line = f"python -m augkit.tune --output {folder} --resume --trials {options.trials} --seeds {options.seeds}"
    for flag, value in (("trial-epochs", options.trial_epochs), ("storage", options.storage)):
        line += f" --{flag} {value}" if value is not None else ""
    return line + (f" --study {options.study}" if options.study != "augkit" else "")


if __name__ == "__main__":
    sys.exit(run(main))
