"""The search itself: an Optuna study over a policy's fields, with accuracy and learned invariance as objectives."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from augkit.errors import InputError, RunError
from augkit.policy import Policy, search_space, with_values

OBJECTIVES = ("accuracy", "learned_invariance")
Evaluate = Callable[[Policy, int], dict[str, Any]]


def open_study(storage: str | Path, name: str, policy: Policy, digest: str, *, resume: bool, seed: int) -> optuna.Study:
    """Create a study, or go on with it.

    Args:
        storage: a journal file (path), or a database URL as Optuna takes it.
        name: of the study.
        policy: whose fields are searched.
        digest: of everything else that must not change between sessions; refused when it did.
        resume: go on with a study that exists.
        seed: of the sampler; a resumed study derives a new one, so that it does not repeat its first draws.

    Raises:
        InputError: the storage cannot be reached, the study exists, or was made with another search.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with _storage_errors(storage):
        backend = _storage(storage)
        if not resume and name in [study.study_name for study in optuna.get_all_study_summaries(backend)]:
            raise InputError(f"study '{name}' exists in '{storage}': add --resume to go on, or name another --study")
        study = optuna.create_study(
            storage=backend, study_name=name, directions=["maximize", "maximize"], load_if_exists=True
        )
    known = study.user_attrs.get("search")
    mine = _search_digest(policy, digest)
    if known is not None and known != mine:
        raise InputError(f"study '{name}' searched another recipe, space or budget; resume with what it began with")
    study.set_user_attr("search", mine)
    derived = int.from_bytes(hashlib.sha256(f"{seed}:{len(study.trials)}".encode()).digest()[:4], "big")
    study.sampler = optuna.samplers.TPESampler(seed=derived, n_startup_trials=6)
    return study


def begin(study: optuna.Study, policy: Policy, control_accuracy: float) -> None:
    """Put the control in as a finished trial, and the recipe as it stands and a strong preset first in line."""
    space = search_space(policy)
    study.add_trial(
        optuna.trial.create_trial(
            params=_preset(policy, 0.0),
            distributions=_distributions(policy),
            values=[control_accuracy, 0.0],
            user_attrs={"control": True},
        )
    )
    first = _current(policy)
    inside = all(low <= first[key] <= high for key, (low, high, _) in space.items())
    for preset in ([first] if inside and not policy.is_identity else []) + [_preset(policy, 0.6)]:
        study.enqueue_trial(preset)


def search(
    study: optuna.Study,
    policy: Policy,
    trials: int,
    evaluate: Evaluate,
    on_trial: Callable[[FrozenTrial], None],
) -> None:
    """Run trials until ``trials`` of them are complete, the control not counted.

    ``evaluate(policy, number)`` returns at least both objectives. A trial that fails is recorded as failed; an
    interrupted one is handed to the next session.

    Raises:
        RunError: three trials failed in a row.
    """
    distributions = _distributions(policy)
    failed = 0
    while len(completed(study)) < trials:
        trial = study.ask(distributions)
        values = rounded(trial.params)
        try:
            found = evaluate(with_values(policy, values), trial.number)
        except KeyboardInterrupt:
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
            raise
        except RunError as error:
            study.tell(trial, state=TrialState.FAIL)
            failed += 1
            if failed == 3:
                raise RunError(f"three trials failed in a row, the last one: {error}") from None
            continue
        failed = 0
        for key, value in {**found, "values": values}.items():
            trial.set_user_attr(key, value)
        study.tell(trial, [found[name] for name in OBJECTIVES])
        on_trial(study.trials[trial.number])


def recover(study: optuna.Study) -> int:
    """Fail the trials that a killed session left running, and put them in line again; how many there were."""
    stale = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in stale:
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)
    return len(stale)


def completed(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials, without the control."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in done if not trial.user_attrs.get("control")]


def front(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that no other beats in one objective without losing in the other."""

    def beaten(a: FrozenTrial) -> bool:
        return any(
            all(y >= x for x, y in zip(a.values, b.values, strict=True)) and b.values != a.values for b in trials
        )

    return [trial for trial in trials if not beaten(trial)]


def choose(trials: list[FrozenTrial], control_accuracy: float, images: int) -> FrozenTrial:
    """The most invariant trial whose accuracy is within two standard errors of the best.

    The best is taken over trials and control; the standard error is the binomial one on ``images`` validation
    images, as in the one-standard-error rule of Breiman et al. 1984, which with a few hundred images would let
    the luck of the best run decide. Where no trial comes so near, the most accurate one is taken.
    """
    best = max(control_accuracy, *(trial.values[0] for trial in trials))
    error = (best * (1 - best) / images) ** 0.5
    near = [trial for trial in trials if trial.values[0] >= best - 2 * error]
    if not near:
        return max(trials, key=lambda trial: trial.values[0])
    return max(near, key=lambda trial: trial.values[1])


def policy_of(trial: FrozenTrial, policy: Policy) -> Policy:
    """The policy that a trial ran: ``policy`` with the trial's values, three significant digits each."""
    return with_values(policy, rounded(trial.params))


def rounded(parameters: dict[str, float]) -> dict[str, float]:
    """Parameters to three significant digits, so that a recipe reads well and repeats exactly."""
    return {key: float(f"{value:.3g}") for key, value in parameters.items()}


def importance(study: optuna.Study) -> dict[str, dict[str, float]]:
    """Share of each objective's variance that each searched field explains (PED-ANOVA); empty with few trials."""
    if len(completed(study)) < 4:
        return {}
    out = {}
    for k, name in enumerate(OBJECTIVES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluator is marked experimental in some releases of Optuna
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            try:
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=_value(k))
            except (ValueError, RuntimeError):  # all trials score the same: nothing to explain
                continue
        out[name] = {key: float(share) for key, share in shares.items()}
    return out


def _value(k: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[k])


def repair_journal(path: Path) -> bool:
    """Cut a last line that was torn when its writer was killed; it would make the study unloadable."""
    data = path.read_bytes() if path.is_file() else b""
    if not data or data.endswith(b"\n"):
        return False
    with path.open("r+b") as file:
        file.truncate(data.rfind(b"\n") + 1)
    return True


@contextlib.contextmanager
def _storage_errors(storage: str | Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each driver, and a file that is no journal, has its own kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        word = "reached" if "://" in str(storage) else "read as a journal"
        shown = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", f"storage '{storage}': cannot be {word} ({reason[:160]})")
        raise InputError(shown) from None


def _storage(storage: str | Path) -> BaseStorage:
    if "://" in str(storage):
        return optuna.storages.get_storage(str(storage))
    path = Path(storage)
    if not path.parent.is_dir():
        raise InputError(f"storage '{path}': expected a file in a folder that exists, there is no '{path.parent}'")
    repair_journal(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _distributions(policy: Policy) -> dict[str, optuna.distributions.BaseDistribution]:
    return {
        key: optuna.distributions.FloatDistribution(low, high) for key, (low, high, _) in search_space(policy).items()
    }


def _search_digest(policy: Policy, digest: str) -> str:
    text = json.dumps([search_space(policy), policy.model_dump(), digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _current(policy: Policy) -> dict[str, float]:
    tree = policy.model_dump()
    identity = _preset(policy, 0.0)
    out = {}
    for dotted in search_space(policy):
        op, key = dotted.split(".")
        out[dotted] = identity[dotted] if tree[op] is None else float(tree[op][key])
    return out


def _preset(policy: Policy, strength: float) -> dict[str, float]:
    """Every field at ``strength`` of the way from its identity to its far end; probabilities likewise."""
    out = {}
    for dotted, (low, high, _) in search_space(policy).items():
        # A crop's smallest window is weakest at the top of its range; everything else at the bottom.
        weak, strong = (high, low) if dotted == "crop.min_area" else (low, high)
        out[dotted] = weak + (strong - weak) * strength
    return out
