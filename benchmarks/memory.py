"""The peak of this process's resident memory, on Linux; as a command, what `augkit.Augment` takes beyond its output.

Not ``getrusage``: its maximum is inherited from the process that forked, so a small child of a large parent reports the
parent.

    python benchmarks/memory.py        # one line of JSON, from a process that did nothing else

Each call's growth of the peak less the bytes of its output, as a share of them. The output is kept, so none takes the
place of the last. A share may be negative, where an output begins in pages that were resident before. The ``control``
makes one copy of its output more, and must come out near 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")
CALLS, BATCH = 9, (32, 3, 224, 224)


def restart_peak() -> float:
    """Forget the peak so far; MiB resident now."""
    (PROCESS / "clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """MiB resident at most since `restart_peak`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def beyond_output() -> dict[str, Any]:
    """What the command prints, from a process of its own."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    out: dict[str, Any] = json.loads(done.stdout)
    return out


def shares(run: Callable[[], Any]) -> dict[str, Any]:
    """The growth of the peak beyond the output of ``run``, over calls, as shares of it."""
    kept, out = [run()], []  # the first call compiles, or loads what was compiled
    for _ in range(CALLS):
        before = restart_peak()
        kept.append(run())
        out.append((peak() - before) * 2**20 / kept[-1].nbytes - 1)
    out.sort()
    values = {"median": out[CALLS // 2], "least": out[0], "most": out[-1]}
    return {name: round(value, 5) for name, value in values.items()} | {"n": CALLS}


def main() -> None:
    import torch
    from peers import Case, augment_of

    torch.set_num_threads(1)
    case = Case("pipeline", torch.rand(BATCH))
    augment = augment_of(case)
    runs = {"augkit": lambda: augment(case.images), "control": lambda: augment(case.images).clone()}
    print(json.dumps({name: shares(run) for name, run in runs.items()}))


if __name__ == "__main__":
    main()
