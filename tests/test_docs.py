"""The documentation is true: its links lead somewhere, the names that it mentions exist, its examples run."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from page_commands import blocks, commands, run_small
from test_package import ROWS

import augkit
from augkit.augment.ops import MODULES as OPS
from augkit.console.verbs import VERBS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md"])
REFERENCE = sorted(DOCS.glob("reference/*.md"))
RUN_PAGES = """
import json, sys, traceback
found = {}
for page, code in json.load(sys.stdin).items():
    found[page] = ""
    try:
        exec(compile(code, page, "exec"), {"__name__": "__main__"})
    except Exception:
        found[page] = traceback.format_exc()
print(json.dumps(found))
"""
PACKAGES = sorted(path.parent.name for path in (ROOT / "augkit").glob("*/__init__.py"))
TOP_FOLDERS = ("augkit", "tests", "docs", "recipes", "benchmarks", ".ci")
TO_BE_WRITTEN = re.compile(r"NAME|your|random_stretch|test_npz")  # files that a page tells the reader to write


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


# Code of a block that says `python` runs; `py` is for what needs a library that a test need not have.
# Pages of howto/ and tutorials/ have tests of their own, in tests/docs.
ALONE = [page for page in PAGES if page.parent.name not in ("howto", "tutorials")]
EXAMPLES = [page for page in ALONE if blocks(page.read_text(), "python")]


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module of augkit, or something that one of its modules holds."""
    parts = dotted.split(".")
    found: Any = importlib.import_module(parts[0])
    for k, part in enumerate(parts[1:], start=2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:k]))
            except ModuleNotFoundError:
                # A field of a schema has no attribute of its own on the class.
                fields = {**getattr(found, "model_fields", {}), **getattr(found, "__annotations__", {})}
                return k == len(parts) and part in fields
    return True


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if (page.parent == DOCS / "howto" or page == DOCS / "decides.md") and target.startswith("https://"):
            continue  # the source of a question, or of what others found
        assert not target.startswith(("http:", "https:", "/")), target
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_files_named_in_backticks_exist(page: Path) -> None:
    for span in code_spans(page):
        is_path = re.fullmatch(r"\.?[\w./-]+", span) and span.startswith(tuple(f"{top}/" for top in TOP_FOLDERS))
        if is_path and not TO_BE_WRITTEN.search(span):
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_names_of_augkit_in_backticks_can_be_imported(page: Path) -> None:
    for span in code_spans(page):
        dotted = re.fullmatch(r"(?:python -m )?(augkit(?:\.\w+)*)(?:\(.*\))?", span)
        if dotted is not None:
            assert resolves(dotted.group(1)), span


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_tests_named_in_backticks_exist(page: Path) -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for span in code_spans(page):
        if re.fullmatch(r"test_\w+", span):
            assert f"def {span}(" in sources, span


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_parse_and_name_commands_of_augkit(page: Path) -> None:
    # With the language of every block, as a closing fence would else count as an opening one.
    every = re.findall(r"```(\w*)[^\n]*\n(.*?)```", page.read_text().replace("\\\n", ""), flags=re.DOTALL)
    fenced = [line for language, block in every if language in ("", "bash") for line in block.splitlines()]
    for line in [*fenced, *(span for span in code_spans(page) if span.startswith(("python ", "torchrun ", "srun ")))]:
        for words in (shlex.split(part) for part in line.split("&&")):
            if words[:2] == ["python", "-m"] and words[2].startswith("augkit"):
                assert importlib.util.find_spec(words[2]) is not None, line


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_of_the_console_script_parse(page: Path) -> None:
    for line in (line for block in blocks(page.read_text().replace("\\\n", ""), "bash") for line in block.splitlines()):
        words = shlex.split(line.partition(">")[0], comments=True)
        if words[:1] == ["augkit"]:
            VERBS[words[1]].parser().parse_intermixed_args(words[2:])  # raises InputError


@pytest.fixture(scope="module")
def tracebacks_of_examples() -> dict[str, str]:
    """By page, what its examples raise; empty where they run."""
    # In another process: they register rows that other tests must not see. In one, as each would import all of augkit.
    pages = {page_id(page): "\n".join(blocks(page.read_text(), "python")) for page in EXAMPLES}
    command = [sys.executable, "-c", RUN_PAGES]
    done = subprocess.run(command, input=json.dumps(pages), text=True, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.integration
@pytest.mark.parametrize("page", EXAMPLES, ids=page_id)
def test_examples_run(page: Path, tracebacks_of_examples: dict[str, str]) -> None:
    assert tracebacks_of_examples[page_id(page)] == ""


@pytest.mark.integration
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page.read_text()) and page in ALONE], ids=page_id)
def test_commands_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands(page.read_text()):
        assert run_small(line) == 0, f"{line}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("package", ["augkit", *PACKAGES])
def test_the_reference_lists_the_public_names_of_a_package(package: str) -> None:
    loaded = augkit if package == "augkit" else importlib.import_module(f"augkit.{package}")
    lazy = [name for name in dir(loaded) if not name.startswith("_")] if hasattr(loaded, "__getattr__") else []
    public = set(getattr(loaded, "__all__", lazy)) - {"__version__"}
    public -= set(OPS)  # which the page of augkit.augment finds by their files
    text = (DOCS / "reference" / f"{package}.md").read_text()
    assert public == set(re.findall(r"^        - (\w+)$", text, flags=re.MULTILINE))


@pytest.mark.parametrize("page", REFERENCE, ids=page_id)
def test_the_reference_names_modules_that_exist(page: Path) -> None:
    for dotted in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE):
        importlib.import_module(dotted)


def test_every_package_has_a_reference_page() -> None:
    assert {page.stem for page in REFERENCE} == {"index", "augkit", *PACKAGES}


def test_the_figure_of_packages_has_the_rows_of_the_test() -> None:
    words = re.findall(r'font-weight="bold"[^>]*>([^<]+)<', (DOCS / "figures" / "packages.svg").read_text())
    rows: list[set[str]] = []
    for word in words:
        if word.isdigit():
            rows.append(set())
        else:
            rows[-1].add(word)
    assert rows == [set(names) for names in reversed(ROWS)]


def test_every_page_is_in_the_navigation() -> None:
    def listed(tree: Any) -> list[str]:
        if isinstance(tree, str):
            return [tree]
        return [name for part in (tree.values() if isinstance(tree, dict) else tree) for name in listed(part)]

    tree = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(listed(tree["nav"])) == [str(page.relative_to(DOCS)) for page in PAGES if DOCS in page.parents]


def test_the_glossary_has_each_word_once() -> None:
    words = re.findall(r"^\| ([^|]+) \| [^-|]", (DOCS / "glossary.md").read_text(), flags=re.MULTILINE)
    words = [word for word in words if word != "word"]
    assert len(words) > 100
    assert len(words) == len(set(words))


def test_pages_and_figures_load_nothing_from_elsewhere() -> None:
    for path in [*DOCS.rglob("*.svg"), *DOCS.rglob("*.css"), ROOT / "mkdocs.yml"]:
        text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://", text), path
