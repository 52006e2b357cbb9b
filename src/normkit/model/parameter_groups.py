"""Parameter groups for an optimizer: which parameters weight decay is for, told by what a layer does."""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from torch import nn
from torch.nn import Parameter

from normkit.errors import UserError
from normkit.model.alike import likeness
from normkit.model.classes import require_module
from normkit.model.experiment import adds_one, normalizes
from normkit.model.norms import kind_of
from normkit.model.summary import shorten
from normkit.renderable import Renderable

__all__ = ["ParameterGroups", "Placed", "parameter_groups"]

_ORDER: Final = ("decay", "no decay", "left out")
_PLUS_ONE: Final = "norm that multiplies by 1 + weight"


class Placed(NamedTuple):
    """A parameter and where it went.

    Args:
        name: Its name in the model; a shared one has the first of its names.
        group: "decay", "no decay", or "left out".
        reason: Why.
        axes: How many it has.
        parameter: The parameter itself.
    """

    name: str
    group: str
    reason: str
    axes: int
    parameter: Parameter


@dataclass(frozen=True)
class ParameterGroups(Renderable):
    """The parameters of a model in groups. Give it to an optimizer; print it to see what went where.

    Args:
        weight_decay: That of the group "decay".
        placed: Every parameter once, in the order of ``named_parameters``.
    """

    weight_decay: float
    placed: tuple[Placed, ...]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the groups that hold something, as optimizers take them; ``param_names`` are torch's."""
        for group, decay in (("decay", self.weight_decay), ("no decay", 0.0)):
            found = [one for one in self.placed if one.group == group]
            if found:
                yield {
                    "params": [one.parameter for one in found],
                    "param_names": [one.name for one in found],
                    "weight_decay": decay,
                }

    def names(self, group: str) -> tuple[str, ...]:
        """Return the names of a group: "decay", "no decay" or "left out"."""
        return tuple(one.name for one in self.placed if one.group == group)

    def __str__(self) -> str:
        lines = []
        for group in _ORDER:
            found = [one for one in self.placed if one.group == group]
            if not found:
                continue
            what = f"{group} {self.weight_decay:g}" if group == "decay" else group
            numel = sum(one.parameter.numel() for one in found)
            lines.append(f"{what}: {len(found)} parameters, {numel:,} values")
            reasons: dict[str, list[str]] = defaultdict(list)
            for one in found:
                reasons[one.reason].append(one.name)
            lines += [f"  {len(names)} × {reason}: {shorten(names)}" for reason, names in reasons.items()]
        return "\n".join(lines) or "no parameters"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "weight_decay": self.weight_decay,
            "parameters": [
                {"name": one.name, "group": one.group, "reason": one.reason, "shape": list(one.parameter.shape)}
                for one in self.placed
            ],
        }


def parameter_groups(model: nn.Module, weight_decay: float, *, no_decay: str | Sequence[str] = ()) -> ParameterGroups:
    """Divide the parameters of a model into those that decay and those that do not.

    No decay for the weights and biases of norms, and for every other bias. A norm is known by its class, or by
    experiment: a layer whose result does not change with the scale of its input, and each of whose weights multiplies
    the elements of its own place alone. Neither the name of a parameter nor its number of axes says so.

    Norms that multiply by 1 + weight do decay: it draws their scale to 1, where it would draw that of other norms to 0.

    Args:
        model: Any module.
        weight_decay: For the group that decays.
        no_decay: Patterns of names (``"*.pos_embed"``) that are not to decay either.
    Returns:
        The groups, to be given to an optimizer. Each parameter is in one of them once, shared ones too; those without
        ``requires_grad`` are left out.
    Raises:
        UserError: model is no module, weight_decay is negative, or a pattern fits no parameter.

    >>> import torch, normkit
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    >>> groups = normkit.parameter_groups(model, 0.05)
    >>> print(groups)
    decay 0.05: 1 parameters, 64 values
      1 × 2 axes: 0.weight
    no decay: 3 parameters, 24 values
      1 × bias: 0.bias
      2 × norm (LayerNorm): 1.weight, 1.bias
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
    """
    require_module(model, "parameter_groups")
    if not (math.isfinite(weight_decay) and weight_decay >= 0):
        raise UserError(f"`weight_decay` must be 0 or more, not {weight_decay}")
    patterns = (no_decay,) if isinstance(no_decay, str) else tuple(no_decay)
    uses = _uses(model)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for found in uses.values() for name, _ in found):
            raise UserError(f"`no_decay` fits no parameter: {pattern!r}; the names are those of named_parameters()")
    placed = (_place(parameter, found, patterns) for parameter, found in uses.items())
    return ParameterGroups(weight_decay, tuple(placed))


def _uses(model: nn.Module) -> dict[Parameter, list[tuple[str, str | None]]]:
    """Return every name of each parameter, with the reason why it does not decay there, if there is one."""
    uses: dict[Parameter, list[tuple[str, str | None]]] = {}
    known: dict[Hashable, dict[str, str] | None] = {}
    for prefix, module in model.named_modules():
        path, is_parametrized, tail = prefix.rpartition("parametrizations.")
        owner = model.get_submodule(path.rstrip(".")) if is_parametrized else module
        within = tail.partition(".")[0] if is_parametrized else ""
        own = [(name, parameter) for name, parameter in module._parameters.items() if parameter is not None]
        if not own:
            continue
        alike = likeness(owner), bool(within)
        if alike not in known:
            known[alike] = _norm_reasons(owner, within)
        reasons = known[alike]
        for name, parameter in own:
            of = within or name  # a parametrized tensor is what its parametrization makes
            reason = reasons.get(of, reasons.get("")) if reasons else None
            if reason is None and "bias" in of.lower().split("_"):
                reason = "bias"
            uses.setdefault(parameter, []).append((f"{prefix}.{name}" if prefix else name, reason))
    return uses


def _norm_reasons(module: nn.Module, parametrized: str) -> dict[str, str] | None:
    """Return the reason for each parameter of a norm, under "" that for all others; None: it is no norm."""
    if kind_of(module) is None and (parametrized or not normalizes(module)):
        return None
    return {"": f"norm ({type(module).__name__})", **dict.fromkeys(adds_one(module), _PLUS_ONE)}


def _place(parameter: Parameter, uses: list[tuple[str, str | None]], patterns: tuple[str, ...]) -> Placed:
    name, axes = uses[0][0], parameter.dim()
    pattern = next((one for one in patterns for used, _ in uses if fnmatchcase(used, one)), None)
    reasons = [reason for _, reason in uses if reason is not None]
    reason = min(reasons, key=lambda reason: reason == _PLUS_ONE, default=None)
    if not parameter.requires_grad:
        return Placed(name, "left out", "frozen (requires_grad=False)", axes, parameter)
    if pattern is not None:
        return Placed(name, "no decay", f"named by {pattern!r}", axes, parameter)
    if reason is None or reason == _PLUS_ONE:
        return Placed(name, "decay", reason or f"{axes} {'axis' if axes == 1 else 'axes'}", axes, parameter)
    return Placed(name, "no decay", reason, axes, parameter)
