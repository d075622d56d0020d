"""Networks of a study that differ in their seed alone, trained in one program; see `augkit.train.together`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from augkit.compare.study.cells import Cell, CellStore
from augkit.compare.study.effects import NO_NETWORK
from augkit.core.errors import InputError, RunError
from augkit.core.progress import Display
from augkit.train.checkpoint import FILE as CHECKPOINT
from augkit.train.together import fit_together


def train_seeds_together(store: CellStore, cells: Sequence[Cell], most: int, show: Display) -> None:
    """Train the networks of cells that are not trained yet, up to ``most`` seeds of an arm at once.

    Cells are not measured. Those whose networks cannot be stacked are left as they are, with a line that says why.

    Args:
        store: where the cells are kept.
        cells: cells of any arms.
        most: number of networks in one program.
        show: told the arm in training.
    """
    ready = {cell.name for cell in cells if store.kept(cell) is not None}
    waiting = [cell for cell in cells if cell.name not in ready and _can(cell)]
    known = {cell.name for cell in waiting}
    while waiting:
        now = [cell for cell in waiting if cell.source is None or cell.source.name not in known - ready]
        if not now:
            return  # their sources could not be trained together
        for group in _groups(now, most):
            if _train(store, group, show):
                ready.update(cell.name for cell in group)
            else:
                known -= {cell.name for cell in group}
        names = {cell.name for cell in now}
        waiting = [cell for cell in waiting if cell.name not in names]


def _can(cell: Cell) -> bool:
    return cell.arm.name != NO_NETWORK and cell.arm.callable is None


def _groups(cells: Sequence[Cell], most: int) -> Iterator[list[Cell]]:
    """Cells of one arm, in groups of at most ``most``; arms with a single cell are left out."""
    by_arm: dict[str, list[Cell]] = {}
    for cell in cells:
        by_arm.setdefault(cell.arm.name, []).append(cell)
    for members in by_arm.values():
        groups = [members[k : k + most] for k in range(0, len(members), most)]
        yield from (group for group in groups if len(group) > 1)


def _train(store: CellStore, group: list[Cell], show: Display) -> bool:
    arm, sources = group[0].arm, [cell.source for cell in group]
    files = [store.path(source) / CHECKPOINT for source in sources if source is not None]
    if not all(file.is_file() for file in files):
        return False
    show.stage(f"training {arm.name}, {len(group)} seeds at once")
    started = time.perf_counter()
    try:
        fit_together(
            arm.recipe,
            [cell.seed for cell in group],
            outputs=[store.path(cell) for cell in group],
            resume=True,
            device=store.device,
            dataset=store.dataset(arm),
            weights=files or None,
        )
    except (InputError, RunError) as error:
        show.line(f"arm {arm.name} is trained seed by seed: {error}")
        return False
    for cell in group:
        store.trained[cell.name] = (time.perf_counter() - started) / len(group)
    return True
