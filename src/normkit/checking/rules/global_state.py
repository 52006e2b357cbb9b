"""The effects of the target on the process around it."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import ClassVar

from normkit.checking.measure.lab import Measurements
from normkit.checking.report import Finding
from normkit.checking.rules.base import ANY_FAMILY, Rule
from normkit.checking.target.global_state import changes, preserved, reseeded, snapshot


class GlobalState(Rule):
    """Importing, building or calling it changes global state.

    Why: A seed set inside a layer makes every dropout mask and every shuffled epoch the same; a default dtype, a grad
    mode or a number of threads that stays changed breaks code that never touched the layer.

    Fix: Leave seeds, dtypes and threads to the program; use a context manager (``with torch.no_grad():``) where the
    change is meant to be local.
    """

    code = "global-state"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY

    def check(self, probe: Measurements) -> Iterator[Finding]:
        imported = probe.import_effects.changes
        if imported:
            yield self.finding("importing it changes global state", "; ".join(imported), severity="warning")

        def use() -> None:
            with warnings.catch_warnings(), contextlib.suppress(Exception):
                warnings.simplefilter("ignore")
                layer = probe.builder.build_unseeded(probe.rank)
                layer.sets_grad_mode = False
                layer.forward(probe.x())
                layer.forward(probe.x(), training=False)

        with preserved():
            before = snapshot()
            use()
            changed = changes(before, snapshot())
        with preserved():
            seeded = [f"{name}'s random generator was seeded" for name in reseeded(use)]
        changed = [change for change in changed if not change.startswith("torch's seed")] + seeded
        if changed:
            yield self.finding("building or calling it changes global state", "; ".join(changed))


RULES = (GlobalState,)
