"""How an op's draws become its map, as numbers: what `augkit.augment.backends.native_draws` compiles.

A recipe is a kind, the number of draws, the probability, and what the kind needs, up to `NUMBERS` in all.
"""

from __future__ import annotations

from functools import cache

Recipe = tuple[float, ...]
NUMBERS = 12
SHIFT, RESCALE, CROP, FLIP = range(4)


@cache
def own_recipe(kind: type) -> bool:
    """Whether the class that defines an op's ``axes`` defines its ``recipe`` too: a subclass may replace one alone."""
    return all(next(name in vars(base) for base in kind.__mro__ if "axes" in vars(base)) for name in ("axes", "recipe"))
