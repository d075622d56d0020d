"""The launchers, which start the workers of a pool: as processes of this machine, or as tasks of a Ray cluster.

A launcher is a class with the two methods of `Launcher`, and an entry in `LAUNCHERS`. Hosts that start the same command
themselves need no launcher, as with ``srun python -m augkit.tune recipe.yaml --storage URL --study NAME``: the first
creates the study, the others join it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from augkit.core.errors import InputError, unknown_name
from augkit.core.jobs.local import LocalLauncher
from augkit.core.jobs.pool import WorkerPool, WorkerSettings
from augkit.core.jobs.ray import RayLauncher
from augkit.core.jobs.storage import Storage
from augkit.core.progress import Display


class Launcher(Protocol):
    """Starts the workers of a pool.

    Attributes:
        remote: whether workers may run on other hosts, which cannot reach a journal file of this host.
    """

    remote: ClassVar[bool]

    def __init__(self, pool: WorkerPool) -> None: ...

    def run(self) -> None:
        """Start all workers, call ``pool.on_status`` meanwhile, and return when all have ended.

        Raises:
            RunError: the workers ended before ``pool.done()``.
            InputError: a program that the launcher needs is not installed.
        """


LAUNCHERS: dict[str, type[Launcher]] = {"local": LocalLauncher, "ray": RayLauncher}


def launcher_of(settings: WorkerSettings) -> type[Launcher]:
    """The launcher that settings name; raise InputError if there is none of that name."""
    if settings.launcher not in LAUNCHERS:
        raise unknown_name("launcher", settings.launcher, LAUNCHERS)
    return LAUNCHERS[settings.launcher]


def needs_pool(settings: WorkerSettings) -> bool:
    """Whether workers run in processes of their own; a single local worker runs in this process."""
    return launcher_of(settings).remote or settings.count > 1


def check_workers(settings: WorkerSettings, storage: Storage | None) -> None:
    """Raise InputError if such workers cannot share the storage; None is the journal file of the folder."""
    if storage is not None and storage.is_sqlite and settings.count > 1:
        raise InputError(
            "SQLite with several workers runs trials twice: leave --storage out (a journal file), or use PostgreSQL"
        )
    if launcher_of(settings).remote and (storage is None or storage.kind == "journal"):
        raise InputError(
            f"--launcher {settings.launcher}: expected --storage with a URL that all hosts of the cluster reach"
        )


def run_workers(pool: WorkerPool, display: Display) -> None:
    """Run the workers of a pool until they have ended, then empty the panel; raises the errors of `Launcher.run`."""
    try:
        launcher_of(pool.settings)(pool).run()
    finally:
        display.panel([])
