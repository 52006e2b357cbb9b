"""An interruption in the middle of a run."""

from normkit.train import Progress, Step


class Stop(Progress):
    """Ctrl-C in the middle of the given step of the run."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, step: Step) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
