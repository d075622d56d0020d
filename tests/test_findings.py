"""What pages say in words stands in the result files; their tables are made from these when the site is built."""

from __future__ import annotations

from statistics import median

import pytest
import yaml
from result_files import RESULTS, ROOT, interval, results, words


def page(name: str) -> str:
    return words(f"docs/{name}")


def test_the_first_page_tells_the_run_of_the_picture() -> None:
    found, text = results("tune-mnist5k"), page("index.md")
    number = next(r["learned_invariance"] for r in found["table"] if (r["images"], r["arm"]) == ("typical", "best"))
    assert interval(number, 100, 0, " %") in text
    for images, carried in found["carry_over"].items():
        assert interval(carried["slope"]) in text, images
    seconds = [run["cost"]["seconds"] for run in results("tune-times")["runs"]]
    assert f"takes {median(seconds):.0f} s on 2 CPU cores (the median of three runs)" in text
    assert len(seconds) == 3
    assert found["environment"]["versions"]["torch"]
    assert found["settings"]["seeds"] == 3


@pytest.mark.parametrize("name", ["guide/augment.md", "findings/resampling.md"])
def test_what_one_resampling_keeps(name: str) -> None:
    kept = results("one-resampling")["kept_from_0.25_to_0.45"]
    three, bilinear, lanczos3 = (
        f"{100 * kept[key]:.0f} %"
        for key in ("torchvision, three resamplings", "augkit bilinear, one", "augkit lanczos3, one")
    )
    text = page(name)
    assert f"keep {three}, the same geometry in one resampling {bilinear} with the same bilinear kernel" in text
    assert f"and {lanczos3} with `lanczos3`" in text


def test_what_is_said_of_speed_beside_the_table() -> None:
    found, text = results("augment-cpu-quiet"), page("findings/speed.md")
    best = {(aim["task"], aim["size"], aim["against"]): aim["best_ratio"] for aim in found["aims"]}
    aims = {aim["against"]: aim["aim"] for aim in found["aims"]}
    assert f"copy of the batch is {1 / best['pipeline', 224, 'copy']:.1f} times as fast as augkit at 224 px" in text
    assert f"at most {1 / aims['copy']:.1f})" in text
    memory = "memory beyond the output, as a share of it"
    assert f"Memory beyond the output: {100 * best['pipeline', 224, memory]:.2f} %" in text
    assert f"at most {100 * aims[memory]:.0f} %" in text
    slow = "augkit without numba and triton"
    plain = [cell["results"][slow]["best_ratio"] for cell in found["cells"] if slow in cell["results"]]
    floats = (cell for cell in found["cells"] if cell["dtype"] == "float32")
    cells = {(cell["task"], cell["batch"][-1]): cell["results"] for cell in floats}
    assert f"Without numba augkit takes {min(plain):.1f} to {max(plain):.1f} times as long" in text
    small, large = cells["pipeline", 32], cells["pipeline", 224]
    assert small["kornia"]["best_ms"] / small["kornia compiled"]["best_ms"] == pytest.approx(1.3, abs=0.05)
    assert f"({small['kornia compiled']['best_ratio']:.0f} times as long as augkit)" in text
    assert large["kornia compiled"]["best_ms"] > large["kornia"]["best_ms"]
    assert f"kornia takes {large['kornia']['wall']['best_ratio']:.0f} times as long as augkit at 224 px" in text
    peers = [value for (task, _, peer), value in best.items() if task == "pipeline" and peer != "copy" and value > 1]
    assert f"{min(peers):.0f} to {max(peers):.0f} times as fast as other libraries" in page("findings/index.md")
    assert sum(not aim["met"] for aim in results("augment-cpu-busy")["aims"] if aim["size"] == 32) == 3


def test_what_two_processes_end_with() -> None:
    found = results("processes-cpu")
    text = f"{interval(found['difference'], 100)} of validation accuracy over {found['n_seeds']} seeds"
    assert text.replace(" [", " points [", 1) in page("guide/train.md")
    assert f"spread by {100 * found['noise']:.2f}" in page("guide/train.md")


def test_the_recipe_that_is_shown_is_the_shipped_one() -> None:
    shown = (ROOT / "docs" / "guide" / "train.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "recipes" / "mnist5k.yaml").read_text())
    listed = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert all(f"`{name}`" in page("guide/train.md") for name in listed)


def test_how_a_network_games_the_measure() -> None:
    found, text = results("ruler"), page("concepts/gaming.md")
    rows = {row["change"]: row["by"] for row in found["rows"]}
    assert f"with {found['n_seeds']} seeds and {found['n_images']:,} test images" in text
    assert f"says that {100 * rows['the same network, logits divided by 8']['js']['value']:.0f} % of" in text
    smoothed = [100 * rows[f"label smoothing {s}"]["js"]["value"] for s in (0.2, 0.4, 0.6)]
    assert f"the divergence says {smoothed[0]:.0f} to {smoothed[-1]:.0f} % more invariant" in text
    assert all(rows[f"label smoothing {s}"]["shift_information"]["high"] < 0 for s in (0.2, 0.4, 0.6))
    for change in ("weight decay 0.02", "shifts of 3 px"):
        assert all(number["low"] > 0 for number in rows[change].values())


def test_what_a_search_brings() -> None:
    found, text = results("tune-replay"), page("findings/search.md")
    for ground in found["grounds"].values():
        assert f"{ground['configurations']} configurations" in text
    assert f"{found['seeds']} seeds" in text
    halving = [ground["strategies"]["halving"]["ratio"]["value"] for ground in found["grounds"].values()]
    assert all(0.25 < ratio < 0.4 for ratio in halving)  # "about a third", findings/index.md
    short, longer = (interval(results("tune-cpu")[part]) for part in ("workers", "longer"))
    assert f"They are {short} times as fast as one with trials of up to 4 epochs" in page("findings/negative.md")
    assert f"and {longer} times with trials of up to 8, not 1.7 times" in page("findings/negative.md")


def test_what_surgery_and_blur_pooling_bring() -> None:
    rows, flicker = results("surgery")["rows"], results("flicker")["summary"]["detector"]["shifts"]["1"]["flicker"]
    exact = sum("**" in line for line in (RESULTS / "surgery.md").read_text().splitlines() if line.startswith("| "))
    assert f"Of {len(rows)} networks of torchvision and timm {exact} become exact" in page("findings/architectures.md")
    assert f"{exact} of {len(rows)} networks" in page("findings/index.md")
    for name, said in (("maxpool", "loses or gains {} of its boxes"), ("blurpool", "with blur pooling {}")):
        assert said.format(interval(flicker[name], 100, 1, " %")) in page("findings/architectures.md")
    assert flicker["blurpool"]["value"] / flicker["maxpool"]["value"] == pytest.approx(1 / 3, abs=0.05)


def test_what_is_said_of_studies() -> None:
    text = page("findings/claims.md")
    found = {name: results(f"study-{name}") for name in ("quick", "quick-10-seeds", "standard", "cifar10")}
    cost = found["quick"]["cost"]
    assert (found["quick"]["settings"]["seeds"], cost["runs"], cost["loaded"]) == (5, 140, 0)
    assert f"140 runs of 5 seeds on digits and takes {cost['wall_seconds'] / 60:.0f} minutes on 2 cores" in text
    assert f"{found['standard']['cost']['seconds'] / 3600:.1f} h of work for one core" in text
    for name in ("quick-10-seeds", "standard"):
        parts = {claim["id"]: claim["parts"] for claim in found[name]["claims"]}
        for claim, k, scale, digits in ((7, 0, 1, 2), (7, 1, 1, 2), (7, 2, 1, 2), (7, 4, 1, 2), (10, 0, 100, 0),
                                        (10, 1, 100, 1), (14, 1, 1, 3)):  # fmt: skip
            unit = " points" if scale == 100 else ""
            assert interval(parts[claim][k]["effect"], scale, digits, unit) in text, (name, claim, k)
    cifar10 = found["cifar10"]
    assert f"again on 10,000 of CIFAR-10, {cifar10['cost']['seconds'] / 3600:.1f} h" in text
    parts = {claim["id"]: claim["parts"] for claim in cifar10["claims"]}
    for claim, k, digits in ((7, 0, 2), (7, 1, 2), (7, 2, 2), (5, 2, 3), (5, 3, 3), (14, 1, 2)):
        assert interval(parts[claim][k]["effect"], digits=digits) in text, (claim, k)
    assert f"changes {100 * parts[14][0]['effect']['value']:.0f} % of its answers" in text
    plain = next(arm["accuracy"]["value"] for arm in cifar10["arms"] if arm["arm"] == "maxpool+none")
    for name in ("findings/claims.md", "findings/index.md"):
        assert f"reach an accuracy of {100 * plain:.0f} % only" in page(name)
    point = next(point for point in found["standard"]["plane"] if point["arm"] == "aliasfree+none")
    assert all(interval(point[axis], 100, 1, " %") in text for axis in "xy")
    accuracy = {arm["arm"]: f"{100 * arm['accuracy']['value']:.0f} %" for arm in found["standard"]["arms"]}
    assert f"an accuracy of {accuracy['aliasfree+none']} against {accuracy['maxpool+none']}" in text
    assert f"({accuracy['maxpool+rotate']} against {accuracy['maxpool+none']} without augmentation)" in text
    digits, clothes, photographs = (
        f"{100 * claim['effect']['value']:.0f} %"
        for study in (results("factorial"), results("clothes-factorial"), found["cifar10"])
        for claim in study["claims"]
        if claim["id"] == 6
    )
    earlier = f"(by Jensen-Shannon divergence {photographs} on small photographs)"
    assert f"shifts removed {digits} of the variability on digits and {clothes} on clothes {earlier}" in page(
        "findings/index.md"
    )
    blur = next(claim["parts"][2] for claim in found["quick-10-seeds"]["claims"] if claim["id"] == 13)
    assert f"({interval(blur['effect'])} for bilinear, on digits)" in text
    rotated = next(claim["parts"][2] for claim in found["standard"]["claims"] if claim["id"] == 12)
    assert f"({interval(rotated['effect'])} in the log" in text
