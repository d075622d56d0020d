"""The page "What decides translation invariance?": its tables and figures, from the committed results of the studies.

    python benchmarks/decides.py

It trains nothing. It reads ``results/STUDY.json``, the ``results.json`` of `augkit.compare`, and writes one figure per
study to ``docs/figures/``, the same as PNG to ``results/``, and the tables between the marks of ``docs/decides.md``. A
study without results is listed as not run. Pretrained networks come from ``results/pretrained.json``.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"
STUDIES = {
    "partial-classes": "Does learned invariance cross classes?",
    "on-the-line": "Do learned and built-in invariance lie on one line?",
    "where-it-sits": "Where does learned invariance sit?",
    "data-as-source": "How many images is augmentation worth?",
    "real-borders": "What is left of exact invariance with real borders?",
}
# The claims of the factorial study before they were mended: id, and what has become of them.
MENDED = {
    "1": "a check",
    "2": "compares pooled with unpooled maps below and above the window",
    "3": "shifts off the grid of each layer and by whole strides are apart",
    "4": "margin 99 %, 'more accurate', 1,000 images",
    "5": "a check on the torus; real borders are study real-borders",
    "6": "also against a control of tuned weight decay",
    "7": "studies partial-classes and on-the-line",
    "8": "also against as much training time",
    "9": "study where-it-sits",
    "9b": "study where-it-sits",
    "10": "a linear read-out from frozen features, mirrored canvas, as many multiplications",
    "11": "two claims, 11 and 11b, with margins of 0.1 nats",
    "12": "trained four times as long, accuracy under rotation beside it",
    "13": "a control",
    "14": "study real-borders",
}
COLORS = {"supported": "#1e8449", "refuted": "#c0392b", "undetermined": "#7f8c8d", "reported": "#2471a3"}
FAMILIES = {"without shifts": "#7f8c8d", "trained with shifts": "#c0392b", "exact on the torus": "#2471a3"}
OLD = "study-quick-10-seeds"
FACTORIAL = "factorial"  # the factorial study anew: five seeds, by shift information
BESIDE = {"clothes": "clothes-", "CIFAR-10": "cifar10-"}  # other data: what is before the name of a study there
LINE = "on-the-line-shift-information"  # benchmarks/on_the_line.py


def results_of(name: str) -> dict[str, Any] | None:
    """The committed results of a study; None if it was not run."""
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    return found if "claims" in found else None


def number(effect: dict[str, float | None] | None, unit: str) -> str:
    """An effect with interval and unit."""
    if not effect or effect["value"] is None:
        return "undefined"
    value, low, high = (f"{effect[key]:.2f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}] {unit}"


def verdict_rows(name: str, results: dict[str, Any]) -> list[list[str]]:
    """One row per claim: study, claim, verdict, primary effect, p, seeds × images."""
    rows = []
    for claim in results["claims"]:
        p = "–" if claim["p"] is None else "< 0.001" if claim["p"] < 0.001 else f"{claim['p']:.3f}"
        effect = number(claim["effect"], claim["unit"])
        n = f"{claim['n_seeds']} × {claim['n_images'] or '–'}"
        rows.append([f"{name} {claim['id']}", claim["claim"].replace("|", "/"), claim["verdict"], effect, p, n])
    return rows


def verdict_table() -> str:
    """Table of the claims of the five studies, and of the factorial study."""
    columns = ["study", "claim", "verdict", "effect of the primary part [95 %]", "p (Holm, looks)", "seeds × images"]
    lines = [columns, ["---"] * len(columns)]
    for name in (*STUDIES, FACTORIAL):
        results = results_of(name)
        lines += verdict_rows(name, results) if results else [[name, "–", "not run", "–", "–", "–"]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mended_table() -> str:
    """Table of the earlier claims of the factorial study: the verdict then, and what has become of each."""
    results = results_of(OLD) or {"claims": []}
    lines = [["claim, earlier form", "verdict then", "now"], ["---"] * 3]
    for claim in results["claims"]:
        words = f"{claim['id']}. {claim['claim']}".replace("|", "/")
        lines.append([words, claim["verdict"], MENDED[str(claim["id"])]])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parts_table(name: str) -> str:
    """Table of all parts of the claims of a study, with the command and the size of the study."""
    results = results_of(name)
    if results is None:
        return "Not run here."
    lines = [["claim", "part", "value [95 %]", "predicted", "alone"], ["---"] * 5]
    for claim in results["claims"]:
        for k, part in enumerate(claim["parts"]):
            label = part["label"] + " (primary)" * (k == claim["primary"])
            value = number(part["effect"], part["unit"])
            lines.append([str(claim["id"]), label, value, part["prediction"], part["verdict"]])
    looks, cost = results["looks"], results["cost"]
    taken = ", ".join(map(str, looks["taken"]))
    facts = f"{results['settings']['seeds']} seeds, {results['settings']['images']} test images at most, {cost['runs']}"
    facts += (
        f" networks, {cost['seconds'] / 60:.0f} minutes of training and measuring on a busy machine. Looked at with"
    )
    facts += f" {taken} seeds, level {looks['level']:.4f} at this look ({looks['rule']}; declared at"
    facts += f" {', '.join(map(str, looks['declared']))} seeds)."
    settings, study = results["settings"], "invariance" if name == FACTORIAL else name
    size = "" if settings["size"] == "quick" else f" --size {settings['size']}"
    command = f"`python -m augkit.compare {study}{size} --seeds {settings['seeds']}`"
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n{command}: {facts} Numbers: `benchmarks/results/{name}.json`."


def beside_table(names: Iterable[str], data: str) -> str:
    """The parts of the claims of those of the studies that were also run on other data, beside those on digits."""
    lines = [["study", "part", "digits", data, f"claim on {data}"], ["---"] * 5]
    facts = []
    for name in names:
        digits, other = results_of(name), results_of(BESIDE[data] + name)
        if other is None:
            continue
        claims = digits["claims"] if digits else []  # photographs alone have real borders
        known = {(claim["id"], part["label"]): part for claim in claims for part in claim["parts"]}
        for claim in other["claims"]:
            for k, part in enumerate(claim["parts"]):
                primary = k == claim["primary"]
                same = [found for (_, label), found in known.items() if label == part["label"]]
                before = known.get((claim["id"], part["label"]), same[0] if len(same) == 1 else None)
                lines.append(
                    [
                        f"{name} {claim['id']}",
                        part["label"] + " (primary)" * primary,
                        number(before["effect"], before["unit"]) if before else "–",
                        number(part["effect"], part["unit"]),
                        claim["verdict"] if primary else "",
                    ]
                )
        settings, cost = other["settings"], other["cost"]
        command = re.split(" --(?:workers|output)", other["environment"]["command"])[0]
        facts.append(
            f"`{command}`: {settings['seeds']} seeds,"
            f" {settings['images']} test images at most, {cost['runs']} networks, {cost['seconds'] / 60:.0f} minutes of"
            f" training and measuring on a busy machine, level {other['looks']['level']:.4f}. Numbers:"
            f" `benchmarks/results/{BESIDE[data]}{name}.json`."
        )
    if not facts:
        return "Not run here."
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, *facts])


def line_table() -> str:
    """The lines through the arms of the factorial studies that are not exact, and how far from them the learned lie."""
    found = json.loads((RESULTS / f"{LINE}.json").read_text())["results"]
    lines = [["data", "images", "arms with and without shifts", "r", "slope [95 %]", "offset [95 %]", "p, within 0.1"]]
    lines.append(["---"] * len(lines[0]))
    for data in ("digits", "clothes"):
        for images, results in found[data].items():
            row = results["offsets"]["trained with shifts, without exact arms"]
            values = [number(row["slope"], "").strip(), number(row, "nats"), f"{row['p_within_margin']:.2f}"]
            lines.append([data, images, f"{row['arms']} and {row['against']}", f"{row['correlation']:.2f}", *values])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def forest(results: dict[str, Any]) -> Any:
    """Forest plot of the parts of a study, one panel per unit."""
    import matplotlib.pyplot as plt

    panels: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for claim in results["claims"]:
        for part in claim["parts"]:
            if part["effect"]["value"] is not None:
                panels.setdefault(part["unit"], []).append((f"{claim['id']}: {part['label']}", part))
    heights = [len(rows) + 1.2 for rows in panels.values()]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8.5, 0.3 * sum(heights) + 0.8),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for axis, (unit, rows) in zip(axes[:, 0], panels.items(), strict=True):
        for place, (_, part) in enumerate(rows):
            effect, color = part["effect"], COLORS.get(part["verdict"], "#7f8c8d")
            axis.plot([effect["low"], effect["high"]], [place, place], color=color, linewidth=2)
            axis.plot(effect["value"], place, "o", color=color, markersize=5)
        axis.axvline(0, color="#bbbbbb", linewidth=1, zorder=0)
        axis.set_yticks(range(len(rows)), [label for label, _ in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlabel(unit)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def family(arm: dict[str, Any]) -> str:
    """The family of an arm of study on-the-line."""
    if arm["architecture"] in ("polyphase", "aliasfree"):
        return "exact on the torus"
    return "without shifts" if arm["policy"] == "none" else "trained with shifts"


def line(results: dict[str, Any]) -> Any:
    """Shift information on atypical images against that on typical ones, one point per arm, both logarithmic."""
    import matplotlib.pyplot as plt

    shown = [name for name in results["arms"][0]["shift_information"] if name != "typical"]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.1 * len(shown), 3.7), layout="constrained", sharex=True)
    for axis, images in zip(axes, shown, strict=True):
        for label, color in FAMILIES.items():
            rows = [arm["shift_information"] for arm in results["arms"] if family(arm) == label]
            for row in rows:
                (x, y) = row["typical"], row[images]
                axis.plot([x["low"], x["high"]], [y["value"]] * 2, color=color, linewidth=1, alpha=0.5)
                axis.plot([x["value"]] * 2, [y["low"], y["high"]], color=color, linewidth=1, alpha=0.5)
            points = [(row["typical"]["value"], row[images]["value"]) for row in rows]
            axis.plot(*zip(*points, strict=True), "o", color=color, markersize=5, label=label)
        axis.set(xscale="log", yscale="log", xlabel="shift information, typical", title=images)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("shift information, atypical")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FAMILIES), frameon=False)
    return figure


def images_or_augmentation(results: dict[str, Any]) -> Any:
    """Shift information by number of training images: centered, placed once, moved anew."""
    import matplotlib.pyplot as plt

    arms = {arm["arm"]: arm for arm in results["arms"]}
    counts = {"0.35": 350, "1.2": 1167, "3.5": 3500}
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.6), layout="constrained")
    for kind, label, color in (
        ("c", "centered", "#7f8c8d"),
        ("j", "placed once", "#2471a3"),
        ("s", "moved anew", "#c0392b"),
    ):
        rows = [arms.get(f"black+{kind}{key}", arms["black+none"]) for key in counts]
        for axis, key in ((left, "shift_information"), (right, "accuracy")):
            values = [row[key]["typical"] if key == "shift_information" else row[key] for row in rows]
            spread = [[v["value"] - v["low"] for v in values], [v["high"] - v["value"] for v in values]]
            y = [v["value"] for v in values]
            axis.errorbar(list(counts.values()), y, spread, color=color, label=label, marker="o", capsize=3)
    left.set(xscale="log", yscale="log", ylabel="shift information", xlabel="training images")
    left.set_yticks([0.02, 0.03, 0.05, 0.1], ["0.02", "0.03", "0.05", "0.1"])
    right.set(xscale="log", ylabel="accuracy", xlabel="training images")
    for axis in (left, right):
        axis.set_xticks(list(counts.values()), [f"{count:,}" for count in counts.values()])
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    return figure


def pretrained() -> list[dict[str, Any]]:
    """Rows of the table of pretrained networks, as they are, in the order of their names."""
    rows = json.loads((RESULTS / "pretrained.json").read_text())["rows"]
    return sorted((row for row in rows if row["surgery"] is None), key=lambda row: str(row["name"]))


def one_pixel_table() -> str:
    """Table of the answers that change under one real pixel, and by image set up to 16 px, by depth within a family."""
    kinds = list(pretrained()[0]["atypical"])
    lines = [["network", "GMACs", "images", "1 px", *(f"{kind}, up to 16 px" for kind in kinds)]]
    lines.append(["---"] * len(lines[0]))
    for row in pretrained():
        changes = [row["one_pixel"], *(row["atypical"][kind]["top1_change"] for kind in kinds)]
        count = f"{row['settings']['images']}, {row['settings']['atypical_images']} of each kind"
        lines.append([row["name"], f"{row['gmacs']:.2f}", count, *(percent(change) for change in changes)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(change: dict[str, float]) -> str:
    """A share with its interval, in percent."""
    return f"{100 * change['value']:.1f} [{100 * change['low']:.1f}, {100 * change['high']:.1f}] %"


def one_pixel(rows: list[dict[str, Any]]) -> Any:
    """Share of changed answers of pretrained networks: under one pixel, and by image set under up to 16 px."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained", width_ratios=(1, 2))
    names = [str(row["name"]).replace("efficientnet_", "") for row in rows]
    colors = ["#2471a3", "#c0392b", "#1e8449", "#7f8c8d"]
    for place, row in enumerate(rows):
        _point(left, place, row["one_pixel"], colors[0])
    left.set(title="one pixel", ylabel="answers that change, %", xlabel="network")
    kinds = list(rows[0]["atypical"])
    for k, kind in enumerate(kinds):
        for place, row in enumerate(rows):
            _point(right, place + 0.12 * (k - 1.5), row["atypical"][kind]["top1_change"], colors[k], label=kind)
    right.set(title="up to 16 px", xlabel="network")
    found = dict(zip(*reversed(right.get_legend_handles_labels()), strict=True))
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=len(kinds), frameon=False)
    for axis in (left, right):
        axis.set_xticks(range(len(rows)), names)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _point(axis: Any, x: float, change: dict[str, float], color: str, label: str | None = None) -> None:
    axis.plot([x, x], [100 * change["low"], 100 * change["high"]], color=color, linewidth=2)
    axis.plot(x, 100 * change["value"], "o", color=color, markersize=5, label=label)


def draw_one_pixel() -> None:
    """The figure of pretrained networks."""
    rows = pretrained()
    settings = rows[0]["settings"]
    counts = f"{settings['images']} photographs, {settings['atypical_images']} of each kind on the right"
    _save("one-real-pixel", one_pixel(rows), f"One real pixel, by depth within a family ({counts}, 95 % intervals)")


def draw(name: str) -> None:
    """The figures of a study, where it was run: the parts of its claims, and what it has of its own."""
    results = results_of(name)
    if results is None:
        return
    seeds, images = results["settings"]["seeds"], results["settings"]["images"]
    for of, make in ((name, forest), *OWN.get(name, ())):
        _save(of, make(results), f"{STUDIES[name]} ({seeds} seeds, {images} images, 95 % intervals)")


def _save(name: str, figure: Any, title: str) -> None:
    import matplotlib.pyplot as plt

    figure.suptitle(title, fontsize=11)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    (DOCS / "figures" / f"decides-{name}.svg").write_text(without_addresses(text.getvalue()))
    figure.savefig(RESULTS / f"{name}.png", dpi=110)
    plt.close(figure)


OWN = {
    "on-the-line": (("the-line", line),),
    "data-as-source": (("images-or-augmentation", images_or_augmentation),),
}


def without_addresses(svg: str) -> str:
    """An SVG without document type, metadata and links to other namespaces, so that it names no other host."""
    svg = re.sub(r"<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "").replace("xlink:href", "href")


def fill(page: str) -> str:
    """The page with its tables between their marks."""
    tables = {
        "verdicts": verdict_table(),
        "mended": mended_table(),
        "pretrained": one_pixel_table(),
        "clothes": beside_table(STUDIES, "clothes"),
        "factorial on clothes": beside_table([FACTORIAL], "clothes"),
        "CIFAR-10": beside_table(STUDIES, "CIFAR-10"),
        "line": line_table(),
    }
    tables |= {name: parts_table(name) for name in (*STUDIES, FACTORIAL)}
    for name, table in tables.items():
        mark = re.escape(f"<!-- table: benchmarks/decides.py {name} -->")
        filled = f"<!-- table: benchmarks/decides.py {name} -->\n{table}\n<!-- end of the table -->"
        page = re.sub(rf"{mark}\n.*?<!-- end of the table -->", lambda _, text=filled: text, page, flags=re.DOTALL)
    return page


def main() -> None:
    """Write the figures and fill the page."""
    mpl.use("Agg")
    mpl.rcParams |= {"svg.hashsalt": "augkit", "svg.fonttype": "none"}
    for name in STUDIES:
        draw(name)
    draw_one_pixel()
    path = DOCS / "decides.md"
    path.write_text(fill(path.read_text()))


if __name__ == "__main__":
    main()
