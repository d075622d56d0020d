"""The allocator: commands keep freed memory, importing does not, and numbers stay the same. Each child is a process."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import augkit
from augkit.console import command
from augkit.core import allocator
from augkit.core.allocator import GLIBC_VARIABLES, VARIABLE, keep_freed_memory
from augkit.core.errors import InputError

glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="malloc of glibc is on Linux alone")
# Ten blocks of 40 MiB, above glibc's largest threshold for mapped blocks, 32 MiB.
PROBE = """
import json, resource, sys
def faults():
    bytearray(40 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bytearray(40 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
ONCE = "from augkit.core.allocator import keep_freed_memory\nprint(json.dumps([keep_freed_memory(), faults()]))"
MANY = 10 * (40 << 20) // os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0  # every page of every block
OURS = (VARIABLE, "GLIBC_TUNABLES", "LD_PRELOAD", *GLIBC_VARIABLES)


def child(code: str, **variables: str) -> list:
    clean = {name: value for name, value in os.environ.items() if name not in OURS}
    command = [sys.executable, "-c", PROBE + code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | variables)
    return json.loads(done.stdout)


@glibc
def test_freed_blocks_are_kept_and_not_faulted_in_again() -> None:
    was_set, found = child(ONCE)
    assert was_set
    assert found < MANY / 20


@glibc
@pytest.mark.parametrize(
    "variables",
    [{VARIABLE: "system"}, {"MALLOC_TRIM_THRESHOLD_": "100000"}, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=3"}],
    ids=lambda given: next(iter(given)),
)
def test_variables_leave_malloc_as_it_is(variables: dict[str, str]) -> None:
    was_set, found = child(ONCE, **variables)
    assert not was_set
    assert found > MANY / 2


@glibc
def test_another_malloc_that_is_preloaded_is_left_alone(tmp_path: Path) -> None:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "own.c", tmp_path / "own.so"
    source.write_text(
        "void *__libc_malloc(unsigned long);\nvoid *malloc(unsigned long n) { return __libc_malloc(n); }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    assert child(ONCE, LD_PRELOAD=str(library))[0] is False


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str | None) -> SimpleNamespace:
        if name is not None:
            raise OSError(f"{name}: no such file")
        return SimpleNamespace(malloc=None)

    monkeypatch.setattr(allocator.ctypes, "CDLL", missing)
    assert keep_freed_memory() is False


def test_an_unknown_choice_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "jemaloc")
    with pytest.raises(InputError, match="AUGKIT_ALLOCATOR: expected keep or system, got 'jemaloc'"):
        keep_freed_memory()


def test_every_program_of_augkit_keeps_freed_memory() -> None:
    """By `augkit.core.cli.run`, which calls it first, or by itself; workers are such programs."""
    programs = [
        text for path in Path(augkit.__file__).parent.rglob("*.py") if "\nif __name__ ==" in (text := path.read_text())
    ]
    programs.remove((Path(augkit.__file__).parent / "__main__.py").read_text())  # the console script
    assert "    return run(dispatch, arguments)" in inspect.getsource(command.main)
    assert len(programs) > 6
    for text in programs:
        assert "sys.exit(run(main))" in text or "    keep_freed_memory()\n" in text, text[:80]


@glibc
@pytest.mark.integration
def test_commands_set_it_imports_do_not_and_numbers_stay() -> None:
    code = """
import augkit, torch
from augkit.core.cli import run
torch.manual_seed(0)
net, images = torch.nn.Conv2d(3, 8, 3), torch.rand(4, 3, 64, 64)
def look(arguments):
    seen.extend([faults(), net(images).double().sum().item()])
seen = []
look([])
run(look, [])
print(json.dumps(seen))
"""
    imported, before, commanded, after = child(code)
    assert imported > MANY / 2
    assert commanded < MANY / 20
    assert before == after
    _, _, switched_off, same = child(code, **{VARIABLE: "system"})
    assert switched_off > MANY / 2
    assert same == before


@glibc
@pytest.mark.integration
def test_memory_stays_bounded_over_a_long_stream() -> None:
    """Batches of varying sizes: the holes that one leaves are filled by the next. No convolutions, whose compiled forms
    oneDNN keeps for every new size, under any allocator."""
    code = """
import random, torch
from augkit.core.allocator import keep_freed_memory
assert keep_freed_memory()
torch.set_num_threads(1)
random.seed(0)
def resident():
    return int(open("/proc/self/statm").read().split()[1])
seen, start = [], resident()
with torch.inference_mode():
    for k in range(200):
        count, height = (16, 96) if k == 0 else (random.randint(1, 16), random.randint(48, 96))
        images = torch.full((count, 3, height, 32), 0.5)
        maps = [torch.nn.functional.avg_pool2d(images.repeat(1, n, 1, 1), 2) for n in (8, 4, 2, 1)]
        torch.cat(maps, 1).relu().mean((2, 3))
        seen.append(resident() - start)
print(json.dumps([max(seen[:20]), max(seen)]))
"""
    early, most = child(code)
    assert most < 1.5 * early, (early, most)
