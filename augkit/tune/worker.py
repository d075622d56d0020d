"""``python -m augkit.tune.worker``: one worker of a search, as ``--workers`` of `augkit.tune` starts it.

When the process that started it has ended, the worker hands its trial back and stops.
"""

from __future__ import annotations

import sys
from pathlib import Path

from augkit.core.cli import run
from augkit.core.jobs.status import open_job_study, worker_parser
from augkit.train.build import choose_device, load_recipe_data
from augkit.train.optimizer import warm_up
from augkit.tune.optuna_study import load_terms
from augkit.tune.trial import TrialWorker


def main(arguments: list[str]) -> None:
    """Run trials until the search is done."""
    parser = worker_parser("augkit.tune.worker", __doc__)
    parser.add_argument("--folder", type=Path, help="folder for the runs of controls and trials")
    parser.add_argument("--nproc-per-trial", type=int, default=1, help="processes per trial, started by torchrun")
    parser.add_argument("--keep-trials", action="store_true", help="keep the run folders of trials")
    parser.add_argument("--dashboard", action="store_true", help="write notes and artifacts for optuna-dashboard")
    options = parser.parse_args(arguments)
    warm_up()
    study, common = open_job_study(options)
    terms = load_terms(study)
    worker = TrialWorker(
        study,
        terms,
        load_recipe_data(terms.open_space().recipe),
        choose_device(options.device),
        folder=options.folder,
        keep=options.keep_trials,
        processes=options.nproc_per_trial,
        **common,
    )
    if options.dashboard:
        from augkit.tune.dashboard import annotate  # loads matplotlib, which takes most of a second

        worker.on_trial = annotate(worker)
    worker.run()


if __name__ == "__main__":
    sys.exit(run(main))
