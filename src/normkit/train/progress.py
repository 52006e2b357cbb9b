"""The progress of a run: silent, a line an epoch, or a live view."""

from dataclasses import dataclass
from time import perf_counter

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from normkit.train.results import EpochMetrics


@dataclass(frozen=True)
class Step:
    """The state of a training in the middle of an epoch: averages over its steps so far."""

    norm: str
    impl: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    images_per_second: float


class Progress:
    """Silent progress. A run calls these five methods; subclasses show what they are given."""

    def note(self, message: str) -> None:
        """Note something that the user must know."""

    def begin(self, steps: int, done: int) -> None:
        """Expect ``steps`` steps for all norms together, ``done`` of them from before a resume."""

    def step(self, step: Step) -> None:
        """Note a step that is done."""

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Note an epoch of ``epochs`` that is trained, tested and saved."""

    def end(self) -> None:
        """Stop, after the last step or an error."""


class LineProgress(Progress):
    """One line an epoch, for a log file or a pipe."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._start = self._after_first = 0.0
        self._steps = self._done = self._done_at_start = 0

    def note(self, message: str) -> None:
        """Print it."""
        self.console.print(message, soft_wrap=True, highlight=False)

    def begin(self, steps: int, done: int) -> None:
        """Start the clock."""
        self._steps, self._done, self._done_at_start = steps, done, done
        self._start = perf_counter()

    def step(self, step: Step) -> None:
        """Count the step; the first one of a process is not typical."""
        self._done += 1
        if self._done == self._done_at_start + 1:
            self._after_first = perf_counter()

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Print the epoch and the time left."""
        since, steps = self._after_first, self._done - self._done_at_start - 1
        if steps == 0:  # nothing but the first step, which loads and compiles, to judge by
            since, steps = self._start, 1
        left = (perf_counter() - since) / steps * (self._steps - self._done)
        self.console.print(f"{epoch_line(metrics, epochs)}  {left:,.0f} s left", soft_wrap=True, highlight=False)


class LiveProgress(Progress):
    """A bar that shows the running epoch, below one line for each that is done."""

    def __init__(self, console: Console) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self._task = TaskID(0)

    def note(self, message: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(message, soft_wrap=True, highlight=False)

    def begin(self, steps: int, done: int) -> None:
        """Show the bar."""
        # What was done before a resume is no progress to judge the speed by; the bar itself leaves the first step out.
        self._task = self._bar.add_task("starting", total=steps, completed=done, numbers="")
        self._bar.start()

    def step(self, step: Step) -> None:
        """Move the bar."""
        self._bar.update(
            self._task,
            advance=1,
            description=f"{_name(step)}  epoch {step.epoch}/{step.epochs}",
            numbers=f"loss {step.loss:.3f}  accuracy {step.accuracy:.3f}  {step.images_per_second:,.0f} images/s",
        )

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        """Print the epoch above the bar."""
        self._bar.console.print(epoch_line(metrics, epochs), soft_wrap=True, highlight=False)

    def end(self) -> None:
        """Remove the bar."""
        self._bar.stop()


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
    """Return one epoch as a line of text."""
    width = len(str(epochs))
    return (
        f"{_name(metrics)}  epoch {metrics.epoch:>{width}}/{epochs}  loss {metrics.train_loss:.3f}  "
        f"train accuracy {metrics.train_accuracy:.3f}  test accuracy {metrics.test_accuracy:.3f}  "
        f"{metrics.images_per_second:,.0f} images/s"
    )


def _name(of: Step | EpochMetrics) -> str:
    """Name a contender in a column of its own."""
    return f"{of.norm:<8}  {of.impl:<12}" if of.impl else f"{of.norm:<8}"


def for_console(console: Console) -> Progress:
    """Return the live view on a terminal, lines elsewhere."""
    return LiveProgress(console) if console.is_terminal else LineProgress(console)
