"""Settle how a target is called, what it is for, and which of its arrays are what: by numbers, with names for ties."""

import dataclasses
import inspect
from dataclasses import dataclass

import numpy as np
import torch

from normkit.checking.families import TITLES
from normkit.checking.measure.calls import call
from normkit.checking.measure.fitting import asks_for_columns, choose
from normkit.checking.measure.formula import measure_formula
from normkit.checking.measure.modes import find_mode
from normkit.checking.measure.momentum import with_momentum
from normkit.checking.measure.on_the_way import layers_on_the_way
from normkit.checking.measure.other import (
    describe_axes,
    describe_blend,
    describe_changed,
    describe_response,
    describe_scaling,
    standardizes_its_weights,
)
from normkit.checking.measure.probe import Probe, outer_affine, probe_of
from normkit.checking.measure.roles import Roles, find_roles
from normkit.checking.measure.which import which_result
from normkit.checking.options import Options
from normkit.checking.target.builder import Builder
from normkit.checking.target.callables import name_of
from normkit.checking.target.claim import Claim
from normkit.checking.target.errors import CannotRunError, TargetError
from normkit.checking.target.made import Made
from normkit.checking.target.model import describe_model
from normkit.checking.target.resolve import Candidate, Resolved, accept
from normkit.checking.target.returned import returned_roles
from normkit.checking.target.state import RUNNING

_NOT_BY_NAME = "by its numbers, though its name says layer normalization"


@dataclass(frozen=True)
class Settled:
    """What was found out about a target before it is judged.

    Args:
        resolved: The input ranks that it takes.
        builder: How to build and call it.
        family: The family it is held against; "other" where it is none of them.
        reason: How that was decided.
        claimed: The family that it claims, where its numbers are those of another.
        evaluates: Whether an evaluation mode was found that differs from training.
        computed_affine: Whether other parameters make its weight and bias, as an embedding of labels does.
        open_layout: Whether it is right for (C, N) alone, and nothing tells that this is meant.
        undoes: Whether its further inputs scale and shift each sample and channel, which measurements undo.
    """

    resolved: Resolved
    builder: Builder
    family: str
    reason: str
    claimed: str | None
    evaluates: bool
    computed_affine: bool
    open_layout: bool = False
    undoes: bool = False

    def probe(self) -> Probe:
        """Open a probe for it."""
        probe = Probe(self.resolved, self.builder, self.family)
        probe.undoes = self.undoes
        return probe


def settle(candidates: list[Candidate], options: Options) -> Settled:
    """Choose among the ways to call a target, and find its family, its mode and the roles of its arrays.

    Args:
        candidates: The ways that run, the likeliest first.
        options: What the user fixed.
    """
    _require_activations(candidates[0])
    claim = candidates[0].claim
    candidate, fits = choose(candidates, options)
    _require_one_norm(candidate, fits)
    if not claim.firm and _normalizes_nothing(candidate, fits):
        claim, fits = dataclasses.replace(claim, family=None), None
    family = fits or claim.family or "other"
    reason = claim.reason if claim.family else "by what it averages over"
    builder, evaluates, roles = _completed(candidate, family)
    if family == "other" and {*RUNNING} <= {*(builder.roles or {}).values()}:
        family, reason = "batch", "by its running statistics"
    resolved = _accepted(builder, claim, candidate.rank)
    builder = resolved.builder
    if builder.build(candidate.rank).given:
        builder = dataclasses.replace(builder, returned=returned_roles(builder, resolved.ranks))
        if not evaluates and not builder.mode:  # what it returns may tell the mode
            builder = dataclasses.replace(builder, mode=find_mode(builder, candidate.rank)[0])
    resolved = dataclasses.replace(resolved, builder=builder, rank=candidate.rank)
    settled = Settled(resolved, builder, family, reason, None, evaluates, roles.makes_affine)
    if options.family is None:
        settled = _by_numbers(settled) if fits else _as_other(settled, candidate.rank)
    if fits:
        settled = _with_outer_affine(_with_others(settled, candidate.rank, roles.without))
    _require_inputs(settled, fits=fits is not None)
    if fits and candidate.builder.style.transposed and not asks_for_columns(candidate, candidates, fits):
        settled = dataclasses.replace(settled, open_layout=True)
    return settled


def _with_outer_affine(settled: Settled) -> Settled:
    """Find out whether further inputs scale and shift the output, as labels or a style do."""
    made = [value for _, value in settled.builder.style.stand_ins] + list(settled.builder.call().fixed.values())
    if not (settled.computed_affine or any(isinstance(value, Made) for value in made)):
        return settled
    probe = settled.probe()
    try:
        formula = measure_formula(probe)
        if formula is not None and formula.fits:
            return settled
        outer = outer_affine(probe, settled.builder.geometry.shape(probe.rank))
    except TargetError:
        return settled
    return settled if outer is None else dataclasses.replace(settled, undoes=True, computed_affine=True)


def _as_other(settled: Settled, rank: int) -> Settled:
    """Say what it is where its axes are those of no family, or not those of the one that it claims."""
    other = dataclasses.replace(settled, family="other")
    probe = other.probe()
    try:
        named = describe_blend(probe, rank) or describe_response(probe, rank)
        if named is not None:
            return dataclasses.replace(other, reason=named)
        if settled.family != "other":
            return settled
        return dataclasses.replace(other, reason=describe_scaling(probe, rank) or describe_axes(probe, rank))
    except TargetError:
        return settled


def _with_others(settled: Settled, rank: int, paths: tuple[str, ...]) -> Settled:
    """Say what it is where another value of a further parameter makes it one of no family, as a gate between two."""
    probe = settled.probe()
    for path in paths:
        try:
            changed = describe_changed(probe, rank, path)
        except (TargetError, StopIteration):
            continue
        if changed is not None:
            return dataclasses.replace(settled, family="other", reason=changed)
    return settled


def _require_one_norm(candidate: Candidate, fits: str | None) -> None:
    """Refuse a whole model.

    Args:
        candidate: The way to call the target.
        fits: The family whose axes it has.
    Raises:
        CannotRunError: it holds norms, and what is given to it passes through other layers too.
    """
    probe = probe_of(candidate, fits or "other")
    try:
        norms, others = layers_on_the_way(probe, candidate.rank)
        if norms and others and not (fits and _has_formula(probe)):
            raise CannotRunError(describe_model(name_of(candidate.builder.target), norms, others))
    except TargetError:
        return


def _normalizes_nothing(candidate: Candidate, fits: str | None) -> bool:
    """Whether what has the axes of a family by chance, or an argument for groups, is no normalization at all."""
    probe = probe_of(candidate, fits or candidate.claim.family or "other")
    try:
        return not _has_formula(probe) and describe_scaling(probe, candidate.rank) is not None
    except TargetError:
        return False


def _has_formula(probe: Probe) -> bool:
    formula = measure_formula(probe)
    return formula is not None and formula.fits


def _require_activations(candidate: Candidate) -> None:
    """Refuse what normalizes its own weights rather than its input.

    Raises:
        CannotRunError: it does.
    """
    target = candidate.builder.target
    kind = target if inspect.isclass(target) else type(target)
    if not issubclass(kind, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
        return
    if standardizes_its_weights(probe_of(candidate, "other"), candidate.rank):
        raise CannotRunError(
            f"{name_of(target)} standardizes its weights (weight standardization), not its input: normkit check judges "
            "layers that normalize their input. Pass --adapter FILE.py:make with a function that returns what is to be "
            "judged as a callable of x"
        )


def _require_inputs(settled: Settled, *, fits: bool) -> None:
    """Refuse to judge what further inputs do that had to be guessed.

    Raises:
        CannotRunError: with the guess it is no normalization of its family.
    """
    call = settled.builder.call()
    guessed = [(name, value) for name, value in settled.builder.style.stand_ins if name in call.parameters]
    guessed = [
        (name, value) for name, value in guessed if isinstance(value, Made) and "C" not in (value.axes or ("N",))
    ]
    if not guessed:
        return
    if fits:
        formula = measure_formula(settled.probe())
        if formula is not None and formula.fits:
            return
    names = " and ".join(name for name, _ in guessed)
    shown = " ".join(f"--call {name}={value}" for name, value in guessed)
    raise CannotRunError(
        f"{name_of(settled.builder.target)} needs {names}, and what fits there cannot be guessed: with {shown} it "
        f"runs, but is no {TITLES[settled.family]}. Give {names} yourself (ones, zeros, randn, mask and randint(K) are "
        "made to the input's shape, or to other axes, as in ones(N,L)), or pass --adapter FILE.py:make with a function "
        "that returns a callable of x"
    )


def _accepted(builder: Builder, claim: Claim, rank: int) -> Resolved:
    """Find out which ranks it takes; where (N, C) does not tell the layout, the one in which it takes more."""
    resolved = _in_both_modes(accept(builder, claim), rank)
    if rank > 2 or claim.ranks or builder.style.transposed or builder.style.parameters == "keepdims":
        return resolved
    other = accept(builder.with_geometry(last=not builder.geometry.last), claim)
    return other if len(other.ranks) > len(resolved.ranks) else resolved


def _in_both_modes(resolved: Resolved, first: int) -> Resolved:
    """Take away the ranks for which evaluation fails or gives another shape: it is not made for them."""
    builder, refused = resolved.builder, dict(resolved.refused)
    if _evaluation_of(builder, first) is not None:
        return resolved
    for rank in resolved.ranks:
        wrong = None if rank == first or rank in resolved.claim.ranks else _evaluation_of(builder, rank)
        if wrong is not None:
            refused[rank] = wrong
    ranks = tuple(rank for rank in resolved.ranks if rank not in refused)
    return dataclasses.replace(resolved, ranks=ranks, refused=refused)


def _evaluation_of(builder: Builder, rank: int) -> str | None:
    """What is wrong with the shape of evaluation after a step of training; None where nothing is."""
    layer = builder.build(rank)
    x = np.random.default_rng(rank).normal(size=builder.geometry.shape(rank))
    try:
        call(layer, x)
        shape = call(layer, x, training=False).shape
    except TargetError as error:
        return f"evaluation raises {error.raised}"
    return f"evaluation gives shape {shape}" if len(shape) > rank else None


def _completed(candidate: Candidate, family: str) -> tuple[Builder, bool, Roles]:
    """The builder with its mode and the roles of its arrays; whether it has an evaluation mode of its own."""
    builder = candidate.builder
    builder = dataclasses.replace(builder, result_index=which_result(builder, candidate.rank))
    mode, evaluates = find_mode(builder, candidate.rank)
    builder = dataclasses.replace(builder, mode=mode)
    roles = find_roles(builder, candidate.rank, evaluates=evaluates)
    if not evaluates and not {*RUNNING} & {*roles.by_path.values()}:  # they tell something else then
        mode = tuple(dataclasses.replace(s, evaluation=s.training) if s.kind == "setting" else s for s in mode)
    builder = dataclasses.replace(builder, roles=roles.by_path, mode=mode)
    return with_momentum(builder, candidate.rank), evaluates, roles


def _by_numbers(settled: Settled) -> Settled:
    """Correct the family that a name claims where the numbers are exactly those of another."""
    if settled.family == "group" and settled.resolved.claim.family == "layer":
        return dataclasses.replace(settled, claimed="layer", reason=_NOT_BY_NAME)
    if settled.family != "layer" or settled.resolved.claim.family != "layer":
        return settled
    probe = settled.probe()
    try:
        return _as_group(settled, probe) or _as_rms(settled, probe) or settled
    except TargetError:
        return settled


def _as_group(settled: Settled, probe: Probe) -> Settled | None:
    """Layer normalization of images over C, H, W with a weight for each channel: group normalization of one group."""
    if settled.builder.geometry.last or probe.rank < 3 or probe.as_expected() or "weight" not in probe.affine:
        return None
    builder = settled.builder.with_geometry(groups=1)
    resolved = dataclasses.replace(settled.resolved, builder=builder)
    if not Probe(resolved, builder, "group").as_expected(probe.rank):
        return None
    return dataclasses.replace(
        settled, builder=builder, resolved=resolved, family="group", claimed="layer", reason=_NOT_BY_NAME
    )


def _as_rms(settled: Settled, probe: Probe) -> Settled | None:
    """No bias, and not centred: RMS normalization."""
    if "bias" in probe.affine or not probe.as_expected():
        return None
    formula = measure_formula(probe)
    if formula is None or formula.subtract_mean or not formula.fits:
        return None
    return dataclasses.replace(settled, family="rms", claimed="layer", reason=_NOT_BY_NAME)
