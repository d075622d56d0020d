"""The private parts of Optuna that augkit depends on, in one place, each with the reason.

A database or a proxy may restart while it is used, so every operation is tried again for `PATIENCE` seconds. Optuna
wraps an `RDBStorage`, and nothing else, in its cache of finished trials, without which each look at a long study reads
all of it. The cache calls private operations of the storage (``_create_new_trial``, ``_get_trials``,
``_set_trial_param``); these must wait as the public ones do, so a subclass overrides them by name. ``__wrapped__``
tells tests which operation stands behind.
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

PATIENCE = 300.0  # seconds that a database may be away
_WAITS = contextvars.ContextVar("waits", default=True)
PRIVATE = ("_create_new_trial", "_set_trial_param", "_get_trials")
# Not create_new_study: tried again after an answer that was lost, it would find its own study as another's.
OPERATIONS = [name for name in vars(BaseStorage) if name.startswith(("get_", "set_"))] + ["create_new_trial", *PRIVATE]


@contextlib.contextmanager
def without_waiting() -> Iterator[None]:
    """Operations within are tried once, however long the storage is away."""
    token = _WAITS.set(False)
    try:
        yield
    finally:
        _WAITS.reset(token)


class PatientDatabase(RDBStorage):
    """A database that may restart while it is used."""


class PatientProxy(GrpcStorageProxy):
    """A proxy that may restart while it is used; a dead one shows as an UnboundLocalError in Optuna's client."""


def wait_for_storage(
    method: Callable[..., Any], name: str, transient: Callable[[], tuple[type[Exception], ...]]
) -> Any:
    """An operation that is tried again while the storage is away; ``transient`` returns the errors that say so."""

    @functools.wraps(method)
    def call(self: Any, *values: Any, **named: Any) -> Any:
        until, pause, again = time.monotonic() + PATIENCE, 0.2, False
        while True:
            try:
                return method(self, *values, **named)
            except UpdateFinishedTrialError:
                # Our first attempt may have arrived, and its answer not.
                wanted = named.get("state", values[1] if len(values) > 1 else None)
                if again and name == "set_trial_state_values" and self.get_trial(values[0]).state == wanted:
                    return True
                raise
            except transient() as error:
                if time.monotonic() > until or not _WAITS.get():
                    raise StorageInternalError(f"the storage did not come back within {PATIENCE:.0f} s") from error
            again = True
            time.sleep(pause)
            pause = min(2 * pause, 10.0)

    return call


def database_errors() -> tuple[type[Exception], ...]:
    """What an operation of a database raises while its server is away."""
    import sqlalchemy.exc

    return sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, StorageInternalError


def proxy_errors() -> tuple[type[Exception], ...]:
    """What an operation of a proxy raises while it is away."""
    import grpc  # type: ignore[import-untyped, unused-ignore]

    return grpc.RpcError, UnboundLocalError


for _class, _errors in ((PatientDatabase, database_errors), (PatientProxy, proxy_errors)):
    for _name in OPERATIONS:
        if hasattr(_class, _name):
            setattr(_class, _name, wait_for_storage(getattr(_class, _name), _name, _errors))
