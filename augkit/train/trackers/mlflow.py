"""Runs in MLflow. ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` say where, as always."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from augkit.train.recipe import Recipe
from augkit.train.trackers.base import keep_name, kept_name, project, run_name, settings_of

LONGEST = 6000  # characters of a value that MLflow keeps


class MlflowTracker:
    """Records a run of MLflow through a client of its own, so that no global state of the user changes."""

    _run: str | None = None

    def start(self, recipe: Recipe, output: Path | None) -> None:
        """Begin a run of MLflow with the recipe as its parameters, or go on with the one of the folder."""
        self._client = MlflowClient()
        self._run = kept_name(output, "mlflow")
        if self._run is not None:
            self._client.update_run(self._run, status="RUNNING")
            return
        name = project("MLFLOW_EXPERIMENT_NAME")
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        self._run = self._client.create_run(experiment, run_name=run_name(recipe)).info.run_id
        fields = [Param(key, str(value)[:LONGEST]) for key, value in settings_of(recipe).items()]
        for start in range(0, len(fields), 100):  # as many as MLflow takes at once
            self._client.log_batch(self._run, params=fields[start : start + 100])
        keep_name(output, "mlflow", self._run)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of an epoch."""
        assert self._run is not None
        now = time.time_ns() // 1_000_000  # ms
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def close(self) -> None:
        """End the run."""
        if self._run is not None:
            self._client.set_terminated(self._run)
