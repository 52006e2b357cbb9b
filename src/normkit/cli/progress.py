"""What commands show while they work: on a terminal a bar that goes away, elsewhere lines or nothing."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from normkit.bench.progress import Progress as Steps
from normkit.cli import console


def _bar(*columns: ProgressColumn, auto_refresh: bool = True) -> Progress:
    """Return a bar on the terminal; nothing where there is none."""
    return Progress(
        *columns,
        console=console.err,
        transient=True,
        auto_refresh=auto_refresh,
        disable=not console.err.is_terminal,
    )


@contextmanager
def batches_run() -> Iterator[Callable[[str], None]]:
    """Show what is being done, and how many batches have run; give what is to be told of each."""
    text = TextColumn("{task.description}: {task.completed} batches")
    with _bar(SpinnerColumn(), text, TimeElapsedColumn()) as progress:
        task = progress.add_task("evaluation form", total=None)
        yield lambda doing: progress.update(task, advance=1, description=doing, refresh=True)


@contextmanager
def targets_done(total: int) -> Iterator[Callable[[str], None]]:
    """Show how many targets are done; give what is to be told of each, with what became of it."""
    # refreshed by hand: a thread that does so may hold a lock when a target is forked
    text = TextColumn("{task.description}", markup=False)
    with _bar(BarColumn(20), MofNCompleteColumn(), text, auto_refresh=False) as progress:
        task = progress.add_task("checking", total=total)
        progress.refresh()
        yield lambda said: progress.update(task, advance=1, description=said, refresh=True)


@contextmanager
def passes_over(batches: Iterable[Any]) -> Iterator[Iterable[Any]]:
    """Return batches that show how many were taken, in which pass."""
    with _bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as progress:
        yield batches if isinstance(batches, Iterator) else _Passes(batches, progress)


class _Passes:
    """Batches of which each pass is a line of progress.

    Args:
        batches: What can be gone over several times.
        progress: Where the lines are.
    """

    def __init__(self, batches: Iterable[Any], progress: Progress) -> None:
        self._batches, self._progress, self._passes = batches, progress, 0

    def __iter__(self) -> Iterator[Any]:
        self._passes += 1
        total = len(self._batches) if isinstance(self._batches, Sized) else None
        return iter(self._progress.track(self._batches, total, description=f"pass {self._passes}"))


class Lines(Steps):
    """One line a step of a benchmark, for a log file or a pipe."""

    def __init__(self) -> None:
        self._total = self._done = 0

    def begin(self, total: int) -> None:
        """Expect ``total`` steps."""
        self._total, self._done = total, 0

    def step(self, text: str) -> None:
        """Show the step that is done."""
        self._done += 1
        console.err.print(f"{self._done}/{self._total}  {text}", soft_wrap=True)


class Live(Steps):
    """A bar, and the step of a benchmark that was done last."""

    def __init__(self) -> None:
        text = TextColumn("{task.description}", markup=False)
        self._bar = _bar(BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), text)
        self._task = self._bar.add_task("starting", total=None)

    def begin(self, total: int) -> None:
        """Expect ``total`` steps."""
        self._bar.reset(self._task, total=total, description="starting")
        self._bar.start()

    def step(self, text: str) -> None:
        """Show the step that is done."""
        self._bar.update(self._task, advance=1, description=text)

    def end(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def of_benchmark() -> Steps:
    """Return the progress of a benchmark: a bar on a terminal, lines elsewhere."""
    return Live() if console.err.is_terminal else Lines()
