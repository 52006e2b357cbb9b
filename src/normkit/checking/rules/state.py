"""The state: saved, copied, moved, and free of the graph."""

import copy
import inspect
import pickle
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import ANY_FAMILY, Rule
from normkit.checking.target.errors import RAISED
from normkit.checking.target.state import RUNNING


class StateNotSaved(Rule):
    """The running statistics are plain attributes: not saved, and not moved with the module.

    Why: A checkpoint loses them, so a restored model evaluates with the initial values; ``.to()``, ``.double()`` and
    ``.half()`` leave them behind, which fails on another device.

    Fix: ``self.register_buffer("running_mean", torch.zeros(num_features))``, and update it in place or by assigning to
    the same name.
    """

    code = "state-not-saved"

    def not_applicable(self, probe: Measurements) -> str | None:
        if not probe.builder.is_module:
            return "only a torch.nn.Module has a state_dict"
        return None if probe.state else "it keeps no running statistics"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        layer: Any = probe.train(steps=1)
        module, slots = layer.instance, layer.slots()
        saved = {id(value) for value in module.state_dict(keep_vars=True).values()}
        lost = [slots[role].path for role in probe.state if id(slots[role].whole()) not in saved]
        if not lost:
            return
        module.double()
        kept = [p for p in lost if "float64" not in str(getattr(_at(layer.slots(), p), "dtype", ""))]
        yield self.finding(
            f"{' and '.join(lost)} {'are' if len(lost) > 1 else 'is'} not in state_dict",
            f"state_dict holds: {', '.join(module.state_dict()) or 'nothing'}; after .double() "
            + (f"{' and '.join(kept)} stayed behind" if kept else "they followed"),
        )


def _at(slots: dict[str, Any], path: str) -> Any:
    return next((slot.read() for slot in slots.values() if slot.path == path), None)


class StateAttached(Rule):
    """The running statistics carry the autograd graph.

    Why: Every batch's graph stays alive through them, so memory grows with each step, and the second ``backward()``
    fails or goes back through time.

    Fix: Update them under ``torch.no_grad()``, or from ``mean.detach()``.
    """

    code = "state-attached"

    def not_applicable(self, probe: Measurements) -> str | None:
        if not probe.library.records_graph:
            return "only torch records a graph"
        return None if probe.state else "it keeps no running statistics"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        layer = probe.layer(neutral=False)
        x = probe.library.make(probe.x()).requires_grad_().clone()  # no leaf, so that it may be written to
        probe.run(layer, x)
        slots = layer.slots()
        attached = [slots[r].path for r in probe.state if getattr(slots[r].read(), "requires_grad", False)]
        if attached:
            held = type(slots[probe.state[0]].read().grad_fn).__name__
            yield self.finding(
                f"{' and '.join(attached)} carr{'y' if len(attached) > 1 else 'ies'} the autograd graph",
                f"after one training step requires_grad is True, grad_fn is {held}",
            )


class NotCopyable(Rule):
    """It cannot be deep-copied or pickled, or its copy is not equal and independent.

    Why: ``copy.deepcopy`` makes teacher and averaged models, pickle sends modules to worker processes and saves whole
    models.

    Fix: Keep only tensors, numbers and importable objects as attributes; no lambdas, generators, locks, open files, and
    no tensors with a graph.
    """

    code = "not-copyable"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    requires: ClassVar[tuple[str, ...]] = ("state-attached",)
    after: ClassVar[tuple[str, ...]] = ("not-deterministic", "running-stats-updated-in-eval")

    def not_applicable(self, probe: Measurements) -> str | None:
        layer = probe.train(steps=1) if probe.state else probe.layer()
        if inspect.isroutine(layer.instance):
            return "a function cannot be copied"
        by_caller = (layer.given, layer.settings)
        kept = [slot for role, slot in layer.slots().items() if role in RUNNING]
        given = any(slot.owner is held for slot in kept for held in by_caller)
        return "the caller keeps its running statistics" if given else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        layer: Any = probe.train(steps=1)
        kind = type(layer.instance)
        copiers: dict[str, Any] = {"copy.deepcopy": copy.deepcopy}
        if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind:  # pickle finds it by name
            copiers["pickle"] = lambda instance: pickle.loads(pickle.dumps(instance))
        copies = {}
        for name, copy_of in copiers.items():
            try:
                copies[name] = copy_of(layer.instance)
            except RAISED as error:
                yield self.finding(f"{name} fails", f"{type(error).__name__}: {str(error)[:120]}")
                return
        self.need(*self.after)
        x = probe.x()
        wanted = probe.forward(layer, x, training=False)
        original = layer.instance
        for name, copied in copies.items():
            layer.instance = copied
            gap = float(np.abs(probe.forward(layer, x, training=False) - wanted).max())
            probe.forward(layer, x * 3 + 5)
            layer.instance = original
            drift = float(np.abs(probe.forward(layer, x, training=False) - wanted).max())
            if gap > 1e-6 or drift > 1e-6:
                what = "gives another result" if gap > 1e-6 else "shares its running statistics with the original"
                yield self.finding(f"the copy made by {name} {what}", f"outputs differ by {number(max(gap, drift))}")
                return


RULES = (StateNotSaved, StateAttached, NotCopyable)
