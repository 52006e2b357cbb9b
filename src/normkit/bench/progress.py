"""The progress of a run: silent, a line a step, or a bar."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Silent progress. A run calls these three methods; subclasses show what they are given."""

    def begin(self, total: int) -> None:
        """Expect ``total`` steps."""

    def step(self, text: str) -> None:
        """Note that a step is done, and its result in a line."""

    def end(self) -> None:
        """Stop, after the last step or an error."""


class LineProgress(Progress):
    """One line a step, for a log file or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = self._done = 0

    def begin(self, total: int) -> None:
        """Expect ``total`` steps."""
        self._total, self._done = total, 0

    def step(self, text: str) -> None:
        """Show the step that is done."""
        self._done += 1
        self._console.print(f"{self._done}/{self._total}  {text}", soft_wrap=True)


class LiveProgress(Progress):
    """A bar, and the step that was done last."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
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


def for_console(console: Console) -> Progress:
    """Return the bar on a terminal, lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else LineProgress(console)
