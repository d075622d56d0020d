"""The private parts of Optuna that augkit depends on, in one place, with reasons.

A database or a proxy may restart while it is used, so every operation is repeated for up to `PATIENCE` seconds. Optuna
caches finished trials for an `RDBStorage` only; without the cache, each query of a long study would read all of it. The
cache calls private operations of the storage (``_create_new_trial``, ``_get_trials``, ``_set_trial_param``). They must
be repeated like the public ones, so a subclass overrides them by name. Tests read ``__wrapped__`` to find the original.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage

from augkit.core.jobs.journal import StorageLostError

PATIENCE = 300.0  # seconds that a storage may be unavailable
_REPEATS = contextvars.ContextVar("repeats", default=True)
PRIVATE = ("_create_new_trial", "_set_trial_param", "_get_trials")
# Not create_new_study: if its answer was lost and it is repeated, it would mistake its own study for another's.
OPERATIONS = [name for name in vars(BaseStorage) if name.startswith(("get_", "set_"))] + ["create_new_trial", *PRIVATE]


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Within this context, an operation is tried only once."""
    token = _REPEATS.set(False)
    try:
        yield
    finally:
        _REPEATS.reset(token)


class StorageGoneError(StorageLostError, StorageInternalError):
    """A database or a proxy that does not answer; Optuna knows the error by its second base."""


class PatientDatabase(RDBStorage):
    """A database that may restart while it is used."""


class PatientProxy(GrpcStorageProxy):
    """A proxy that may restart while it is used; a dead one shows as an UnboundLocalError in Optuna's client."""


def wait_for_storage(
    method: Callable[..., Any], name: str, transient: Callable[[], tuple[type[Exception], ...]]
) -> Any:
    """Repeat an operation while the storage is unavailable; ``transient`` returns the errors that mean this."""

    @functools.wraps(method)
    def call(self: Any, *values: Any, **named: Any) -> Any:
        until, pause, again = time.monotonic() + PATIENCE, 0.2, False
        while True:
            try:
                return method(self, *values, **named)
            except UpdateFinishedTrialError:
                # The first attempt may have succeeded although its answer was lost.
                wanted = named.get("state", values[1] if len(values) > 1 else None)
                if again and name == "set_trial_state_values" and self.get_trial(values[0]).state == wanted:
                    return True
                raise
            except transient() as error:
                if time.monotonic() > until or not _REPEATS.get():
                    raise StorageGoneError(
                        f"the storage did not come back within {PATIENCE:.0f} s; --resume continues once it is there"
                    ) from error
            again = True
            time.sleep(pause)
            pause = min(2 * pause, 10.0)

    return call


def database_errors() -> tuple[type[Exception], ...]:
    """Errors of an operation while the database server is unavailable."""
    import sqlalchemy.exc

    return sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, StorageInternalError


def proxy_errors() -> tuple[type[Exception], ...]:
    """Errors of an operation while the proxy is unavailable."""
    import grpc  # type: ignore[import-untyped, unused-ignore]

    return grpc.RpcError, UnboundLocalError


for _class, _errors in ((PatientDatabase, database_errors), (PatientProxy, proxy_errors)):
    for _name in OPERATIONS:
        if hasattr(_class, _name):
            setattr(_class, _name, wait_for_storage(getattr(_class, _name), _name, _errors))
