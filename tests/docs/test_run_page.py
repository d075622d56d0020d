"""The runner of pages runs what a page shows, and sees where the output differs."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_page import Block, blocks_of, difference, figures_of, run

PAGE = """# A page

```python title="three.py"
print(1 + 2)
```

```bash
python three.py
```

```text
3
```

```python
x = 2
```

It prints, about:

<!-- within 10 % -->

```text
x is 2.05
```

![A figure.](a-figure.png)
"""


def block(printed: str, within: float | None = None) -> Block:
    return Block("python", "", None, printed, within, None)


def test_blocks_are_found_with_their_files_and_outputs() -> None:
    written, shell, code = blocks_of(PAGE)
    assert (written.file, written.printed) == ("three.py", None)
    assert (shell.language, shell.printed) == ("bash", "3\n")
    assert (code.printed, code.within) == ("x is 2.05\n", 0.1)
    assert figures_of(PAGE) == ["a-figure.png"]


def test_a_page_runs_in_order_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    code = "from pathlib import Path\nx = 1 + float(Path('three.py').read_text()[6])\nprint('x is', x)"
    page.write_text(PAGE.replace("x = 2", code))
    (written, _), (shell, three), (code, two) = run(page, tmp_path)
    assert [difference(b, p) for b, p in ((written, ""), (shell, three), (code, two))] == [None] * 3


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nfalse\n```\n")
    with pytest.raises(RuntimeError, match=r"page.md, block 1: exit code 1"):
        run(page, tmp_path)


@pytest.mark.parametrize(
    ("shown", "printed", "within"),
    [
        ("3 graphs", "3 graphs\n", None),
        ("off by 0.123", "off by 0.125", None),
        ("a  b", "a b", None),
        ("...\nlast", "first\nsecond\nlast", None),
        ("first\n...", "first\nsecond", None),
        ("91% [87%, 94%]", "85% [80%, 90%]", 0.1),
        ("-0.5 [-1.0, 0.2]", "-0.52 [-1.1, 0.2]", 0.2),
    ],
)
def test_outputs_that_agree(shown: str, printed: str, within: float | None) -> None:
    assert difference(block(shown, within), printed) is None


@pytest.mark.parametrize(
    ("shown", "printed", "within"),
    [
        ("3 graphs", "4 graphs", None),
        ("3 graphs", "3 breaks", None),
        ("off by 0.12", "off by 0.15", None),
        ("one", "one\ntwo", None),
        ("one\ntwo", "one", None),
        ("...\nlast", "last\nmore", None),
        ("91% [87%, 94%]", "61% [50%, 70%]", 0.1),
    ],
)
def test_outputs_that_differ(shown: str, printed: str, within: float | None) -> None:
    assert difference(block(shown, within), printed) is not None
