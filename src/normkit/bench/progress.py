"""What a benchmark tells of its progress."""


class Progress:
    """Silent progress. A run calls these three methods; subclasses show what they are given."""

    def begin(self, total: int) -> None:
        """Expect ``total`` steps."""

    def step(self, text: str) -> None:
        """Note that a step is done, and its result in a line."""

    def end(self) -> None:
        """Stop, after the last step or an error."""
