"""The course of a diagnosis: run both forms, measure each layer, ask every rule, rank what was found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from torch import nn

from normkit.errors import UserError
from normkit.model.data import Forward
from normkit.model.diagnose.experiments import cancelled_biases, momenta_of, moving_layers, recomputed_layers
from normkit.model.diagnose.forms import BATCH, UNPADDED, Choice, Outputs, Runner
from normkit.model.diagnose.gap import comparable, parts_of, scale_of
from normkit.model.diagnose.measure import Observations, curves_of, numbers_of, statistics_of
from normkit.model.diagnose.observe import Tracked
from normkit.model.diagnose.report import Diagnosis, Finding, Layer
from normkit.model.diagnose.rules import RULES, Case

Progress = Callable[[str], None]
"""Is called after each batch with what is being done."""

_SWITCHES: Final = 64
"""About as many layers times batches are switched one by one, with one batch at least and four at most."""
_TIE: Final = 0.1
"""Shares of the gap that differ by less are alike."""


class Examination:
    """The examination of one model, which is in evaluation mode and preserved.

    Args:
        model: The model.
        layers: Its layers that keep running statistics.
        batches: The batches.
        forward: How to call the model, if not with the batch alone.
        progress: Is called after each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Tracked],
        batches: Sequence[Any],
        forward: Forward | None,
        progress: Progress,
    ) -> None:
        self._doing = ""
        self._runner = Runner(model, layers, batches, forward, lambda: progress(self._doing))
        self._evaluated = Observations(histograms_by="running")
        self._trained = Observations(histograms_by="batch")

    def diagnosis(self) -> Diagnosis:
        """Examine the model."""
        runner = self._runner
        count = len(runner.batches)
        self._doing = "evaluation form"
        evaluated = self._first_run()
        by_name = {layer.name: layer for layer in runner.layers}
        order = [by_name[name] for name in self._evaluated.order]
        unused = tuple(name for name in by_name if name not in self._evaluated.order)
        if not order:
            return Diagnosis(0.0, 0.0, count, None, (), (), unused)
        self._doing = "training form"
        self._in_training: dict[str, Choice] = {layer.name: BATCH for layer in order}
        trained = runner.run(self._in_training, watch=self._trained.watch)
        if not comparable(evaluated, trained):
            runner.measured_at = order[-1]
            evaluated, trained = runner.run(), runner.run(self._in_training)
        evaluated, trained = self._leave_out_nonfinite(evaluated, trained)
        self._outputs, self._scale = trained, scale_of(trained)
        self._right = {layer.name: statistics_of(layer, self._trained) for layer in order}

        layers = self._measured(order)
        gap = self._scale.difference(evaluated, trained)
        self._doing = "causes"
        case = Case(layers, self._right, gap, self._gap_by)
        findings = rank([found for rule in RULES if (found := rule().find(case)) is not None])
        noise = self._gap_by({layer.name: self._right[layer.name].per_use for layer in order}, {})
        self._doing = "layer by layer"
        switched = min(max(_SWITCHES // len(order), 1), 4)
        parts = parts_of(runner, order, self._scale, evaluated[:switched], trained[:switched])
        layers = [replace(layer, **part._asdict()) for layer, part in zip(layers, parts, strict=True)]
        at = runner.measured_at.name if runner.measured_at else None
        return Diagnosis(gap, noise, count, at, tuple(findings), tuple(layers), unused)

    def _first_run(self) -> Outputs:
        """Evaluate; where the model raises, the data or the way to call it do not fit."""
        try:
            return self._runner.run(watch=self._evaluated.watch)
        except (RuntimeError, ValueError, TypeError, LookupError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"the model cannot be run on these `data`; it raised {type(error).__name__}: {error}. Give batches as "
                "it takes them, or `forward`, a function of the model and a batch"
            ) from error

    def _leave_out_nonfinite(self, evaluated: Outputs, trained: Outputs) -> tuple[Outputs, Outputs]:
        """Leave out batches that give NaN in training form, unless all do."""
        finite = [all(bool(kept.values.isfinite().all()) for kept in batch) for batch in trained]
        if not any(finite):
            return evaluated, trained
        chosen = [index for index, is_finite in enumerate(finite) if is_finite]
        self._runner.batches = [self._runner.batches[index] for index in chosen]
        return [evaluated[index] for index in chosen], [trained[index] for index in chosen]

    def _measured(self, order: Sequence[Tracked]) -> list[Layer]:
        """Measure each layer; its part in the gap is not known yet."""
        model, batch, forward = self._runner.model, self._runner.batches[0], self._runner.forward
        momenta = momenta_of(model, order, batch, forward)
        recomputed = recomputed_layers(model, order, batch, forward)
        biases = cancelled_biases(model, order, batch, forward)
        moving = moving_layers(model, order, batch, forward)
        return [
            Layer(
                **numbers_of(layer, self._trained, self._right[layer.name]),
                momentum=momenta.get(layer.name),
                cancelled_bias=biases.get(layer.name),
                recomputed=layer.name in recomputed,
                moves_in_evaluation=layer.name in moving,
                alone=0.0,
                cumulative=0.0,
                curves=curves_of(layer, self._right[layer.name], self._evaluated, self._trained),
            )
            for layer in order
        ]

    def _gap_by(self, choices: Mapping[str, Choice], eps: Mapping[str, float]) -> float:
        """Return the gap by other statistics in evaluation.

        Another eps, and the statistics of unpadded positions, are so in training form too.
        """
        unpadded = [name for name, choice in choices.items() if choice == UNPADDED]
        evaluation = {**choices, **{name: (self._right[name].unpadded,) for name in unpadded}}
        trained, scale = self._outputs, self._scale
        if unpadded or eps:
            trained = self._runner.run({**self._in_training, **dict.fromkeys(unpadded, UNPADDED)}, eps=eps)
            scale = scale_of(trained)
        return scale.difference(self._runner.run(evaluation, eps=eps), trained)


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, that which explains most of the gap first; of those alike, the one that was given first."""
    left, ranked = list(findings), []
    while left:
        best = max(_share(finding) for finding in left)
        first = next(finding for finding in left if _share(finding) >= best - _TIE)
        left.remove(first)
        ranked.append(first)
    return ranked


def _share(finding: Finding) -> float:
    return -1.0 if finding.share is None else finding.share
