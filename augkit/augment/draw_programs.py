"""How an op's draws become its map, as numbers: what `augkit.augment.backends.native_draws` compiles.

A program is a kind, the number of draws, the probability, and what the kind needs, up to `NUMBERS` in all.
"""

from __future__ import annotations

from functools import cache

DrawProgram = tuple[float, ...]
NUMBERS = 12
SHIFT, RESCALE, CROP, FLIP = range(4)


@cache
def has_own_program(kind: type) -> bool:
    """Whether the class that defines an op's ``axes`` defines its ``draw_program`` too; a subclass may replace one."""
    return "draw_program" in next(vars(base) for base in kind.__mro__ if "axes" in vars(base))
