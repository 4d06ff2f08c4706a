"""Progress: a bar with the time that is left, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator


class Progress:
    """Counts runs of batches through something.

    Args:
        shown: whether there is a bar, on stderr where that is a terminal.
    """

    def __init__(self, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        columns = (TextColumn("sparsify"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=console, disable=not (shown and console.is_terminal))
        self._task = self._bar.add_task("sparsify", total=0)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def expect(self, count: int) -> None:
        """There will be so many more."""
        (task,) = self._bar.tasks
        self._bar.update(self._task, total=(task.total or 0) + count)

    def track(self, count: int) -> Iterator[int]:
        """Numbers from 0, each of which stands for one."""
        for i in range(count):
            yield i
            self._bar.advance(self._task)
