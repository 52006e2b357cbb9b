"""What a run says while it works: a line a row, or a bar."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from normkit.bench.contenders import OURS
from normkit.bench.report import duration
from normkit.bench.results import Result
from normkit.bench.runner import Progress


class LineProgress(Progress):
    """One line a row, for a log file or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._done = 0

    def begin(self, total: int) -> None:
        """So many rows."""
        self._total = total

    def row(self, result: Result) -> None:
        """A row is done."""
        self._done += 1
        self._console.print(f"{self._done}/{self._total}  {_line(result)}", soft_wrap=True)


class LiveProgress(Progress):
    """A bar, and the row that was done last."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None)

    def begin(self, total: int) -> None:
        """So many rows."""
        self._bar.update(self._task, total=total)
        self._bar.start()

    def row(self, result: Result) -> None:
        """A row is done."""
        self._bar.update(self._task, advance=1, description=_line(result))

    def end(self) -> None:
        """Take the bar away."""
        self._bar.stop()


def _line(result: Result) -> str:
    ours = duration(result.timings[OURS].median)
    return f"{result.row.name}, {result.regime}: {ours}, torch/ours {result.ratio:.2f}"


def for_console(console: Console) -> Progress:
    """The bar on a terminal, lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else LineProgress(console)
