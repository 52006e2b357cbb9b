"""Weight and bias: present, registered, of the right shape, starting at one and zero, applied as they should be."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.patterns import Values
from normkit.checking.report import MODES, Finding, interval, number
from normkit.checking.rules.base import ANY_FAMILY, BASIC, Rule, UnmeasuredError, shared
from normkit.checking.target.builder import STARTS
from normkit.checking.target.names import last_part, role_of
from normkit.checking.target.state import AFFINE


class AffineRule(Rule):
    """A check that needs a weight or a bias."""

    def not_applicable(self, probe: Measurements) -> str | None:
        return "it has neither weight nor bias" if not probe.affine else None


_DOES = {"weight": "scales", "bias": "shifts"}


class AffineMissing(Rule):
    """It has no weight or no bias.

    Why: The layer cannot scale or shift what it normalizes; a checkpoint of its torch twin does not load. It equals
    ``affine=False`` (or ``bias=False``).

    Fix: Keep a weight of ones and a bias of zeros, one entry a channel (a feature for layer normalization), and return
    ``x_hat * weight + bias``.
    """

    code = "affine-missing"
    severity = "warning"

    def not_applicable(self, probe: Measurements) -> str | None:
        if probe.family == "instance":
            return "instance normalization has none by default"
        if probe.settled.computed_affine:
            return "other parameters make its weight and bias"
        return "an instance may do without" if probe.builder.is_instance else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        wanted = ("weight",) if probe.family == "rms" else ("weight", "bias")
        after = probe.train(steps=1).slots()  # some make them in the first call
        missing = [role for role in wanted if role not in probe.affine and role not in after]
        if missing:
            yield self.finding(
                f"has no {' and no '.join(missing)}",
                f"nothing that it keeps {' or '.join(_DOES[role] for role in missing)} its output",
            )


class AffineIgnored(AffineRule):
    """Weight and bias are kept but not applied as x_hat * weight + bias.

    Why: They are trained, saved and loaded, and do nothing, or something else than in every other implementation.

    Fix: ``return x_hat * weight + bias``, in training and in evaluation, with weight and bias reshaped to broadcast
    over the channel axis.
    """

    code = "affine-ignored"
    core = True
    requires: ClassVar[tuple[str, ...]] = (*BASIC, "wrong-axes", "group-order", "formula-wrong in training")
    after: ClassVar[tuple[str, ...]] = ("output-shape", "not-deterministic")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        modes = MODES if self.met(*self.after) else MODES[:1]
        measured = dict(self.each_mode(lambda training: self._gap(probe, training=training), modes))
        wrong = {mode: gap for mode, gap in measured.items() if gap is not None}
        if wrong:
            mode, (gap, ignored) = next(iter(wrong.items()))
            what = "are not applied" if ignored else "are not applied as x_hat * weight + bias"
            yield self.finding(
                f"weight and bias {what} in {mode}", f"differs from the definition by {number(gap)}", mode=shared(wrong)
            )
        else:
            self.need(*self.after, modes=["evaluation"])

    def _gap(self, probe: Measurements, *, training: bool) -> tuple[float, bool] | None:
        """How far it is from the definition, and whether it ignores weight and bias; None where it is right."""
        if not training and probe.evaluation.statistics == "nothing":
            return None  # it returns its input, which others say
        layer = probe.train(steps=1)
        x = probe.x()
        plain = probe.forward(layer, x, training=training)
        held = layer.read(*AFFINE)
        generator = np.random.default_rng(4)
        values = {role: generator.uniform(0.5, 2.0, value.size) for role, value in held.items()}
        layer = probe.train(steps=1)
        layer.write(**values)
        actual = probe.forward(layer, x, training=training)
        gaps = [
            float(np.abs(actual - wanted).max())
            for factor in self._factors(probe, values.get("weight"))
            if (wanted := probe.scaled(plain, factor, values.get("bias"))) is not None
        ]
        if not gaps:
            raise UnmeasuredError("weight and bias have neither one entry a channel nor the shape of the last axes")
        gap = min(gaps)
        return (gap, float(np.abs(actual - plain).max()) < 1e-6) if gap > 1e-3 else None

    def _factors(self, probe: Measurements, weight: Values | None) -> list[Values | None]:
        """What a weight may multiply by: itself, one plus itself, or its exponential where it is a logarithm."""
        if weight is None:
            return [None]
        return [weight] if probe.unit_weight == 1.0 else [weight + 1, np.exp(weight)]


class AffineSwapped(AffineRule):
    """What is called weight or gamma is added, and what is called bias or beta multiplies.

    Why: Whoever passes the two by name or in the usual order, or loads a checkpoint, gives each one to the other: the
    output is not what was trained.

    Fix: ``return x_hat * weight + bias``.
    """

    code = "affine-swapped"
    core = True

    def check(self, probe: Measurements) -> Iterator[Finding]:
        layer = probe.started()
        paths = {role: slot.path for role, slot in layer.slots().items() if role in AFFINE}
        called = {role: role_of(last_part(path)) for role, path in paths.items()}
        if called.get("bias") != "weight" or called.get("weight") not in (None, "bias"):
            return
        held = layer.read(*AFFINE)
        starts_right = not probe.by_caller and all(np.allclose(held[role], STARTS[role]) for role in held)
        swapped = "weight" in paths
        does = f"{paths['weight']} multiplies" if swapped else "multiplies nothing"
        yield self.finding(
            f"{paths['bias']} is added, and {does}",
            f"another {paths['bias']} moves the output by the same amount whatever the input"
            + (f", another {paths['weight']} scales it" if swapped else ""),
            severity="warning" if starts_right and swapped else "error",
            fix=f"Return x_hat * {paths['bias']} + {paths['weight']}." if swapped else None,
        )


class AffineOffset(AffineRule):
    """The weight is stored as its distance from one: the output is multiplied by 1 + weight.

    Why: Checkpoints of other implementations load without an error and give other results. Gemma's RMSNorm does this
    on purpose.

    Fix: Store the weight itself, starting at ones; or add one when a checkpoint is loaded.
    """

    code = "affine-offset"
    severity = "note"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        if probe.unit_weight == 0.0:
            plain, doubled = (probe.forward(probe.weighted(weight), probe.x()) for weight in (0.0, 1.0))
            is_logarithm = bool(np.abs(doubled - np.e * plain).max() < np.abs(doubled - 2 * plain).max())
            yield self.finding(
                "multiplies by the exponential of the weight" if is_logarithm else "multiplies by 1 + weight",
                "weight starts at 0 and the output is normalized all the same",
            )


class AffineInit(AffineRule):
    """Weight does not start at one, or bias not at zero.

    Why: The output does not start with mean 0 and variance 1; a weight of zeros blocks the gradient.

    Fix: ``torch.ones(num_features)`` for the weight, ``torch.zeros(num_features)`` for the bias.
    """

    code = "affine-init"
    requires: ClassVar[tuple[str, ...]] = ("affine-offset", "affine-swapped")

    def not_applicable(self, probe: Measurements) -> str | None:
        if probe.by_caller:
            return "the caller chooses the initial values"
        if probe.builder.is_instance:
            return "an instance may have been trained"
        return super().not_applicable(probe)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        held = probe.started().read(*AFFINE)
        wrong = []
        for role, start in (("weight", 1.0), ("bias", 0.0)):
            if role in held and not np.allclose(held[role], start):
                wrong.append(
                    f"{role} starts at {interval(held[role].min(), held[role].max())} rather than {number(start)}"
                )
        if wrong and probe.unit_weight == 1.0:
            yield self.finding(wrong[0], "; ".join(wrong))


class AffineShape(AffineRule):
    """Weight or bias has another shape than its torch twin's.

    Why: Checkpoints do not load; if the number of entries differs too, another number of things is learned.

    Fix: One axis of length num_features (normalized_shape for layer and RMS normalization); reshape it for broadcasting
    in the forward pass, not in storage.
    """

    code = "affine-shape"
    edge = True
    requires: ClassVar[tuple[str, ...]] = ("wrong-axes", "group-order")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        if probe.by_caller and (probe.builder.style.parameters == "flat" or probe.rank == 2):
            return  # it takes the shape that it is given
        layer = probe.started()
        held = {role: slot.read() for role, slot in layer.slots().items() if role in ("weight", "bias")}
        expected = probe.geometry.features
        shapes = {role: tuple(getattr(value, "shape", np.shape(value))) for role, value in held.items()}
        wrong = {role: shape for role, shape in shapes.items() if shape != expected}
        if wrong:
            same_size = all(int(np.prod(shape)) == int(np.prod(expected)) for shape in wrong.values())
            listed = ", ".join(f"{role} {shape}" for role, shape in wrong.items())
            by_caller = probe.by_caller
            yield self.finding(
                f"{'expects' if by_caller else 'keeps'} {listed}; {probe.reference_layer} has {expected}",
                f"{listed}; expected {expected}",
                severity="note" if by_caller else "warning" if same_size else "error",
            )


class ParametersNotRegistered(AffineRule):
    """Weight and bias are plain tensors, not parameters of the module.

    Why: ``parameters()`` does not list them, so the optimizer never trains them; ``state_dict`` does not save them, and
    ``.to()`` leaves them behind.

    Fix: ``self.weight = torch.nn.Parameter(torch.ones(num_features))``.
    """

    code = "parameters-not-registered"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY

    def not_applicable(self, probe: Measurements) -> str | None:
        return super().not_applicable(probe) if probe.builder.is_module else "only a torch.nn.Module has parameters"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        layer: Any = probe.started()
        registered = {id(parameter) for parameter in layer.instance.parameters()}
        slots = layer.slots()
        kept = [slots[role] for role in probe.affine if slots[role].owner is not layer.given]
        loose = [slot.path for slot in kept if id(slot.whole()) not in registered]
        if loose:
            listed = ", ".join(name for name, _ in layer.instance.named_parameters()) or "nothing"
            yield self.finding(
                f"{' and '.join(loose)} {'are' if len(loose) > 1 else 'is'} not registered as parameters",
                f"parameters() lists: {listed}",
            )


RULES = (AffineMissing, ParametersNotRegistered, AffineSwapped, AffineOffset, AffineInit, AffineShape, AffineIgnored)
