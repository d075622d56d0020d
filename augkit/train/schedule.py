"""The learning rate as a pure function of the step, without state.

After a linear warm-up over ``warmup`` of the steps:

- ``cosine``: half a cosine down to ``final`` (Loshchilov & Hutter 2017, without restarts);
- ``step``: multiplied by ``gamma`` after each of ``milestones``, shares of all steps;
- ``constant``: unchanged.

``onecycle`` (Smith & Topin 2018) rises from 1/25 of the rate in half a cosine, and falls in half a cosine to ``final``.
"""

from __future__ import annotations

import math

from augkit.train.recipe_sections import ScheduleSettings

START = 1 / 25  # of onecycle, as in torch and in fastai


def rate_at(step: int, steps: int, schedule: ScheduleSettings) -> float:
    """Return the learning rate of step ``step`` of ``steps`` (from 0), as a share of the largest rate.

    >>> [round(rate_at(step, 5, ScheduleSettings(warmup=0.4)), 2) for step in range(5)]
    [0.33, 0.67, 1.0, 0.75, 0.25]
    """
    if schedule.name == "onecycle":
        return _one_cycle(step, steps, schedule)
    warm = schedule.warmup * steps
    if step < warm:
        return (step + 1) / (warm + 1)
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "step":
        passed = sum(step >= share * steps for share in schedule.milestones)
        return float(schedule.gamma**passed)
    return _half_cosine(1.0, schedule.final, (step - warm) / max(1.0, steps - warm))


def _one_cycle(step: int, steps: int, schedule: ScheduleSettings) -> float:
    last = max(1, steps - 1)
    top = max(0.0, schedule.warmup * steps - 1)
    if step <= top and top > 0:
        return _half_cosine(START, 1.0, step / top)
    return _half_cosine(1.0, schedule.final, (step - top) / max(1.0, last - top))


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))
