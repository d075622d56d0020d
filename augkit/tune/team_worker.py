"""``python -m augkit.tune.team_worker``: a process that trains and measures networks of a search, see `team`.

It reads pickled jobs from standard input and writes pickled results to standard output, both connected to its parent,
and ends when its input does.
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
from augkit.tune.team import TeamData


def main() -> None:
    """Do jobs until the input ends."""
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not mix with the results
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(messages,), daemon=True).start()
    recipe, device, threads = messages.get()
    torch.set_num_threads(threads)
    data = TeamData(load_recipe_data(recipe))
    while True:
        job = messages.get()
        try:
            result = job.perform(data, torch.device(device))
        except Exception:  # the process that asked does the job itself, and sees the error
            result = None
        pickle.dump(result, answers)
        answers.flush()


def _read(messages: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            messages.put(pickle.load(sys.stdin.buffer))
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(1)  # also in the middle of a job, whose result nobody waits for


if __name__ == "__main__":
    main()
