"""``python -m augkit.tune.worker``: one worker of a search or a study, as ``--workers`` of their commands starts them.

It stops, and hands its trial back, when the process that started it is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import optuna

from augkit.compare.study.queue import CellWorker
from augkit.core.cli import run
from augkit.core.errors import WriteError
from augkit.core.files import write
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import Watch
from augkit.train.build import choose_device, load_recipe_data
from augkit.tune.dashboard import annotate
from augkit.tune.optuna_study import load_terms
from augkit.tune.trial import Worker


def main(arguments: list[str]) -> None:
    """Work until the study is done."""
    parser = argparse.ArgumentParser(prog="python -m augkit.tune.worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--storage", required=True, help="as of augkit.tune")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--index", type=int, default=0, help="of this worker; its sampler's seed derives from it")
    parser.add_argument("--folder", type=Path, help="for runs of controls and trials")
    parser.add_argument("--status", type=Path, help="file that tells the starting process what is being done")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--retries", type=int, default=1, help="of a trial whose worker died")
    parser.add_argument("--grace", type=float, default=300.0, help="seconds after which a silent worker is dead")
    parser.add_argument("--nproc-per-trial", type=int, default=1, help="processes of a trial, by torchrun")
    parser.add_argument("--keep-trials", action="store_true", help="keep the runs of trials")
    parser.add_argument("--dashboard", action="store_true", help="notes and artifacts for optuna-dashboard")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    options = parser.parse_args(arguments)
    storage = open_storage(options.storage, retries=options.retries, grace=options.grace)
    study = optuna.load_study(storage=storage, study_name=options.study)
    if "order" in study.user_attrs:
        CellWorker(study, choose_device(options.device), options.index, _watch(options)).run()
        return
    terms = load_terms(study)
    worker = Worker(
        study,
        terms,
        load_recipe_data(terms.open_space().recipe),
        choose_device(options.device),
        index=options.index,
        folder=options.folder,
        keep=options.keep_trials,
        processes=options.nproc_per_trial,
        watch=_watch(options),
    )
    if options.dashboard:
        worker.on_trial = annotate(worker)
    worker.run()


def _watch(options: Any) -> Watch:
    """What it is doing, written to the status file once a second; the file's age tells whether it still lives."""
    told: dict[str, Any] = {"pid": os.getpid(), "stage": "starting", "work": 0.0}
    last = [0.0]

    def tell() -> None:
        last[0] = time.monotonic()
        if options.status:
            with contextlib.suppress(WriteError):  # no trial fails for want of a status
                write(options.status, json.dumps(told))

    def stage(text: str) -> None:
        told.update(stage=text, epoch=None, epochs=None)
        tell()

    def epoch(number: int, row: dict[str, Any], epochs: int) -> None:
        told.update(epoch=row["epoch"], epochs=epochs, images_per_second=row["images_per_second"])
        told["accuracy"] = row.get("validation_accuracy")
        tell()

    def work(amount: float) -> None:
        told["work"] += amount

    def alive() -> None:
        if options.parent and os.getppid() != options.parent:
            raise KeyboardInterrupt
        if time.monotonic() - last[0] > 1:
            tell()

    return Watch(stage, epoch, work, alive, line=lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    sys.exit(run(main))
