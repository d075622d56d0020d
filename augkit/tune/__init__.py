"""Search augmentation for accuracy and learned invariance.

The command is `python -m augkit.tune`; `tune_policy` searches the policy of any training loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.tune.goal import Goal as Goal
    from augkit.tune.pipeline import TuneWorkers as TuneWorkers
    from augkit.tune.pipeline import tune as tune
    from augkit.tune.policy_results import PolicyPoint as PolicyPoint
    from augkit.tune.policy_results import PolicyResults as PolicyResults
    from augkit.tune.policy_search import tune_policy as tune_policy
    from augkit.tune.results import JoinedSearch as JoinedSearch
    from augkit.tune.results import SearchResults as SearchResults
    from augkit.tune.results import TuneResults as TuneResults
    from augkit.tune.space import Space as Space

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Goal": "goal",
        "JoinedSearch": "results",
        "PolicyPoint": "policy_results",
        "PolicyResults": "policy_results",
        "SearchResults": "results",
        "Space": "space",
        "TuneResults": "results",
        "TuneWorkers": "pipeline",
        "tune": "pipeline",
        "tune_policy": "policy_search",
    },
)
