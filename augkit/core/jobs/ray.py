"""Workers as tasks of a Ray cluster."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

from augkit.core.errors import InputError

LAST = 30.0  # seconds that a task of Ray may take to end


def on_ray(
    commands: Sequence[Sequence[str]],
    gpus_per_worker: float,
    cpus_per_worker: float,
    look: Callable[[], None] = lambda: None,
    done: Callable[[], bool] = lambda: False,
) -> list[int]:
    """Run commands as tasks of a Ray cluster, that of ``RAY_ADDRESS`` or a local one; their exit codes.

    ``look`` is called about once a second meanwhile. Tasks that have not ended `LAST` seconds after all is ``done``,
    as one whose process was stopped, are cancelled, and have no exit code.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--launcher ray: expected Ray to be installed; pip install 'augkit[ray]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False)

    @ray.remote(num_gpus=gpus_per_worker, num_cpus=cpus_per_worker, max_retries=0)
    def work(command: Sequence[str]) -> int:
        return subprocess.run(command, check=False).returncode

    tasks = [work.remote(list(command)) for command in commands]
    ended, waiting, since = [], tasks, None
    try:
        while waiting and (since is None or time.monotonic() - since < LAST):
            now, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
            ended += now
            look()
            since = since or (time.monotonic() if done() else None)
        return [int(code) for code in ray.get(ended)]
    finally:
        for task in waiting:  # of one that has ended, this may crash Ray
            ray.cancel(task)
