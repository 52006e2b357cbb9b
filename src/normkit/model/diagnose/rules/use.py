"""How a model uses its layers: for several distributions, twice a step, or in the wrong mode."""

from typing import Final

from normkit.model.diagnose.gap import closed
from normkit.model.diagnose.report import Finding, amount
from normkit.model.diagnose.rules.base import LEAST_SHARE, Case, Rule, most, named

_APART: Final = 0.25


class SharedLayer(Rule):
    """One layer normalizes different distributions."""

    code = "shared-layer"
    what = (
        "one layer is used several times in a forward pass, on different distributions, and stores the mixture of them"
    )
    advice = "give each use a layer of its own (weight and bias may be shared), then normkit.recalibrate(model, data)"

    def find(self, case: Case) -> Finding | None:
        """Return what was found, if statistics for each use close part of the gap."""
        shared = [
            layer for layer in case.layers if layer.uses > 1 and layer.use_distance > max(_APART, layer.noise / 2)
        ]
        if not shared or not case.is_noticeable:
            return None
        left = case.gap_by({layer.name: case.right[layer.name].per_use for layer in shared}, {})
        share = closed(case.gap, left) - max(case.closed_by(layer.name for layer in shared), 0.0)
        if share < LEAST_SHARE:
            return None
        worst = most(shared, lambda layer: layer.use_distance)
        number = (
            f"{named(worst)} runs {worst.uses} times, and by their mixture the normalized values of one use are off by "
            f"{amount(worst.use_distance)} standard deviations"
        )
        return self.finding(shared, number, share)


class Recomputed(Rule):
    """Activation checkpointing updates the statistics twice."""

    code = "updated-twice"
    what = "the layer runs again during the backward pass, and updates its running statistics a second time"
    advice = (
        "keep the second run from storing: checkpoint(block, x, use_reentrant=False, "
        "context_fn=lambda: (nullcontext(), normkit.no_stats_update(block)))"
    )
    call = "normkit.no_stats_update(block)"

    def find(self, case: Case) -> Finding | None:
        """Return what was found."""
        again = [layer for layer in case.layers if layer.recomputed and layer.momentum != 0.0]
        if not again:
            return None
        return self.finding(
            again, f"{len(again)} of {len(case.layers)} layers run twice in a step with its backward pass"
        )


class MovesInEvaluation(Rule):
    """Evaluation moves the running statistics."""

    code = "moves-in-evaluation"
    what = "the running statistics move in evaluation too, so results depend on what was evaluated before"
    advice = "update them only if self.training; normkit check FILE.py:LAYER says what else the layer does"
    call = None

    def find(self, case: Case) -> Finding | None:
        """Return what was found."""
        moving = [layer for layer in case.layers if layer.moves_in_evaluation]
        if not moving:
            return None
        return self.finding(moving, f"after the evaluation of a batch {len(moving)} layers had other buffers")


RULES: Final = (SharedLayer, Recomputed, MovesInEvaluation)
