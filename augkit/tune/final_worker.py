"""``python -m augkit.tune.final_worker``: a process that trains and measures final networks, see `final_jobs`.

It reads pickled jobs from standard input and writes pickled reports to standard output, both of the process that
started it, and ends when its input does.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any

import torch

from augkit.core.allocator import keep_freed_memory
from augkit.train.build import load_recipe_data
from augkit.tune.final_jobs import FinalData, perform


def main() -> None:
    """Do jobs until the input ends."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(messages,), daemon=True).start()
    recipe, device, threads = messages.get()
    torch.set_num_threads(threads)
    data = FinalData(load_recipe_data(recipe))
    while True:
        job = messages.get()
        try:
            reports = perform(job, data, torch.device(device))
        except Exception:  # the process that asked does the job itself, and sees the error
            reports = None
        pickle.dump(reports, answers)
        answers.flush()


def _read(messages: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            messages.put(pickle.load(sys.stdin.buffer))
    except (EOFError, OSError, pickle.UnpicklingError):
        os.kill(os.getpid(), signal.SIGKILL)  # also in the middle of a job, whose result nobody waits for


if __name__ == "__main__":
    main()
