"""The launcher on Ray, with a stand-in for Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from augkit.core.errors import InputError, RunError
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.jobs.ray import RayLauncher


class NodeDiedError(Exception):
    """As Ray raises when the result of a task is asked for whose node has died."""


def on(monkeypatch: pytest.MonkeyPatch, ends: list[Any], done: bool) -> RayLauncher:
    """A launcher whose tasks end with these codes, or errors."""

    def remote(**resources: float) -> Callable[..., Any]:
        return lambda function: SimpleNamespace(remote=lambda k: ends[k])

    def get(end: Any) -> Any:
        if isinstance(end, list):
            return [get(one) for one in end]
        if isinstance(end, Exception):
            raise end
        return end

    ray = SimpleNamespace(
        init=lambda **options: None,
        remote=remote,
        wait=lambda waiting, **options: (waiting, []),
        get=get,
        exceptions=SimpleNamespace(RayError=NodeDiedError),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    settings = WorkerSettings(count=len(ends), launcher="ray")
    pool: Any = SimpleNamespace(
        settings=settings, command=lambda k: k, on_status=lambda statuses: None, done=lambda: done
    )
    return RayLauncher(pool)


def test_a_node_that_dies_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, [0, NodeDiedError()], done=True).run()
    with pytest.raises(RunError, match="exit codes 1, NodeDiedError before the work was done"):
        on(monkeypatch, [1, NodeDiedError()], done=False).run()


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: object) -> None:
        raise ConnectionError("Could not find a running instance\nat all")

    launcher = on(monkeypatch, [0], done=True)
    monkeypatch.setattr(sys.modules["ray"], "init", refused)
    with pytest.raises(
        InputError, match=r"a cluster that answers at RAY_ADDRESS \(Could not find a running instance\)"
    ):
        launcher.run()
