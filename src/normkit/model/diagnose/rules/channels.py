"""Channels that carry nothing, and an eps that outweighs the variance."""

from typing import Final

from normkit.model.diagnose.gap import closed
from normkit.model.diagnose.report import Finding
from normkit.model.diagnose.rules.base import Case, Rule, most, named

_MANY_DEAD: Final = 0.25
_SWALLOWED: Final = 0.5
"""Eps is larger than the variance. A healthy EfficientNet-Lite0, with an eps of 1e-3, has a layer of 0.11."""
_USUAL_EPS: Final = 1e-5


class LargeEps(Rule):
    """Eps is a large part of what a layer divides by."""

    code = "large-eps"
    what = "eps is not small beside the variance, so the layer hardly normalizes"
    advice = "set eps to that of the framework that trained the model (PyTorch 1e-5, Keras and Flax 1e-3 and 1e-5)"

    def find(self, case: Case) -> Finding | None:
        """Return what was found; the share is that of the usual eps in both forms."""
        large = [layer for layer in case.layers if layer.swallowed > _SWALLOWED]
        if not large:
            return None
        worst = most(large, lambda layer: layer.swallowed)
        number = f"eps is {worst.swallowed:.0%} of var + eps in the median channel of {named(worst)}"
        share = closed(case.gap, case.gap_by({}, {layer.name: _USUAL_EPS for layer in large}))
        return self.finding(large, number, case.worth_telling(share))


class DeadChannels(Rule):
    """Many channels of a layer carry nothing."""

    code = "dead-channels"
    what = "many channels never vary, or have a weight of nearly zero: they carry nothing"
    advice = "look at the layer before: a learning rate too high, or a ReLU that never opens; or remove the channels"

    def find(self, case: Case) -> Finding | None:
        """Return what was found."""
        dying = [layer for layer in case.layers if layer.dead >= max(2, _MANY_DEAD * layer.channels)]
        if not dying:
            return None
        worst = most(dying, lambda layer: layer.dead / layer.channels)
        number = f"{worst.dead} of {worst.channels} channels of {named(worst)}, {worst.constant} of them constant"
        return self.finding(dying, number)


RULES: Final = (LargeEps, DeadChannels)
