"""Tables of a search for the terminal."""

from __future__ import annotations

from augkit.invariance import Estimate
from augkit.invariance.metrics import METRICS
from augkit.tune.results import ChosenRecipe, SearchResults, TuneResults
from augkit.tune.rung_report import rung_words
from augkit.tune.verified import VerifiedFront


def chosen_words(chosen: ChosenRecipe) -> str:
    """Policy and other searched fields of the chosen recipe, as one line."""
    others = ", ".join(f"{key} {value}" for key, value in chosen.others.items())
    return chosen.policy + (f"; {others}" if others else "")


def cost_words(results: TuneResults) -> str:
    """Where the seconds of a tuning went, as one line."""
    parts = [f"{phase} {seconds:.1f}" for phase, seconds in results.cost.items() if phase != "seconds"]
    spent = results.search.search_cost
    inside = f"; of the trials' {spent.trial_seconds:.1f} s, {spent.measuring_seconds:.1f} went into measuring"
    return f"{results.cost['seconds']:.1f} s: {', '.join(parts)}{inside}"


def print_trials(held: SearchResults) -> None:
    """Print the trials of a study to standard output, the most invariant first; with rungs, one per configuration."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=_caption(held))
    rung = ("epochs",) if held.rungs else ()
    for title in ("trial", *rung, "state", "accuracy, %", "learned invariance, %", "kappa", "seconds", "values"):
        table.add_column(title, justify="left" if title in ("state", "values") else "right", overflow="fold")
    shown = held.configurations
    known = [(row.learned_invariance, row) for row in shown if row.learned_invariance is not None]
    others = [row for row in shown if row.learned_invariance is None]
    for row in [*(row for _, row in sorted(known, key=lambda pair: -pair[0])), *others]:
        marks = [word for word in ("control", "front", "chosen") if getattr(row, word)] + ["below a bound"] * (
            not row.feasible
        )
        values = ", ".join(
            f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in row.parameters.items()
        )
        table.add_row(
            str(row.number),
            *([str(row.rung or held.budget)] if held.rungs else []),
            ", ".join([row.state, *marks]),
            *(_number(getattr(row, key), factor, digits) for key, factor, digits in TRIAL_NUMBERS),
            values,
        )
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
    for line in rung_words(held.rungs):
        print(line)


def print_verified(verified: VerifiedFront) -> None:
    """Print the retrained trials: what the search showed, and the mean with its interval over fresh seeds."""
    print("\nVerified front (validation split): the search, and the retrained networks with 95 % intervals, in %")
    for point in verified.points:
        marks = [word for word in ("front", "chosen") if getattr(point, word)]
        name = f"trial {point.number}{': ' if marks else ''}{', '.join(marks)}"
        accuracy = f"{100 * point.searched_accuracy:5.1f} -> {percent(point.accuracy)}"
        learned = f"{100 * point.searched_learned_invariance:5.1f} -> {percent(point.learned_invariance)}"
        print(f"  {name:24s} accuracy {accuracy:27s} learned invariance {learned}")
    print(verified.sentence)


def percent(estimate: Estimate) -> str:
    """An estimate with its interval, in per cent."""
    scaled = Estimate(*(100 * value for value in (estimate.value, estimate.low, estimate.high)))
    return format(scaled, ".1f")


def _shown(metric: str) -> tuple[str, float, int]:
    row = METRICS[metric]
    return metric, row.factor, row.digits


TRIAL_NUMBERS = (_shown("accuracy"), ("learned_invariance", 100.0, 1), _shown("kappa"), ("seconds", 1.0, 1))


def _caption(held: SearchResults) -> str:
    cost = held.search_cost
    return (
        f"{cost.trials} trials, {cost.pruned} pruned, {cost.answered_from_the_study} answered from the study,"
        f" {cost.failed} failed; {cost.epochs_run} epochs run, {cost.epochs_saved} saved"
    )


def _number(value: float | None, factor: float, digits: int) -> str:
    return "–" if value is None else f"{factor * value:.{digits}f}"
