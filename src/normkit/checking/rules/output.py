"""The output: its shape, its dtype, its memory, and whether it is the same each time."""

import contextlib
import io
from collections.abc import Callable, Generator, Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.report import Finding, Mode, Severity, errors_first, number
from normkit.checking.rules.base import ANY_FAMILY, Rule, ready, shared, usual_first
from normkit.checking.target.errors import TargetError


class CallFails(Rule):
    """A call that its torch twin takes raises an exception.

    Why: The path was never run: training works, and the first validation stops the program.

    Fix: Run both paths once, in training and in evaluation, before and after a training step.
    """

    code = "call-fails"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY

    def check(self, probe: Measurements) -> Iterator[Finding]:
        failures = [finding for rank in usual_first(probe) for finding in self._failures(probe, rank)]
        worst = {finding.mode: finding for finding in reversed(errors_first(failures))}  # the first one of each mode
        raised = {finding.evidence.partition(" raised ")[2]: finding for finding in worst.values()}
        yield from errors_first(list(raised.values()))  # a layer without modes fails alike in both

    def _failures(self, probe: Measurements, rank: int) -> Iterator[Finding]:
        """Call it in every order: in training twice, then in evaluation, in training again, in evaluation untrained."""
        layer = probe.layer(rank)
        failed = yield from self._failure("", lambda: probe.forward(layer, probe.x(rank, seed=100)), "training")
        if not failed:
            failed = yield from self._failure(
                "a second time", lambda: probe.forward(layer, probe.x(rank, seed=101)), "training"
            )
        if (yield from self._failure("", lambda: probe.forward(layer, probe.x(rank), training=False), "evaluation")):
            return
        if not failed:
            yield from self._failure("after evaluation", lambda: probe.forward(layer, probe.x(rank)), "training")
        fresh = probe.layer(rank)
        yield from self._failure(
            "before any training step",
            lambda: probe.forward(fresh, probe.x(rank), training=False),
            "evaluation",
            severity="warning",
        )

    def _failure(
        self, when: str, call: Callable[[], object], mode: Mode, *, severity: Severity | None = None
    ) -> Generator[Finding, None, bool]:
        try:
            call()
        except TargetError as error:
            doing = f"{error.doing} {when}".rstrip()
            yield self.finding(f"{doing} fails", str(error), severity=severity, mode=mode)
            return True
        return False


class OutputShape(Rule):
    """The output does not have the shape of the input.

    Why: Every normalization is element by element in shape; the next layer will fail, or broadcast silently.

    Fix: Return an array of the input's shape: undo every reshape, and keep the axes that you add.
    """

    code = "output-shape"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    core = True

    def check(self, probe: Measurements) -> Iterator[Finding]:
        measured = dict(self.each_mode(lambda training: self._wrong(probe, training=training)))
        wrong = {mode: shapes for mode, shapes in measured.items() if shapes is not None}
        if wrong:
            mode, (taken, given) = next(iter(wrong.items()))
            yield self.finding(
                f"returns shape {given} for an input of shape {taken}",
                f"input {taken}, output {given} in {mode}",
                mode=shared(wrong),
            )

    def _wrong(self, probe: Measurements, *, training: bool) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The shapes of an input and of its output where they differ."""
        for rank in usual_first(probe):
            x = probe.library.make(probe.x(rank))
            y = probe.run(ready(probe, rank, training=training), x, training=training)
            if tuple(y.shape) != tuple(x.shape):
                return tuple(x.shape), tuple(y.shape)
        return None


class OutputDtype(Rule):
    """The output has another dtype than the input.

    Why: A float64 result doubles the memory of everything after it, a float32 result in a half-precision model stops
    the next matrix product with an error.

    Fix: Compute in a wider dtype where you need to, and cast back: ``y.to(x.dtype)`` or ``y.astype(x.dtype)``.
    """

    code = "output-dtype"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    edge = True
    requires: ClassVar[tuple[str, ...]] = ("parameters-not-registered",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return "lists of numbers have no dtype" if probe.builder.style.lists else None

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
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY

    def not_applicable(self, probe: Measurements) -> str | None:
        return None if probe.library.mutable else "JAX arrays cannot be written to"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        measured = dict(self.each_mode(lambda training: self._change(probe, training=training)))
        changes = {mode: change for mode, change in measured.items() if change != 0}
        if changes:
            mode, change = next(iter(changes.items()))
            yield self.finding(
                f"overwrites its input in {mode}",
                f"after the call the input had changed by up to {number(change)}",
                mode=shared(changes),
            )

    def _change(self, probe: Measurements, *, training: bool) -> float:
        layer = ready(probe, training=training)
        before = probe.x()
        x = probe.library.make(before)
        probe.run(layer, x, training=training)
        return float(np.abs(probe.library.values(x) - before).max())


class OutputAliasesInput(Rule):
    """The output shares its memory with the input.

    Why: Whoever writes to the one changes the other: ``relu_`` after the layer destroys the tensor before it.

    Fix: Return a new array on every path; ``x.clone()`` or ``x.copy()`` where nothing is to be done.
    """

    code = "output-aliases-input"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    requires: ClassVar[tuple[str, ...]] = ("input-mutated",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return None if probe.library.mutable else "JAX arrays cannot be written to"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for mode, when in self.each_mode(lambda training: self._when_shared(probe, training=training)):
            if when is not None:
                yield self.finding(
                    f"returns the input's own memory in {mode}", f"input and output share storage {when}"
                )
                return

    def _when_shared(self, probe: Measurements, *, training: bool) -> str | None:
        """When the output is the input's memory: on a fresh layer or on a trained one, as far as they run."""
        errors = []
        for steps, when in enumerate(("on a fresh layer", "after a training step")):
            x = probe.library.make(probe.x())
            try:
                y = probe.run(probe.train(steps=steps), x, training=training)
            except TargetError as error:
                errors.append(error)
            else:
                if probe.library.shares_memory(x, y):
                    return when
        if len(errors) == 2:
            raise errors[0]
        return None


class NotDeterministic(Rule):
    """Equal inputs to equal layers give different outputs.

    Why: Nothing about the layer can be tested or reproduced, and no other measurement here would mean anything.

    Fix: Take the randomness out of the forward pass: noise, sampled statistics, uninitialised memory (``torch.empty``).
    """

    code = "not-deterministic"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    core = True

    def check(self, probe: Measurements) -> Iterator[Finding]:
        measured = dict(self.each_mode(lambda training: self._gap(probe, training=training)))
        gaps = {mode: gap for mode, gap in measured.items() if gap > 0}
        if gaps:
            mode, gap = max(gaps.items(), key=lambda item: item[1])
            yield self.finding(
                f"gives another result each time in {mode}",
                f"three layers built alike, one input: outputs differ by up to {number(gap)}",
                severity="error" if gap > 1e-5 else "note",
                mode=shared(gaps),
            )

    def _gap(self, probe: Measurements, *, training: bool) -> float:
        """The largest difference between calls on equal input: of trained layers, or of fresh ones that train once."""
        try:
            return self._gap_after(probe, 1, training=training)  # some draw their parameters in the first call
        except TargetError:
            if not training:
                raise
            return self._gap_after(probe, 0, training=training)

    def _gap_after(self, probe: Measurements, steps: int, *, training: bool) -> float:
        x = probe.x()
        results = []
        for seed in range(3):
            layer = probe.train(steps=steps)
            probe.library.seed(seed)  # whatever it draws while it runs shall differ
            results.append(probe.forward(layer, x, training=training))
        if len({result.shape for result in results}) > 1:
            return np.inf
        return max(float(np.nanmax(np.abs(other - results[0]), initial=0.0)) for other in results[1:])


class Prints(Rule):
    """The target writes to the terminal.

    Why: A layer runs thousands of times; what it prints buries what matters.

    Fix: Remove the print, or move a script's demonstration under ``if __name__ == "__main__":``.
    """

    code = "prints"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    severity = "note"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        lines = probe.import_effects.output.strip().splitlines()
        if lines:
            yield self.finding("prints when it is imported", f"{len(lines)} lines, the first: {lines[0][:80]!r}")
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard), contextlib.suppress(TargetError):
            layer = probe.train(steps=1)
            probe.forward(layer, probe.x(), training=False)  # call-fails says where it fails; what it printed counts
        lines = heard.getvalue().strip().splitlines()
        if lines:
            yield self.finding(
                "prints while it runs",
                f"{len(lines)} lines in two calls, the first: {lines[0][:80]!r}",
                severity="warning",
            )


RULES = (CallFails, OutputShape, NotDeterministic, OutputDtype, InputMutated, OutputAliasesInput, Prints)
