"""Tables of a search for the terminal."""

from __future__ import annotations

from augkit.core.cli import called
from augkit.core.terminal import console, say
from augkit.invariance import Estimate
from augkit.invariance.metrics import METRICS
from augkit.tune.results import ChosenRecipe, SearchResults, TuneResults
from augkit.tune.rung_report import rung_words
from augkit.tune.verified import VerifiedFront

SHOWN = 12  # trials of the short table, beside the control and the winner
WIDE = 160  # characters of the table of all trials


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


def print_trials(held: SearchResults, *, full: bool = False) -> None:
    """Print the trials of a study to standard output, the most invariant first; with rungs, one per configuration.

    Without ``full`` these are the first `SHOWN`, with the columns that fit 80 characters.
    """
    from rich import box
    from rich.table import Table

    say(_caption(held))
    known = [(row.learned_invariance, row) for row in held.configurations if row.learned_invariance is not None]
    rows = [row for _, row in sorted(known, key=lambda pair: -pair[0])]
    rows += [row for row in held.configurations if row.learned_invariance is None]
    shown = rows if full else [row for k, row in enumerate(rows) if k < SHOWN or row.control or row.chosen]
    numbers = TRIAL_NUMBERS if full else TRIAL_NUMBERS[:2]
    rung = ("epochs",) if held.rungs else ()
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("trial", *rung, "state", *(title for title, *_ in numbers), "values"):
        table.add_column(title, justify="left" if title in ("state", "values") else "right", overflow="fold")
    for row in shown:
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
            *(_number(getattr(row, key), factor, digits) for _, key, factor, digits in numbers),
            values,
        )
    console(WIDE if full else 0).print(table)
    if len(shown) < len(rows):
        say(f"{len(rows) - len(shown)} more, and more columns: {called('tune')} --show STUDY --full")
    for line in rung_words(held.rungs):
        say(line, indent="  ")


def print_verified(verified: VerifiedFront) -> None:
    """Print the retrained trials: what the search showed, and the mean with its interval over fresh seeds."""
    print("\nVerified front (validation split): the search, and the retrained networks with 95 % intervals, in %")
    for point in verified.points:
        marks = [word for word in ("front", "chosen") if getattr(point, word)]
        name = f"trial {point.number}{': ' if marks else ''}{', '.join(marks)}"
        accuracy = f"{100 * point.searched_accuracy:5.1f} -> {percent(point.accuracy)}"
        learned = f"{100 * point.searched_learned_invariance:5.1f} -> {percent(point.learned_invariance)}"
        print(f"  {name:24s} accuracy {accuracy:27s} learned invariance {learned}")
    say(verified.sentence)


def percent(estimate: Estimate) -> str:
    """An estimate with its interval, in per cent."""
    scaled = Estimate(*(100 * value for value in (estimate.value, estimate.low, estimate.high)))
    return format(scaled, ".1f")


def _shown(title: str, metric: str) -> tuple[str, str, float, int]:
    row = METRICS[metric]
    return title, metric, row.factor, row.digits


TRIAL_NUMBERS = (
    _shown("accuracy, %", "accuracy"),
    ("learned invariance, %", "learned_invariance", 100.0, 1),
    _shown("kappa", "kappa"),
    ("seconds", "seconds", 1.0, 1),
)


def _caption(held: SearchResults) -> str:
    cost = held.search_cost
    return (
        f"{cost.trials} trials, {cost.pruned} pruned, {cost.answered_from_the_study} answered from the study,"
        f" {cost.failed} failed; {cost.epochs_run} epochs run, {cost.epochs_saved} saved"
    )


def _number(value: float | None, factor: float, digits: int) -> str:
    return "–" if value is None else f"{factor * value:.{digits}f}"
