"""The launcher of workers as tasks of a Ray cluster, at ``RAY_ADDRESS`` or a local one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import ClassVar

from augkit.core.errors import InputError, RunError
from augkit.core.jobs.pool import WorkerPool

STOP_GRACE = 30.0  # seconds that tasks have to end once all work is done


class RayLauncher:
    """Runs the workers of a pool as tasks of a Ray cluster.

    A task that dies is not replaced; other workers run its trial once its heartbeat is stale.

    Attributes:
        pool: the pool.
    """

    remote: ClassVar[bool] = True

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool

    def run(self) -> None:
        """Start all tasks and wait for them; cancel those that run `STOP_GRACE` seconds after all work is done.

        Raises:
            InputError: Ray is not installed.
            RunError: all tasks ended before the work was done.
        """
        try:
            import ray
        except ImportError:
            raise InputError("--launcher ray: expected Ray to be installed; pip install 'augkit[ray]'") from None
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        pool, gpus = self.pool, self.pool.settings.gpus_per_worker

        @ray.remote(num_gpus=gpus, num_cpus=1, max_retries=0)
        def work(command: Sequence[str]) -> int:
            return subprocess.run(command, check=False).returncode

        tasks = [work.remote(pool.command(k)) for k in range(pool.settings.count)]
        ended, waiting, since = [], tasks, None
        try:
            while waiting and (since is None or time.monotonic() - since < STOP_GRACE):
                now, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
                ended += now
                pool.on_status([])
                since = since or (time.monotonic() if pool.done() else None)
            codes = [int(code) for code in ray.get(ended)]
        finally:
            for task in waiting:  # only tasks that still run; cancelling one that has ended may crash Ray
                ray.cancel(task)
        if not pool.done():
            raise RunError(f"the workers on Ray ended with exit codes {codes} before the work was done")
