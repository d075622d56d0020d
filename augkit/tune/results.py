"""What a study holds, finished or not, as plain data for a table, a report and JSON."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import TrialState

from augkit.tune import optuna_study, selection
from augkit.tune.optuna_study import SearchTerms

KEPT = ("shift_information", "kappa", "seconds", "preset", "same_as", "error", "worker")


def outcome(study: optuna.Study, terms: SearchTerms, chosen: int | None = None) -> dict[str, Any]:
    """What a study holds, finished or not: its trials, the space, importance, and what the search cost and saved."""
    space, goal = terms.open_space(), terms.goal
    on_front = {trial.number for trial in selection.front(optuna_study.completed(study))}
    keys = [optuna_study.control_key(architecture) for architecture in space.architectures()]
    controls = [study.user_attrs[key] for key in keys if key in study.user_attrs]
    rows = [
        {
            "number": found["number"],
            "control": True,
            "state": "complete",
            "accuracy": found["accuracy"],
            "learned_invariance": 0.0,
            "values": [found["accuracy"] if name == "accuracy" else 0.0 for name in goal.objectives],
            "parameters": {},
            "front": False,
            "chosen": False,
            "feasible": True,
            "shift_information": found["shift_information"]["typical"],
            "kappa": found["kappa"],
            "seconds": found["seconds"],
            "curve": {},
        }
        for found in controls
    ]
    numbers, lost = {row["number"] for row in rows}, {trial.number for trial in optuna_study.lost(study)}
    for trial in study.get_trials(deepcopy=False):
        attrs = trial.user_attrs
        if trial.number in numbers or "control" in attrs or trial.state in (TrialState.RUNNING, TrialState.WAITING):
            continue
        if optuna_study.is_foreign(trial) or (trial.state == TrialState.FAIL and trial.number not in lost):
            continue
        done = trial.state == TrialState.COMPLETE
        rows.append(
            {
                "number": trial.number,
                "control": False,
                "state": {"PRUNED": "pruned", "COMPLETE": "complete"}.get(trial.state.name, "failed"),
                "accuracy": attrs.get("accuracy"),
                "learned_invariance": attrs.get("learned_invariance"),
                "values": list(trial.values) if done else None,
                "parameters": attrs.get("values", {}),
                "front": trial.number in on_front and len(goal.objectives) > 1,
                "chosen": trial.number == chosen,
                "feasible": selection.feasible(trial),
                "curve": {str(epoch): value for epoch, value in trial.intermediate_values.items()},
                **{key: attrs.get(key) for key in KEPT},
            }
        )
    return {
        "trials": rows,
        "space": {key: r.model_dump() for key, r in space.ranges.items()},
        "objectives": list(goal.objectives),
        "budget": terms.epochs,
        "importance": selection.importance(study, goal),
        "search_cost": search_cost(study, terms),
    }


def search_cost(study: optuna.Study, terms: SearchTerms) -> dict[str, Any]:
    """Trials, epochs run and epochs that pruning and duplicates saved, and the seconds of all workers together."""
    trials = optuna_study.finished(study)
    copied = [trial for trial in trials if "same_as" in trial.user_attrs]
    fresh = [trial for trial in trials if "same_as" not in trial.user_attrs]
    run = sum(int(trial.user_attrs.get("epochs", terms.epochs)) for trial in fresh)
    return {
        "trials": len(trials),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "answered_from_the_study": len(copied),
        "failed": len(optuna_study.lost(study)),
        "epochs_run": run,
        "epochs_saved": len(trials) * terms.epochs - run,
        "trial_seconds": round(sum(trial.user_attrs.get("seconds") or 0.0 for trial in trials), 1),
    }
