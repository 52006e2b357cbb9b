"""The axes and groups that are averaged over, for every rank and batch size."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.families import TITLES
from normkit.checking.measure.lab import Measurements
from normkit.checking.measure.probe import Probe
from normkit.checking.patterns import Pattern
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import BASIC, Rule, usual_first
from normkit.checking.target.errors import TargetError
from normkit.checking.target.resolve import accept
from normkit.checking.target.state import AFFINE


def in_words(pattern: Pattern | None, probe: Measurements) -> str:
    """Say what a measured pattern does, as the rest of a sentence."""
    if pattern is None:
        return "averages over an irregular set of elements"
    if pattern.count == 1:
        return "averages over nothing: each output depends on its own input alone"
    if pattern.axes is not None and len(pattern.axes) == pattern.labels.ndim:
        return "averages over the whole tensor"
    if probe.family == "batch" and pattern.axes is not None and 0 not in pattern.axes:
        return f"averages per sample as well, over {pattern.words}"
    return f"averages over {pattern.words}"


class WrongAxes(Rule):
    """The statistics are averaged over other axes than the family's.

    Why: It is another operation: what one channel or sample gets depends on others that it should not depend on, or
    not on those that it should.

    Fix: Reduce the axes named as expected, with keepdims so that the result broadcasts back.
    """

    code = "wrong-axes"
    core = True
    requires: ClassVar[tuple[str, ...]] = BASIC
    after: ClassVar[tuple[str, ...]] = ("train-uses-running-stats",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for finding in self._deviations(probe):
            self.need(*self.after)  # which explains other axes
            yield finding

    def _deviations(self, probe: Measurements) -> Iterator[Finding]:
        if probe.has_wrong_groups(probe.rank):
            return  # group-order says it
        if probe.applies_relu or not probe.gives_numbers:
            return  # formula-wrong says it
        if probe.is_permuted:
            yield self.finding(
                "puts the normalized values in other places than their inputs",
                "sorted, the outputs are those of the definition",
                fix="Undo a permutation by the inverse permutation before or after the reshape: "
                "reshape alone does not bring axes back.",
            )
            return
        for rank in usual_first(probe):
            if probe.as_expected(rank):
                continue
            pattern, expected = probe.pattern(rank), probe.expected(rank)[0]
            shape, names = probe.geometry.shape(rank), probe.geometry.axis_names(rank)
            size = int(np.prod(shape))
            message = in_words(pattern, probe)
            if rank != probe.rank:
                message += f" when the input has rank {rank}"
            reach = f"changing one element of a {shape} input ({names}) moves "
            reach += f"{pattern.count} of {size} outputs" if pattern is not None else "no regular set of outputs"
            yield self.finding(
                message,
                f"{reach}; {TITLES[probe.family]} moves {expected.count}",
                fix=f"{TITLES[probe.family].capitalize()} averages over {expected.words}. {self.hint(probe, expected)}",
            )
            return
        yield from self.split_statistics(probe)

    def split_statistics(self, probe: Measurements) -> Iterator[Finding]:
        """The mean and the variance may average over different axes."""
        formula = probe.formula
        if formula is None or not formula.fits or formula.mean_over.same(formula.var_over):
            return
        yield self.finding(
            f"the mean averages over {formula.mean_over.words}, the variance over {formula.var_over.words}",
            f"with these two the output is reproduced to {number(formula.residual)}",
            fix=f"Take both over {probe.expected()[0].words}.",
        )

    def hint(self, probe: Measurements, expected: Pattern) -> str:
        """The code that would do it."""
        if expected.axes is None:
            return "Reshape to (N, groups, -1) and reduce the last axis."
        axes = expected.axes
        shown = axes if len(axes) > 1 else axes[0]
        return f"Write x.mean({shown}, {probe.library.keepdims}), and the same for the variance."


class GroupOrder(Rule):
    """The groups are made of the wrong channels, or the weight belongs to the group rather than to the channel.

    Why: It runs and trains, but weights from a correct layer give other results, and so does every other framework.

    Fix: Groups are runs of neighbouring channels: with channels last, bring them to axis 1 before
    ``reshape(N, groups, -1)``. Weight and bias have one entry a channel, applied after the groups are merged again.
    """

    code = "group-order"
    core = True
    requires: ClassVar[tuple[str, ...]] = BASIC
    families: ClassVar[tuple[str, ...]] = ("group",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        expected = probe.expected()[0]
        if probe.has_wrong_groups(probe.rank):
            pattern = probe.pattern()
            assert pattern is not None
            yield self.finding(
                f"groups the wrong channels: {pattern.words}",
                f"one element moves {pattern.count} outputs; expected {expected.words}, which moves {expected.count}",
            )
            return
        groups, channels = probe.geometry.groups, probe.geometry.features[0]
        sizes = {role: values.size for role, values in probe.layer(neutral=False).read(*AFFINE).items()}
        if 1 < groups != channels and groups in sizes.values():
            yield self.finding(
                f"weight and bias belong to the {groups} groups, not to the {channels} channels",
                ", ".join(f"{role} has {size} entries" for role, size in sizes.items()),
            )


class BatchSizeDependent(Rule):
    """For some batch sizes the result is another one.

    Why: A test with one batch size passes, and the last, smaller batch of an epoch goes wrong. The usual cause is
    ``len(x)`` where the rank was meant, or a ``squeeze`` that also takes a batch of one.

    Fix: Use ``x.ndim`` (or ``x.dim()``) for the rank, and name the axis in every squeeze.
    """

    code = "batch-size-dependent"
    requires: ClassVar[tuple[str, ...]] = (*BASIC, "wrong-axes", "group-order", "formula-wrong in training")
    after: ClassVar[tuple[str, ...]] = ("output-shape", "not-deterministic", "running-stats-updated-in-eval")

    def not_applicable(self, probe: Measurements) -> str | None:
        return "its further inputs are others for another batch" if probe.undoes else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        few = probe.library.compiles
        least = 2 if probe.family == "batch" else 1
        batches = tuple(size for size in ((1, 2, 4, 5) if few else (1, 2, 3, 4, 5, 8)) if size >= least)
        ranks = (probe.rank,) if few else probe.ranks
        for rank in ranks:
            if wrong := self._training(probe, rank, batches):
                yield self._found(rank, wrong)
                return
        self.need(*self.after)
        for rank in ranks:
            if wrong := self._evaluation(probe, rank):
                yield self._found(rank, wrong)
                return

    def _found(self, rank: int, wrong: dict[int, str]) -> Finding:
        return self.finding(
            f"gives another result for a batch of {', '.join(map(str, wrong))} (input of rank {rank})",
            "; ".join(f"a batch of {batch} {trouble}" for batch, trouble in wrong.items()),
        )

    def _training(self, probe: Measurements, rank: int, batches: tuple[int, ...]) -> dict[int, str]:
        """What goes wrong in training, by batch size."""
        troubles = {batch: self._trouble(probe, rank, batch) for batch in batches}
        return {batch: trouble for batch, trouble in troubles.items() if trouble is not None}

    def _trouble(self, probe: Measurements, rank: int, batch: int) -> str | None:
        formula = probe.formula
        assert formula is not None
        x = probe.x(rank, batch)
        try:
            y = probe.forward(probe.layer(rank), x)
            if y.shape != x.shape:
                return f"gives shape {y.shape}"
            gap = min(float(np.abs(y - formula.on(p).apply(x)).max()) for p in probe.expected(rank, batch))
            if gap < 2e-3:
                return None
            return f"{in_words(probe.pattern(rank, batch), probe)} (differs by {number(gap)})"
        except TargetError as error:
            return f"raises {error.error!r}"[:120]

    def _evaluation(self, probe: Measurements, rank: int) -> dict[int, str]:
        """What goes wrong in evaluation: with running statistics a sample's result depends on nothing else."""
        if probe.family == "batch" and (not probe.state or probe.evaluation.statistics != "running"):
            return {}
        x = probe.x(rank)
        layer = probe.train(rank, steps=1)
        whole = probe.forward(layer, x, training=False)
        wrong = {}
        for batch in (1, 2, 4):
            try:
                part = probe.forward(layer, x[:batch], training=False)
            except TargetError as error:
                wrong[batch] = f"raises {error.error!r} in evaluation"[:120]
                continue
            if part.shape != x[:batch].shape:
                wrong[batch] = f"gives shape {part.shape} in evaluation"
            elif (gap := float(np.abs(whole[:batch] - part).max())) > 1e-4:
                wrong[batch] = f"differs by {number(gap)} in evaluation from the same samples in a larger batch"
        return wrong


class RankUnsupported(Rule):
    """An input rank is refused that its torch twin takes.

    Why: It is no drop-in: (N, C) after a linear layer, (N, C, L) for sequences and (N, C, H, W) for images all occur.

    Fix: Derive the axes to reduce from ``x.ndim``: all but the channel axis for batch normalization, the last ones for
    layer normalization.
    """

    code = "rank-unsupported"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        promised = probe.resolved.claim.ranks
        usual = {"layer": (2, 3, 4), "rms": (2, 3, 4), "group": (3, 4)}.get(probe.family, ())
        wanted = promised or tuple(rank for rank in usual if rank > len(probe.geometry.features))
        refused = [rank for rank in wanted if rank not in probe.resolved.ranks]
        if probe.accepted_but_wrong_ranks:
            beyond = ", ".join(map(str, probe.accepted_but_wrong_ranks))
            pattern = probe.pattern(probe.accepted_but_wrong_ranks[-1])
            axes = f"axes {pattern.axes}" if pattern is not None and pattern.axes else "other elements"
            yield self.finding(
                f"is right for rank {', '.join(map(str, probe.ranks))} only: "
                f"it takes rank {beyond} and averages over {axes} all the same",
                f"it averages over {axes} for rank {beyond}",
                severity="warning",
            )
        elif refused:
            reasons = [f"rank {rank}: {probe.resolved.refused.get(rank, 'not taken')}" for rank in refused]
            yield self.finding(
                f"refuses inputs of rank {', '.join(map(str, refused))}, which {probe.reference_layer} takes",
                "; ".join(reasons),
                severity="error" if promised else "warning",
            )


class TrailingAxes(Rule):
    """With several axes in normalized_shape it averages over other axes than those.

    Why: torch.nn.LayerNorm((H, W)) averages over both axes. A class that takes the tuple and averages over the last
    axis alone, or over the wrong number of axes, raises no error: the weight has the right shape all the same.

    Fix: Derive the axes from the argument: ``tuple(range(-len(normalized_shape), 0))``; or refuse a tuple.
    """

    code = "trailing-axes"
    severity = "warning"
    requires: ClassVar[tuple[str, ...]] = (*BASIC, "wrong-axes", "formula-wrong in training")
    families: ClassVar[tuple[str, ...]] = ("layer", "rms")

    _SIZES = (2, 4, 6)

    def not_applicable(self, probe: Measurements) -> str | None:
        shapes = [p for s in probe.builder.signatures() if (p := s.parameter_of("features")) and "shape" in p.name]
        if not shapes:
            return "no argument takes the shape of several axes"
        return "it takes one size, as its annotation says" if shapes[0].annotation in (int, "int") else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for count in (2,) if probe.library.compiles else (2, 3):
            sizes = self._SIZES[-count:]
            builder = probe.builder.with_geometry(features=sizes, last=True).with_style(features_as_tuple=True)
            taken = accept(builder, probe.resolved.claim)
            if not taken.ranks:
                continue  # refusing it is clear
            wider = Probe(taken, builder, probe.family)
            for rank in taken.ranks[:2]:
                if wider.as_expected(rank):
                    continue
                pattern, expected = wider.pattern(rank), wider.expected(rank)[0]
                shape, reach = wider.geometry.shape(rank), "no regular set of" if pattern is None else pattern.count
                yield self.finding(
                    f"{in_words(pattern, probe)} when it is built for the last {count} axes, {sizes}",
                    f"input {shape}: changing one element moves {reach} outputs; expected {expected.count}",
                )
                return


class AnotherName(Rule):
    """It is exactly a normalization of another family than its name says.

    Why: Nothing is wrong with the numbers, but whoever reads the name expects others. T5 calls RMS normalization layer
    normalization; layer normalization of an image over C, H, W with a weight for each channel is group normalization
    of one group.

    Fix: Name it for what it is, or leave it; ``--as layer`` holds it against what its name says.
    """

    code = "another-name"
    severity = "note"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        claimed = probe.settled.claimed
        if claimed is None:
            return
        twin = "torch.nn.GroupNorm(1, C)" if probe.family == "group" else probe.reference_layer
        yield self.finding(
            f"is called {TITLES[claimed]} and is {TITLES[probe.family]}",
            f"measured as {twin}, which it equals but for what else is found",
        )


RULES = (AnotherName, WrongAxes, GroupOrder, BatchSizeDependent, RankUnsupported, TrailingAxes)
