"""The numbers of several networks side by side with their intervals, as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augkit.core.errors import InputError, unknown_name
from augkit.core.records import Record
from augkit.invariance import Estimate, InvarianceReport
from augkit.invariance.bootstrap import combine_seeds, per_seed
from augkit.invariance.metrics import METRICS, Metric
from augkit.invariance.outputs import KINDS, OutputReport
from augkit.invariance.plan import Plan

SHOWN = ("accuracy", "top1_change", "shift_information")  # of logits, where no metrics are named
COMPARED = "top1_change"  # whose difference from the first network is shown
MISSING = "–"
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}

Report = InvarianceReport | OutputReport


@dataclass(frozen=True)
class Column(Record):
    """One number of a table: its heading with the unit, and how it is shown.

    Attributes:
        name: key of the number.
        heading: title with the unit.
        factor: from the number to what is shown, 100 for percent.
        digits: after the decimal point.
    """

    name: str
    heading: str
    factor: float
    digits: int

    @classmethod
    def of(cls, row: Metric) -> Column:
        """Return the column of a metric."""
        return cls(row.name, row.heading(row.title), row.factor, row.digits)

    def text(self, found: Estimate | None) -> str:
        """Return a number with its interval, an en dash for None."""
        if found is None:
            return MISSING
        scaled = Estimate(*(self.factor * value for value in (found.value, found.low, found.high)))
        return format(scaled, f".{self.digits}f")


@dataclass(frozen=True)
class NetworkTable(Record):
    """The numbers of several networks on the same images, with 95 % intervals.

    Attributes:
        columns: what is shown, in order.
        rows: by network, the numbers by the name of their column; None for one that it does not have.
        inputs: by network, the size of its input as text.
        note: what was measured, one sentence.
    """

    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Estimate | None]]
    inputs: dict[str, str]
    note: str

    @property
    def headings(self) -> list[str]:
        """Titles of the columns, that of the networks first; the input only where networks differ in it."""
        return ["network", *(["input, px"] if self._inputs_differ else []), *(c.heading for c in self.columns)]

    @property
    def cells(self) -> list[list[str]]:
        """One list of texts per network, in the order of `headings`."""
        return [
            [
                name,
                *([self.inputs[name]] if self._inputs_differ else []),
                *(c.text(found[c.name]) for c in self.columns),
            ]
            for name, found in self.rows.items()
        ]

    @property
    def _inputs_differ(self) -> bool:
        return len(set(self.inputs.values())) > 1

    def markdown(self) -> str:
        """Return the table and its note in GitHub's Markdown."""
        lines = [self.headings, ["---", *["--:"] * (len(self.headings) - 1)], *self.cells]
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        return "\n".join([*rows, "", self.note, ""])

    def latex(self) -> str:
        """Return a ``tabular`` for the package ``booktabs``, with the note as a comment."""
        head = " & ".join(map(latex_text, self.headings)) + r" \\"
        body = [" & ".join([latex_text(name), *map(_latex_cell, cells)]) + r" \\" for name, *cells in self.cells]
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.headings) - 1)}}}"
        lines = [f"% {self.note}", "% needs \\usepackage{booktabs}", begin, r"\toprule", head, r"\midrule", *body]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def csv(self) -> str:
        """Return the numbers, not rounded, each in three columns: value, low and high end of its interval.

        Shares are fractions, as in ``results.json``. What is missing or undefined is empty.
        """
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        names = [f"{c.name}{end}" for c in self.columns for end in ("", "_low", "_high")]
        writer.writerow(["network", "input", *names])
        for network, found in self.rows.items():
            values: list[object] = []
            for column in self.columns:
                estimate = found[column.name]
                known = estimate is not None and estimate.defined
                values += [estimate.value, estimate.low, estimate.high] if estimate and known else ["", "", ""]
            writer.writerow([network, self.inputs[network], *values])
        return file.getvalue()


def network_table(reports: Mapping[str, Report], *, metrics: Sequence[str] | None = None) -> NetworkTable:
    """Put the reports of several networks on the same images side by side.

    Where all networks saw the same views and have as many classes, a last column has the difference of top-1 change
    from the first network: it is paired by image, so its interval is narrower than those of the two numbers suggest.

    Args:
        reports: by the name of the network, what `augkit.measure_invariance`, or for all of them
            `augkit.measure_outputs`, returned.
        metrics: names of the numbers; accuracy, top-1 change and shift information when None, and all numbers of other
            outputs.

    Raises:
        InputError: no reports; reports of different kinds, settings or numbers of images; an unknown metric.

    >>> import torch, augkit
    >>> images = torch.rand(6, 1, 14, 14)  # of which windows of 12 x 12 are seen
    >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 3)) for name in ("one", "other")}
    >>> reports = {name: augkit.measure_invariance(net, images, max_shift=1.0, pairs=1) for name, net in nets.items()}
    >>> print(network_table(reports, metrics=["top1_change"]).markdown().splitlines()[0])
    | network | top-1 change, % | difference from the first, points |
    """
    if not reports:
        raise InputError("network_table: expected reports of networks by name, got none")
    check_alike("network_table", {name: _shared(report) for name, report in reports.items()})
    first = next(iter(reports.values()))
    known = METRICS if isinstance(first, InvarianceReport) else {r.name: r for r in KINDS[first.kind].measure.rows}
    numbers = {name: _numbers(report) for name, report in reports.items()}
    measured = dict.fromkeys(name for found in numbers.values() for name in found if name in known)
    if metrics is None:
        metrics = [m for m in SHOWN if m in measured] if isinstance(first, InvarianceReport) else list(measured)
    for metric in metrics:
        if metric not in measured:
            raise unknown_name("metric", metric, measured)
    columns = [Column.of(known[metric]) for metric in metrics]
    rows = {name: {metric: found.get(metric) for metric in metrics} for name, found in numbers.items()}
    differences = _differences(reports) if COMPARED in metrics else {}
    if differences:
        columns.append(Column("difference", "difference from the first, points", 100.0, 1))
        rows = {name: {**found, "difference": differences.get(name)} for name, found in rows.items()}
    inputs = {name: " x ".join(map(str, report.settings.input_size)) for name, report in reports.items()}
    return NetworkTable(tuple(columns), rows, inputs, _note(first, inputs, compared=bool(differences)))


def _numbers(report: Report) -> dict[str, Estimate]:
    return report.metrics if isinstance(report, InvarianceReport) else report.numbers


def shared_settings(kind: str, protocol: str, kernel: str, plan: Plan) -> dict[str, object]:
    """Return what networks in one table have in common, besides their images; all but the kind are flags."""
    pairs, shifted = plan.pairs, plan.axis == "shift"
    return {
        "kind": kind,
        "protocol": protocol,
        "kernel": kernel,
        "axis": plan.axis,
        "max_shift": pairs.reach if shifted else None,
        "max_scale": None if shifted else pairs.high,
        "quantum": pairs.quantum,
        "shift": pairs.step,
    }


def check_alike(where: str, networks: Mapping[str, Mapping[str, object]]) -> None:
    """Raise InputError, which begins with ``where``, if networks differ in one of their `shared_settings`."""
    (name, first), *others = networks.items()
    for other, found in others:
        for setting, mine in first.items():
            its = found[setting]
            if mine != its:
                what = "one kind of output" if setting == "kind" else "the same settings"
                key = "" if setting == "kind" else f"{setting} "
                raise InputError(f"{where}: expected {what}, '{other}' has {key}{its} and '{name}' {mine}")


def _shared(report: Report) -> dict[str, object]:
    settings = report.settings
    kind = "logits" if isinstance(report, InvarianceReport) else report.kind
    found = shared_settings(kind, settings.protocol, settings.kernel, settings.plan)
    return {**found, "images": settings.images}


def _differences(reports: Mapping[str, Report]) -> dict[str, Estimate]:
    """The top-1 change of each network but the first, minus that of the first; empty where views differ."""
    logits = {name: report for name, report in reports.items() if isinstance(report, InvarianceReport)}
    if len(logits) < max(2, len(reports)) or len({report.fingerprint for report in logits.values()}) > 1:
        return {}
    changes = {name: per_seed([COMPARED], [report.statistics])[COMPARED] for name, report in logits.items()}
    (_, first), *others = changes.items()
    return {
        name: combine_seeds(lambda mine, its: mine - its, found, first).over_seeds().estimate(-1.0, 1.0)
        for name, found in others
    }


def _note(report: Report, inputs: Mapping[str, str], *, compared: bool) -> str:
    settings = report.settings
    size = next(iter(inputs.values()))
    seen = f", input {size} px" if len(set(inputs.values())) == 1 else ""
    pairs = settings.plan.pairs
    most = f"factors up to {pairs.high:g}" if settings.axis == "scale" else f"shifts up to {settings.max_shift:g} px"
    if pairs.step is not None and pairs.low == pairs.high:
        most = "one shift by ({:g}, {:g}) px".format(*pairs.step)
    return (
        f"{settings.images:,} images, protocol {settings.protocol}, kernel {settings.kernel}, {most}{seen};"
        " 95 % intervals by a bootstrap over images."
        + (" Differences are of top-1 change, paired by image." if compared else "")
    )


def latex_text(text: str) -> str:
    r"""Return text with the characters that LaTeX reads as commands escaped.

    >>> latex_text("timm:mobilenetv3_small_050, %")
    'timm:mobilenetv3\\_small\\_050, \\%'
    """
    return "".join(LATEX.get(character, character) for character in text)


def _latex_cell(text: str) -> str:
    """A number with its interval in small print."""
    value, bracket, interval = text.partition(" [")
    minus = value.replace("-", "$-$")
    if not bracket:
        return latex_text(text.replace(MISSING, "--"))
    return rf"{minus} {{\scriptsize [{interval.replace('-', '$-$')}}}"
