"""Fold: the norms of a model that is done with training become part of the layers beside them."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.model.classes import require_module
from normkit.model.data import Forward, device_of, unwrapped
from normkit.model.fold.flow import Flow, record
from normkit.model.fold.install import install
from normkit.model.fold.layers import is_linear
from normkit.model.fold.plan import Fold, Plan, fold_weights, plan
from normkit.model.fold.proof import Trial, difference, limit_of, time_in_turns
from normkit.model.fold.report import FoldedNorm, Folding, Gain, Proof
from normkit.model.norms import NormLayer, norm_layers

__all__ = ["fold"]

_INTO: Final = ("previous", "next", "both")


def fold(model: nn.Module, example: Any, norm_into: str = "previous", forward: Forward | None = None) -> Folding:
    """Fold norms into the layers before or behind them, in place, after a proof on an example.

    A batch norm in evaluation mode multiplies each channel and adds to it. The convolution or linear layer before it
    can do that with other weights, and the norm becomes an Identity (of a norm with an activation in it, the activation
    stays). So can the layers behind it, if none pads with zeros. Of a norm that computes statistics of its input, as
    LayerNorm, weight and bias can go into the layers behind it: it stays, with a weight of 1 and a bias of 0.

    Which layer makes what a norm gets, and who else uses it, is seen while a copy of the model runs. What cannot be
    folded is left, with the reason. Before anything is kept, a folded copy must give the same results on the example,
    in float64 and in the model's own dtype. Otherwise, and if anything raises, the model stays what it was.

    Changed weights are new parameters: an optimizer has to be made afterwards.

    Args:
        model: The model, in evaluation mode.
        example: A batch for it: a tensor, a tuple that begins with one, or a mapping of arguments.
        norm_into: "previous", "next", or "both": the layer before if that is possible, else those behind.
        forward: How to call the model with other batches, as ``lambda model, batch: model(*batch)``.
    Returns:
        What became of each norm, the proof, and what was gained. Print it.
    Raises:
        UserError: the model is in training mode, wrapped, lazy or cannot be copied or run in float64; it returns no
            tensor; or the folded copy gave another result: the message names the norm.

    >>> import normkit
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    >>> folding = normkit.fold(model, torch.randn(1, 3, 8, 8))
    >>> [(norm.name, norm.into) for norm in folding.folded], model[1]
    ([('1', ('0',))], Identity())
    """
    _require_foldable(model, norm_into)
    trial = Trial(model, example, forward)
    watched = _watch(trial, norm_into)
    plan = watched.plan
    if not plan.folds:
        return Folding(_norms(watched), None, None)
    weights = fold_weights(watched.model, plan.folds, {})
    float64 = _prove_in_float64(trial, watched)
    before, after = trial.copy(in_float64=False), trial.copy(in_float64=False)
    install(after, plan.folds, weights)
    proof = _prove_as_it_is(trial, before, after, watched, float64)
    gain = _measure(trial, before, after, watched)
    install(model, plan.folds, weights)
    return Folding(_norms(watched), proof, gain)


class _Watched(NamedTuple):
    """A copy of the model in float64, its norms, its results, what it did, and what can be folded."""

    model: nn.Module
    norms: Sequence[NormLayer]
    results: list[Tensor]
    flow: Flow
    plan: Plan


def _require_foldable(model: nn.Module, norm_into: str) -> None:
    """Refuse what cannot be folded as a whole."""
    require_module(model, "fold")
    if norm_into not in _INTO:
        meant = did_you_mean(norm_into, _INTO)
        raise UserError(f"`norm_into` must be previous, next or both; got {norm_into!r}{meant}")
    if any(unwrapped(part) is not part for part in model.modules()):
        raise UserError("fold expected a model that is not wrapped or compiled: fold it first, and wrap it afterwards")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("fold cannot change TorchScript: fold the model before it is scripted")
    training = [name or "the model" for name, module in model.named_modules() if module.training]
    if training:
        raise UserError(f"fold expected a model in evaluation mode; {training[0]} is in training: call model.eval()")
    tensors = [*model.parameters(), *model.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise UserError(f"{type(model).__name__} has lazy layers that have seen no input: run it once first")
    if any(tensor.is_meta for tensor in tensors):
        raise UserError("fold expected weights; this model's are on the meta device: load them first")


def _watch(trial: Trial, norm_into: str) -> _Watched:
    """Run a copy in float64, and find out what can be folded."""
    model = trial.copy(in_float64=True)
    norms = list(norm_layers(model))
    layers = {name: module for name, module in model.named_modules() if is_linear(module)}
    layers |= {norm.name: norm.module for norm in norms}
    reachable = {name: one for name, one in layers.items() if not isinstance(one, torch.jit.ScriptModule)}
    try:
        batch = trial.batch(in_float64=True)
        flow, results = record(reachable, lambda: trial.run(model, batch))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"the model cannot be run on the example in float64, so nothing can be proven: {type(error).__name__}: "
            f"{error}"
        ) from error
    if not results:
        raise UserError("fold found no tensor in what the model returns: give `forward`, which returns one")
    with torch.no_grad():
        return _Watched(model, norms, results, flow, plan(model, trial.model, norms, flow, norm_into))


def _prove_in_float64(trial: Trial, watched: _Watched) -> float:
    """Return the difference of the results in float64; refuse one that rounding does not explain."""

    def error_of(folds: tuple[Fold, ...]) -> float:
        copied = trial.copy(in_float64=True)
        install(copied, folds, fold_weights(watched.model, folds, {}))
        return difference(trial.results(copied, in_float64=True), watched.results)

    limit = limit_of(torch.float64, trial.noise(watched.results) if watched.flow.narrowed_by else 0.0)
    folds = watched.plan.folds
    error, why = _tried(error_of, folds)
    if error <= limit:
        return error
    alone = ((one, _tried(error_of, (one,))) for one in folds)
    culprit, (error, why) = next(((one, got) for one, got in alone if not got[0] <= limit), (None, (error, why)))
    what = "all of them together" if culprit is None else f"{culprit.norm} into {', '.join(culprit.into)}"
    said = why or f"results that differ by {error:.1e} in float64, where at most {limit:.0e} is rounding"
    raise UserError(
        f"nothing was folded: {what} gave {said}. The model uses a value in a way that cannot be seen while it runs"
    )


def _tried(error_of: Any, folds: tuple[Fold, ...]) -> tuple[float, str]:
    """Return the difference that folds make, and what was raised if they make the model fail."""
    try:
        return error_of(folds), ""
    except Exception as error:  # the model's own code, which may need the norm
        return float("inf"), f"{type(error).__name__} ({error})"


def _prove_as_it_is(trial: Trial, before: nn.Module, after: nn.Module, watched: _Watched, in_float64: float) -> Proof:
    """Return the proof with the difference in the model's own dtype; refuse one that rounding does not explain."""
    expected, got = (trial.results(model, in_float64=False) for model in (before, after))
    dtype = next((x.dtype for x in expected if x.is_floating_point()), torch.float32)
    limit = limit_of(dtype, difference(expected, watched.results))
    error = difference(got, expected)
    if not error <= limit:
        raise UserError(
            f"nothing was folded: the results differ by {error:.1e} in {dtype}, where at most {limit:.0e} is rounding "
            f"({in_float64:.0e} in float64): fold the model in a wider dtype"
        )
    return Proof(in_float64, error, str(dtype).removeprefix("torch."))


def _measure(trial: Trial, before: nn.Module, after: nn.Module, watched: _Watched) -> Gain:
    """Time both models, and add up what they store."""

    def run(model: nn.Module) -> Any:
        batch = trial.batch(in_float64=False)
        return lambda: trial.run(model, batch)

    seconds = time_in_turns(run(before), run(after), device_of(before))
    gone = [fold.norm for fold in watched.plan.folds if fold.affine.removes_norm]
    unwritten = sum(
        watched.flow.shapes[watched.flow.calls[name][0].outputs[0]].numel() * _item_size(before.get_submodule(name))
        for name in gone
    )
    return Gain(seconds, (_state_bytes(before), _state_bytes(after)), unwritten)


def _item_size(norm: nn.Module) -> int:
    tensors = (*norm.parameters(), *norm.buffers())
    return next(tensor.element_size() for tensor in tensors if tensor.is_floating_point())


def _state_bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def _norms(watched: _Watched) -> tuple[FoldedNorm, ...]:
    """Return what became of each norm, in the order in which they run."""
    folds = {fold.norm: fold for fold in watched.plan.folds}
    classes = {norm.name: type(norm.module).__name__ for norm in watched.norms}
    order = [name for name in watched.flow.calls if name in classes]
    return tuple(
        FoldedNorm(name, classes[name], folds[name].into, None, is_gone=folds[name].affine.removes_norm)
        if name in folds
        else FoldedNorm(name, classes[name], (), watched.plan.left[name], is_gone=False)
        for name in dict.fromkeys([*order, *classes])
    )
