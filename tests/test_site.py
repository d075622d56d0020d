"""The site: its tables are those of the results, its gallery shows every op, it works from the disk in a browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from result_files import RESULTS, ROOT, results

from augkit.augment.ops import op_specs

DOCS = ROOT / "docs"
THEME = DOCS / "theme"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ELSEWHERE = re.compile(r'<[^>]* src="https?://|<link[^>]* href="https?://')
SHOWN_OTHERWISE = {"pretrained.md", "study-quick.md"}  # in docs/pretrained.md itself; ten seeds are shown, not five


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(THEME))
    try:
        return __import__(name)
    finally:
        sys.path.pop(0)


def asked() -> set[str]:
    """The tables that pages ask for."""
    found = module("result_tables").ASKED.findall("\n".join(page.read_text() for page in DOCS.rglob("*.md")))
    return {table or file for file, table in found}


@pytest.mark.parametrize("name", sorted(asked()))
def test_what_a_page_asks_for_is_a_table(name: str) -> None:
    made = module("result_tables").asked(name)
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert not made.startswith("# ")  # the page has a title
    assert "\n## Settings\n" not in made


def test_every_table_of_results_is_asked_for() -> None:
    tables = {path.name for path in RESULTS.glob("*.md")} - SHOWN_OTHERWISE
    assert asked() == tables | set(module("result_tables").TABLES)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table: expected .* got 'missing.md'"):
        module("result_tables").fill('[The table](../benchmarks/results/missing.md "table")')


def test_a_link_to_a_table_leads_to_results() -> None:
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r'\]\((\S+) "table', page.read_text()):
            assert (page.parent / target).is_file(), f"{page}: {target}"


def test_every_page_opens_with_a_sentence() -> None:
    for page in DOCS.rglob("*.md"):
        source = ROOT / "CONTRIBUTING.md" if page.name == "contributing.md" else page
        assert page.parent.name == "reference" or module("openings").opening(source.read_text()), page


def test_verdicts_and_faults_are_those_of_the_results() -> None:
    made = module("result_tables").asked("verdicts").splitlines()[2:]
    for place, name in enumerate(("study-quick-10-seeds", "study-standard", "study-cifar10"), start=2):
        for claim, row in zip(results(name)["claims"], made, strict=True):
            cells = row.split("|")
            value = re.sub("^-", "−", f"{claim['effect']['value']:.3g}")
            assert cells[1].strip() == f"{claim['id']}. {claim['name']}"
            assert cells[place].strip().startswith(f"**{claim['verdict']}**<br>{value}<br>[")
    faults = results("faults")["faults"]
    assert all(fault["lost"] == fault["doubled"] == 0 for fault in faults)
    assert len(module("result_tables").asked("faults").splitlines()) == len(faults) + 2


@pytest.mark.integration
def test_the_gallery_shows_every_op_at_every_strength() -> None:
    gallery = module("gallery_pages")
    page, pictures = gallery.fill(gallery.OPS_HERE), gallery.pictures()
    assert re.findall(r"^## .*\(`(\w+)`\)$", page, flags=re.MULTILINE) == list(op_specs())
    assert {f"gallery/{name}" for name in re.findall(r'src="([^"]+)"', page)} | {gallery.KERNELS} == set(pictures)
    assert max(map(len, pictures.values())) < 400_000
    for row in gallery.rows():
        assert row.tiles[0, 0].equal(row.tiles[1, 0])  # strength 0
        assert not row.tiles[0, 0].equal(row.tiles[0, -1]) or not row.tiles[1, 0].equal(row.tiles[1, -1])
        strip = Image.open(io.BytesIO(pictures[f"gallery/{row.name}-1.webp"]))
        assert strip.width == len(gallery.STRENGTHS) * (row.tiles.shape[-1] + gallery.GAP) - gallery.GAP


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "AUGKIT_SITE" in os.environ:  # one that was built before
        return Path(os.environ["AUGKIT_SITE"]).resolve()
    pytest.importorskip("material", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.integration
def test_the_site_needs_nothing_from_elsewhere_and_tells_models_what_it_holds(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 50
    for page in pages:
        assert not ELSEWHERE.search(page.read_text()), page
        assert not re.search(r'title="table|<!-- (gallery|file):', page.read_text()), page
    targets = re.findall(r"^- \[.+?\]\((\S+?)\)", (site / "llms.txt").read_text(), flags=re.MULTILINE)
    assert len(targets) == len(list(DOCS.rglob("*.md")))
    assert all((site / target).is_file() for target in targets)


def dumped(address: str, folder: Path) -> str:
    """The page at ``address`` as it is after half a minute of its own time; fails where the console tells something."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=30000"]
    command += ["--window-size=1800,900", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_search_works_from_the_disk(site: Path, tmp_path: Path) -> None:
    page = dumped(f"{(site / 'index.html').as_uri()}?q=kernel", tmp_path)
    found = page.partition('class="md-search-result__list"')[2]
    assert "and which padding?" in found.partition("</ol>")[0]


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_pages_on_the_disk_fit_a_phone(site: Path, tmp_path: Path) -> None:
    # A headless window is at least 500 px wide, so pages are framed.
    shown = ("index.html", "gallery/ops.html", "findings/claims.html", "reference/adapters.html")
    frames = "".join(f'<iframe src="{(site / name).as_uri()}" width="400" height="800"></iframe>' for name in shown)
    script = """
    onload = () => {
      const pages = [...document.querySelectorAll("iframe")].map((frame) => frame.contentDocument.documentElement);
      document.querySelector("pre").textContent = JSON.stringify(pages.map((page) => page.scrollWidth));
    };
    """
    (tmp_path / "outer.html").write_text(f"{frames}<pre></pre><script>{script}</script>")
    widths = re.search(r"<pre>(.+?)</pre>", dumped((tmp_path / "outer.html").as_uri(), tmp_path))
    assert widths
    assert len(found := json.loads(widths[1])) == len(shown)
    assert max(found) <= 400
