"""HTML report of `augkit.compare_policies`."""

from __future__ import annotations

from dataclasses import replace

from augkit.compare.policies import PolicyComparison
from augkit.core.figures import Chart, chart
from augkit.core.html import Table, render
from augkit.measure.figures import COLORS, carry_over, curves
from augkit.measure.tables import page_table
from augkit.measure.terminal import CURVE_TITLES

TABLE_CAPTION = (
    "{seeds} training seeds, {epochs} epochs; value and 95 % interval (bootstrap over images and seeds). Shift"
    " information is the share of what the answers say that is about the shift and not about the image; learned"
    " invariance is 1 − that of the network / that of the control with the same seed."
)
SCORE_CAPTION = "Score of the loop, mean over seeds with its 95 % interval; the difference is paired by seed."
POLICIES_CAPTION = "The ops of each policy and their strengths; all fields are below."
CURVE_CAPTION = "Against the answer to the unshifted image; bands are 95 % intervals over images and seeds."
CARRY_CAPTION = (
    "Each point is a network. The slope of the line is the share of the invariance gained on typical images that"
    " carries over: 1 (dotted) is all of it, 0 none. Both scales are logarithmic."
)


def policies_page(results: PolicyComparison) -> str:
    """The report of a comparison of policies."""
    seeds, settings = len(results.seeds), results.settings
    subtitle = (
        f"{settings['images']:,} images, protocol {settings['protocol']}, kernel {settings['kernel']}, shifts up to"
        f" {settings['max_shift']:g} px; seeds {', '.join(map(str, results.seeds))}."
    )
    table = page_table(results.table, TABLE_CAPTION.format(seeds=seeds, epochs=results.epochs))
    fields = {name: policy.model_dump(exclude_none=True) for name, policy in results.policies.items()}
    undefined = [f"{n}: undefined, {one.reason}." for n, one in results.carry_over.items() if not one.slope.defined]
    return render(
        "compare/policies.html",
        title=f"augkit: policies of {results.function}",
        results=results,
        subtitle=subtitle,
        table=replace(table, head=["policy", *table.head[1:]], words=["policy", *table.words[1:]]),
        scores=_scores(results),
        curves=_curves(results),
        carried=_carried(results),
        not_carried=undefined,
        policies=Table(POLICIES_CAPTION, ["name", "policy"], _policies(results), words=["policy"]),
        facts={"policies": fields, "settings": settings, "environment": results.environment},
    )


def _policies(results: PolicyComparison) -> list[list[str]]:
    return [[name, str(policy)] for name, policy in results.policies.items()]


def _scores(results: PolicyComparison) -> Table | None:
    if not results.scores:
        return None
    rows = [
        [name, format(row.mean, ".4f"), "–" if row.gain is None else format(row.gain, "+.4f")]
        for name, row in results.scores.items()
    ]
    return Table(SCORE_CAPTION, ["policy", "score", "minus that of the control"], rows)


def _curves(results: PolicyComparison) -> Chart:
    shown = dict(list(results.curves.items())[: len(COLORS)])
    more = f" The first {len(shown)} of {len(results.curves)}." if len(shown) < len(results.curves) else ""
    return chart("Response to a shift", curves(shown, CURVE_TITLES["length"]), CURVE_CAPTION + more)


def _carried(results: PolicyComparison) -> Chart | None:
    if not any(one.slope.defined for one in results.carry_over.values()):
        return None
    figure = carry_over(results.carry_over)
    return chart("", figure, CARRY_CAPTION, name="Carry-over of invariance to atypical images")
