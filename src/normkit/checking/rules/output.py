"""The output: its shape, its dtype, its memory, and whether it is the same each time."""

import contextlib
import io
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import Rule
from normkit.checking.target.errors import TargetError


class CallFails(Rule):
    """A call that its torch twin takes raises an exception.

    Why: The path was never run: training works, and the first validation stops the program.

    Fix: Run both paths once, in training and in evaluation, before and after a training step.
    """

    code = "call-fails"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for rank in probe.ranks:
            try:
                layer = probe.train(rank, steps=2)
                probe.forward(layer, probe.x(rank), training=False)
                probe.forward(layer, probe.x(rank))
            except TargetError as error:
                yield self.finding(f"{error.doing} fails", str(error))
                return


class OutputShape(Rule):
    """The output does not have the shape of the input.

    Why: Every normalization is element by element in shape; the next layer will fail, or broadcast silently.

    Fix: Return an array of the input's shape: undo every reshape, and keep the axes that you add.
    """

    code = "output-shape"
    requires: ClassVar[tuple[str, ...]] = ("call-fails",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for rank in probe.ranks:
            x = probe.x(rank)
            for training in (True, False):
                y = probe.run(probe.layer(rank), probe.library.make(x), training=training)
                if tuple(y.shape) != x.shape:
                    mode = "training" if training else "evaluation"
                    yield self.finding(
                        f"returns shape {tuple(y.shape)} for an input of shape {x.shape}",
                        f"input {x.shape}, output {tuple(y.shape)} in {mode}",
                    )
                    return


class OutputDtype(Rule):
    """The output has another dtype than the input.

    Why: A float64 result doubles the memory of everything after it, a float32 result in a half-precision model stops
    the next matrix product with an error.

    Fix: Compute in a wider dtype where you need to, and cast back: ``y.to(x.dtype)`` or ``y.astype(x.dtype)``.
    """

    code = "output-dtype"
    requires: ClassVar[tuple[str, ...]] = ("output-shape", "parameters-not-registered")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        results = probe.output_dtypes
        changed = [f"{d} in, {r} out" for d, r in results.items() if not r.startswith("raises") and r != d]
        if changed:
            parameters = "" if probe.builder.is_module else " (weight and bias as the target keeps them)"
            yield self.finding(
                f"the output's dtype is not the input's: {changed[0]}",
                "; ".join(changed) + parameters,
                severity="error" if probe.builder.is_module else "warning",
            )
        elif results.get("float64", "").startswith("raises"):
            yield self.finding("refuses float64", f"float64 in, {results['float64']}", severity="warning")


class InputMutated(Rule):
    """The call changes its input in place.

    Why: The caller's tensor changes behind its back: a residual connection adds the wrong thing, and autograd fails or
    computes wrong gradients for whatever saved that tensor.

    Fix: Work on a new array: ``x = x - mean`` rather than ``x -= mean``.
    """

    code = "input-mutated"
    requires: ClassVar[tuple[str, ...]] = ("call-fails",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return None if probe.library.mutable else "JAX arrays cannot be written to"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for training in (True, False):
            layer = probe.layer() if training else probe.train(steps=1)
            before = probe.x()
            x = probe.library.make(before)
            probe.run(layer, x, training=training)
            change = float(np.abs(probe.library.values(x) - before).max())
            if change > 0 or np.isnan(change):
                mode = "training" if training else "evaluation"
                yield self.finding(
                    f"overwrites its input in {mode}", f"after the call the input had changed by up to {number(change)}"
                )
                return


class OutputAliasesInput(Rule):
    """The output shares its memory with the input.

    Why: Whoever writes to the one changes the other: ``relu_`` after the layer destroys the tensor before it.

    Fix: Return a new array on every path; ``x.clone()`` or ``x.copy()`` where nothing is to be done.
    """

    code = "output-aliases-input"
    requires: ClassVar[tuple[str, ...]] = ("input-mutated",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return None if probe.library.mutable else "JAX arrays cannot be written to"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for training in (True, False):
            for trained in (False, True):
                layer = probe.train(steps=1) if trained else probe.layer()
                x = probe.library.make(probe.x())
                y = probe.run(layer, x, training=training)
                if probe.library.shares_memory(x, y):
                    mode = "training" if training else "evaluation"
                    yield self.finding(
                        f"returns the input's own memory in {mode}",
                        f"input and output share storage {'after a training step' if trained else 'on a fresh layer'}",
                    )
                    return


class NotDeterministic(Rule):
    """Equal inputs to equal layers give different outputs.

    Why: Nothing about the layer can be tested or reproduced, and no other measurement here would mean anything.

    Fix: Take the randomness out of the forward pass: noise, sampled statistics, uninitialised memory (``torch.empty``).
    """

    code = "not-deterministic"
    requires: ClassVar[tuple[str, ...]] = ("output-shape",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for mode, gap in zip(("training", "evaluation"), probe.deterministic, strict=True):
            if gap > 0:
                yield self.finding(
                    f"gives another result each time in {mode}",
                    f"three fresh layers, one input: outputs differ by up to {number(gap)}",
                    severity="error" if gap > 1e-5 else "note",
                )
                return


class Prints(Rule):
    """The target writes to the terminal.

    Why: A layer runs thousands of times; what it prints buries what matters.

    Fix: Remove the print, or move a script's demonstration under ``if __name__ == "__main__":``.
    """

    code = "prints"
    severity = "note"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        lines = probe.import_effects.output.strip().splitlines()
        if lines:
            yield self.finding("prints when it is imported", f"{len(lines)} lines, the first: {lines[0][:80]!r}")
        heard = io.StringIO()
        try:
            with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
                layer = probe.train(steps=1)
                probe.forward(layer, probe.x(), training=False)
        except TargetError:
            return
        lines = heard.getvalue().strip().splitlines()
        if lines:
            yield self.finding(
                "prints while it runs",
                f"{len(lines)} lines in two calls, the first: {lines[0][:80]!r}",
                severity="warning",
            )


RULES = (CallFails, OutputShape, NotDeterministic, OutputDtype, InputMutated, OutputAliasesInput, Prints)
