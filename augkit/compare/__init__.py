"""Compare recipes over seeds, and run studies of several arms. The command is `python -m augkit.compare`.

`compare_policies` compares policies in any training loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.compare.policies import PolicyComparison as PolicyComparison
    from augkit.compare.policies import compare_policies as compare_policies
    from augkit.compare.recipes import ComparisonResults as ComparisonResults
    from augkit.compare.recipes import compare as compare
    from augkit.compare.recipes import compare_finished as compare_finished
    from augkit.compare.study.meta_analysis import combine_studies as combine_studies
    from augkit.compare.study.pipeline import run_study as run_study
    from augkit.compare.study.results import StudyResults as StudyResults
    from augkit.compare.study.schema import Study as Study

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ComparisonResults": "recipes",
        "PolicyComparison": "policies",
        "Study": "study.schema",
        "StudyResults": "study.results",
        "combine_studies": "study.meta_analysis",
        "compare": "recipes",
        "compare_finished": "recipes",
        "compare_policies": "policies",
        "run_study": "study.pipeline",
    },
)
