"""What the target does to the process around it."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from normkit.checking import surroundings
from normkit.checking.report import Finding
from normkit.checking.rules.base import Rule

if TYPE_CHECKING:
    from normkit.checking.lab import Lab


class GlobalState(Rule):
    """Importing, building or calling it changes global state.

    Why: A seed set inside a layer makes every dropout mask and every shuffled epoch the same; a default dtype, a grad
    mode or a number of threads that stays changed breaks code that never touched the layer.

    Fix: Leave seeds, dtypes and threads to the program; use a context manager (``with torch.no_grad():``) where the
    change is meant to be local.
    """

    code = "global-state"

    def check(self, lab: "Lab") -> Iterator[Finding]:
        if lab.import_changes:
            yield self.finding("importing it changes global state", "; ".join(lab.import_changes), severity="warning")

        def use() -> None:
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")
                layer = lab.subject.new_unseeded(lab.rank)
                layer.free = True
                layer.forward(lab.x())
                layer.forward(lab.x(), training=False)

        with surroundings.Preserved():
            before = surroundings.snapshot()
            use()
            changed = surroundings.changes(before, surroundings.snapshot())
        with surroundings.Preserved():
            seeded = [f"{name}'s random generator was seeded" for name in surroundings.reseeded(use)]
        changed = [change for change in changed if not change.startswith("torch's seed")] + seeded
        if changed:
            yield self.finding("building or calling it changes global state", "; ".join(changed))


RULES = (GlobalState,)
