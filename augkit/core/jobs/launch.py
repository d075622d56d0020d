"""Who starts the workers of a pool: processes of this machine, or tasks of a Ray cluster.

A launcher is a class with the two methods of `Launcher`, and one row in `LAUNCHERS`. No launcher is needed where hosts
start the same command themselves, as ``srun python -m augkit.tune recipe.yaml --storage URL --study NAME`` does: the
first makes the study, the others join it.
"""

from __future__ import annotations

from typing import Protocol

from augkit.core.jobs.local import LocalLauncher
from augkit.core.jobs.pool import WorkerPool
from augkit.core.jobs.ray import RayLauncher


class Launcher(Protocol):
    """Starts the workers of a pool somewhere."""

    def __init__(self, pool: WorkerPool) -> None: ...

    def run(self) -> None:
        """Start all workers, call ``pool.on_status`` meanwhile, and return when all have ended.

        Raises:
            RunError: they ended before ``pool.done()``.
            InputError: a program that it needs is not installed.
        """


LAUNCHERS: dict[str, type[Launcher]] = {"local": LocalLauncher, "ray": RayLauncher}


def run_workers(pool: WorkerPool) -> None:
    """Have the launcher of a pool start its workers, and wait for their end; raises as `Launcher.run`."""
    LAUNCHERS[pool.settings.launcher](pool).run()
