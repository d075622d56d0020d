"""Tables of the pages, made from `benchmarks/results` when the site is built, so that no page holds a copy.

A page asks for one by a link in a line of its own, which leads to the results where the page is read in the repository:
``[The table](../benchmarks/results/ruler.md "table")`` becomes the content of that file, and with the title
``"table: faults"`` what the function of this name in `TABLES` makes of it.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ASKED = re.compile(r'^\[.+\]\((?:\.\./)+benchmarks/results/([\w.-]+) "table(?:: ([\w-]+))?"\)$', flags=re.MULTILINE)
STUDIES = {"digits": "study-quick-10-seeds", "clothes": "study-standard", "photographs": "study-cifar10"}


def fill(markdown: str) -> str:
    """``markdown`` with the tables in the place of the links that ask for them."""
    return ASKED.sub(lambda found: asked(found[2] or found[1]), markdown)


def asked(name: str) -> str:
    """The table, or the Markdown file of results, of this name."""
    if name in TABLES:
        return TABLES[name]()
    path = RESULTS / name
    if path.suffix != ".md" or not path.is_file():
        raise ValueError(f"table: expected a Markdown file of {RESULTS} or one of {', '.join(TABLES)}, got '{name}'")
    # The page has a title of its own. The settings of a study are a thousand lines, which its JSON file has too.
    text = re.sub(r"\A# .*\n", "", path.read_text())
    return text.split("\n## Settings\n")[0].strip()


def numbers(name: str) -> dict[str, Any]:
    """The content of ``benchmarks/results/NAME.json``."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def interval(found: dict[str, float], scale: float = 1.0, digits: int = 2) -> str:
    """A number with its interval, as ``0.48 [0.41, 0.56]``."""
    value, low, high = (f"{scale * found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """A table in Markdown, with the columns of the numbers in ``right`` aligned to the right."""
    rule = ["--:" if k in right else "---" for k in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in (head, rule, *rows))


def speed() -> str:
    """Resampling against other libraries."""
    made = runpy.run_path(str(ROOT / "benchmarks" / "speed_table.py"))
    return str(made["table"](json.loads(made["source"]().read_text())))


def faults() -> str:
    """What befalls searches and studies over several processes."""
    rows = [
        (row["fault"], row["happened"], f"{row['completed']} of {row['asked']}", row["lost"], row["doubled"])
        for row in numbers("faults")["faults"]
    ]
    return table(("fault", "what happened", "trials or cells", "lost", "doubled"), rows, right=(2, 3, 4))


def verdicts() -> str:
    """The claims of the study on three data sets."""
    found = {data: {claim["id"]: claim for claim in numbers(name)["claims"]} for data, name in STUDIES.items()}
    rows = []
    for key, claim in found["digits"].items():
        cells = [f"**{by_id[key]['verdict']}**<br>{_effect(by_id[key]['effect'])}" for by_id in found.values()]
        rows.append((f"{key}. {claim['name']}", *cells, claim["unit"]))
    return table(("claim", *found, "unit of the effect"), rows)


def training() -> str:
    """The length of a training step with each library's augmentation."""
    libraries = ("augkit", "kornia", "torchvision")
    rows = []
    for case in numbers("training-cpu")["cases"]:
        ratios = (dict(zip(("value", "low", "high"), case["rows"][k]["ratio"], strict=True)) for k in libraries)
        rows.append((f"{case['network']}, {case['input']} px", case["n"], *map(interval, ratios)))
    head = ("network", "n", *(f"{name}, times as long as without" for name in libraries))
    return table(head, rows, right=(1, 2, 3, 4))


def even_draws() -> str:
    """Even draws less random draws."""
    titles = {
        "digits-8": "digits, 8 epochs",
        "digits-24": "digits, 24 epochs",
        "cifar10": "CIFAR-10, 1,000 images, 12 epochs",
    }
    cases = numbers("even-draws")["cases"]
    rows = [
        (
            title,
            cases[key]["n_seeds"],
            interval(cases[key]["even_less_random_accuracy"], 100, 1),
            interval(cases[key]["variability_removed_by_even_draws"], 100, 1),
        )
        for key, title in titles.items()
    ]
    head = ("training", "seeds", "test accuracy, points", "variability that even draws removed, %")
    return table(head, rows, right=(1, 2, 3))


def harmonic() -> str:
    """Accuracy on digits upright and turned by any angle."""
    found = numbers("harmonic")["digits"]
    rows = [
        (row["network"], f"{row['parameters']:,}", interval(row["upright"], 100, 1), interval(row["rotated"], 100, 1))
        for row in found["table"]
    ]
    return table(("network", "parameters", "upright, %", "turned by any angle, %"), rows, right=(1, 2, 3))


def search_cost() -> str:
    """The time of a search beside training, and what a second worker brings."""
    found = numbers("tune-cpu")
    over, aims = found["overhead"], found["aims"]
    beside = f"{100 * over['value']:.1f} % ({1000 * over['per_trial']:.0f} ms a trial)"
    rows = [("time beside training and measuring", beside, f"{100 * aims['overhead']:.0f} %")]
    for key, most in (("workers", 4), ("longer", 8)):
        missed = "" if found[key]["value"] >= aims[key] else " (missed)"
        what = f"{found[key]['trials']} trials of up to {most} epochs by two workers, times as fast as by one"
        rows.append((f"{what}, each of one thread", interval(found[key]), f"{aims[key]}{missed}"))
    return table(("", "measured", "aim"), rows, right=(1, 2))


def search_open() -> str:
    """What it costs and brings to train several trials of one search at once, in the replay."""
    found = numbers("tune-open")
    names = {
        "team": f"two processes of one worker, {found['open']} open trials",
        "workers": "two workers; the second waits for the control's lowest rung",
        "workers, waiting": "two workers; the second waits for the whole control",
    }
    rows = [
        (words, *(interval(found["ways"][name][key]) for key in ("speed", "volume", "epochs")))
        for name, words in names.items()
    ]
    return table(("", "times as fast as one", "verified volume, one = 1", "epochs, one = 1"), rows, right=(1, 2, 3))


def _effect(effect: dict[str, float]) -> str:
    text = f"{effect['value']:.3g}<br>[{effect['low']:.3g},\u00a0{effect['high']:.3g}]"
    return re.sub("(?<!e)-", "\u2212", text)  # a line may end after a hyphen


TABLES: dict[str, Callable[[], str]] = {
    made.__name__.replace("_", "-"): made
    for made in (speed, faults, verdicts, training, even_draws, harmonic, search_cost, search_open)
}
