"""Progress display of long work: a bar on a terminal, and lines above it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any


def following(name: str, names: Iterable[str]) -> str:
    """Return the name after ``name``; empty if it is the last.

    >>> following("typical", ["typical", "erased"]), following("erased", ["typical", "erased"])
    ('erased', '')
    """
    listed = [*names, ""]
    return listed[listed.index(name) + 1]


class Display:
    """Progress on standard error: a bar with the stage, the best result and the time left; lines without a terminal.

    Args:
        total: amount of work, in any unit; the calls of `advance` add up to it.
        quiet: show nothing.
    """

    def __init__(self, total: float, *, quiet: bool = False) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.quiet, self.total, self.done, self.skipped = quiet, total, 0.0, 0.0
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.live = self.console.is_terminal and not quiet
        self.started = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[bold]{task.fields[best]}"),
            console=self.console,
        )
        self.task = self.bar.add_task("starting", total=total, best="")
        self.rows: list[str] = []
        self.view = Live(console=self.console, get_renderable=lambda: Group(*self._rows(), self.bar))

    def _rows(self) -> list[Any]:
        from rich.text import Text

        return [Text(row, no_wrap=True, overflow="ellipsis") for row in self.rows]

    def __enter__(self) -> Display:
        if self.live:
            self.view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.view.stop()

    def begin(self, total: float, done: float) -> None:
        """Set the total amount of work, and the amount that an earlier process did."""
        self.total, self.started = total, time.monotonic()
        self.bar.update(self.task, total=total)
        self.skip(done)

    def stage(self, text: str, then: str = "") -> None:
        """Show the current stage of the work, and what comes next if that is known."""
        text += f"; next: {then}" if then else ""
        self.bar.update(self.task, description=text)
        if not self.live:
            self.line(f"[{self.clock()}] {text}")

    def advance(self, amount: float) -> None:
        """Count work as done."""
        self.done += amount
        self.bar.update(self.task, completed=self.done)

    def skip(self, amount: float) -> None:
        """Count work that an earlier process did, without effect on the estimated speed."""
        self.skipped += amount
        self.advance(amount)

    def panel(self, rows: Sequence[str]) -> None:
        """Show changing lines above the bar, such as the state of each worker; on a terminal only."""
        self.rows = list(rows)

    def best(self, text: str) -> None:
        """Show the best result so far."""
        self.bar.update(self.task, best=text)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)

    def clock(self) -> str:
        """Return the finished share, the time spent and the time left as text."""
        spent = time.monotonic() - self.started
        share = min(1.0, self.done / self.total) if self.total else 0.0
        worked = self.done - self.skipped
        rest = max(0.0, self.total - self.done)
        left = f", about {spent * rest / worked:.0f} s left" if worked > 0.02 * self.total else ""
        return f"{100 * share:3.0f} %, {spent:.0f} s{left}"
