"""The launcher of workers as tasks of a Ray cluster, at ``RAY_ADDRESS`` or a local one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Any, ClassVar

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
            InputError: Ray is not installed, or its cluster does not answer.
            RunError: all tasks ended before the work was done.
        """
        try:
            import ray
        except ImportError:
            raise InputError("--launcher ray: expected Ray to be installed; pip install 'augkit[ray]'") from None
        try:
            ray.init(ignore_reinit_error=True, log_to_driver=False)
        except ConnectionError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"--launcher ray: expected a cluster that answers at RAY_ADDRESS ({reason})") from None
        pool, gpus = self.pool, self.pool.settings.gpus_per_worker

        @ray.remote(num_gpus=gpus, num_cpus=1, max_retries=0)
        def work(command: Sequence[str]) -> int:
            return subprocess.run(command, check=False).returncode

        tasks = [work.remote(pool.command(k)) for k in range(pool.settings.count)]
        codes, waiting, since = list[object](), tasks, None
        try:
            while waiting and (since is None or time.monotonic() - since < STOP_GRACE):
                now, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
                codes += [_code(ray, task) for task in now]
                pool.on_status([])
                since = since or (time.monotonic() if pool.done() else None)
        finally:
            for task in waiting:  # only tasks that still run; cancelling one that has ended may crash Ray
                ray.cancel(task)
        if not pool.done():
            said = ", ".join(map(str, codes))
            raise RunError(f"the workers on Ray ended with exit codes {said} before the work was done")


def _code(ray: Any, task: object) -> object:
    """Exit code of a task that has ended; if it died with its node, Ray's name for that."""
    try:
        return int(ray.get(task))
    except ray.exceptions.RayError as error:
        return type(error).__name__
