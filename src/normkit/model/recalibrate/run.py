"""recalibrate: its two modes, and how the statistics are written."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from itertools import chain
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.model.classes import base_class, require_module
from normkit.model.data import Forward, batches_of, run_batch, unwrapped
from normkit.model.freeze import is_frozen
from normkit.model.norms import Names, chosen_norms, running_stats
from normkit.model.preserve import preserved, set_mode
from normkit.model.recalibrate.moments import Statistics
from normkit.model.recalibrate.ranks import Ranks
from normkit.model.recalibrate.result import Recalibrated, Recalibration
from normkit.model.recalibrate.watch import Stop, Watch, watch_alone, watch_pooled
from normkit.model.recipes import eps_of
from normkit.model.summary import Skipped

MODES: Final = ("pooled", "sequential")
_MOST_PASSES: Final = 50
"""For a layer that is used several times in a forward pass, whose inputs depend on its own statistics."""
_SETTLED: Final = 1e-6
"""Change of a statistic, in standard deviations and relative to the variance, below which it has settled."""


def recalibrate(
    model: nn.Module,
    data: Iterable[Any],
    mode: str = "pooled",
    *,
    forward: Forward | None = None,
    include: Names = "*",
    exclude: Names = (),
    process_group: Any = None,
) -> Recalibration:
    """Set the running statistics of a model to those of data, as if all of it were one batch.

    In place, and of running_mean, running_var and num_batches_tracked alone. Mean and unbiased variance are taken in
    float64 from the inputs of each layer and merged, so that unequal batches count by their sizes, and the spread
    between batches counts too. If anything fails or is interrupted, the model is what it was.

    "pooled" takes one pass, in which norms are in training mode and all else evaluates. The first layer gets the
    statistics of its inputs; a later one those of the activations that come to it while the layers before normalize by
    their batches, which depend on the batches a little. "sequential" takes a pass for each layer and one more: in
    the order of execution, with the layers before already in evaluation by their new statistics. The result does not
    depend on how the data is cut into batches.

    Args:
        model: The model; DistributedDataParallel and compiled models too.
        data: Batches: a loader, a list, one tensor. "sequential" goes over it several times. To see progress, wrap it,
            as ``tqdm(loader)``.
        mode: "pooled" or "sequential".
        forward: How to run the model on a batch, as ``lambda model, batch: model(batch["image"])``; None: tensors,
            tuples that begin with one, and mappings of arguments are understood.
        include: Patterns of names of layers to recalibrate, as ``"encoder.*"``, or several. The others evaluate.
        exclude: Patterns of names of layers to leave.
        process_group: The ranks whose data are one data set, all of which have to call this; None: all of them, if
            torch.distributed is initialized; False: this process alone.
    Returns:
        What changed for each layer, which were left and why, and the old statistics. Print it.
    Raises:
        UserError: no module, no data, no layer with running statistics, an unknown mode; a pattern that fits no norm;
            "sequential" with an iterator, which can be used up once only.

    >>> import torch, normkit
    >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    >>> data = torch.tensor([[0.0, 2.0], [2.0, 6.0], [4.0, 4.0]])
    >>> _ = normkit.recalibrate(model, data.split(2))
    >>> model[0].running_mean, model[0].running_var
    (tensor([2., 4.]), tensor([4., 4.]))
    """
    require_module(model, "recalibrate")
    if mode not in MODES:
        meant = did_you_mean(mode, MODES)
        raise UserError(f'recalibrate expected `mode` to be "pooled" or "sequential"; got {mode!r}{meant}')
    if mode == "sequential" and isinstance(data, Iterator):
        raise UserError(
            "recalibrate goes over `data` several times in sequential mode; an iterator is used up after the first: "
            "give a loader or a list"
        )
    job = _Job(unwrapped(model), data, forward, Ranks(process_group))
    watches, left = _plan(job.model, include, exclude)
    # nothing is compiled where torch's compiler was never imported, and importing it takes seconds
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with preserved(job.model), torch.no_grad(), eager:
        job.model.eval()
        batches, passes = (_pooled if mode == "pooled" else _sequential)(job, watches)
        results = [watch.result() for watch in watches]
    measured = [(watch, one) for watch, one in zip(watches, results, strict=True) if not isinstance(one, str)]
    left += [
        Skipped(watch.name, base_class(watch.layer).__name__, one)
        for watch, one in zip(watches, results, strict=True)
        if isinstance(one, str)
    ]
    before = {name: buffer.detach().clone() for watch, _ in measured for name, buffer in _buffers(watch).items()}
    layers = tuple(_compared(watch, found) for watch, found in measured)
    _write(measured)
    return Recalibration(mode, batches, passes, layers, tuple(left), before)


class _Job(NamedTuple):
    """What is run on what, and where."""

    model: nn.Module
    data: Iterable[Any]
    forward: Forward | None
    ranks: Ranks


def _plan(model: nn.Module, include: Names, exclude: Names) -> tuple[list[Watch], list[Skipped]]:
    """Return the layers to measure, and those that are left from the start."""
    watches: list[Watch] = []
    left: list[Skipped] = []
    for name, layer, kind in chosen_norms(model, include, exclude):
        stats = running_stats(layer)
        if not stats and kind != "batch":
            continue
        why = _unfit(layer, stats)
        if why is None:
            watches.append(Watch(name, layer, kind))
        else:
            left.append(Skipped(name, base_class(layer).__name__, why))
    if not watches:
        reasons = "; ".join(f"{name or 'the model'}: {reason}" for name, _, reason in left) or "it has none"
        raise UserError(f"recalibrate expected a model with layers that keep running statistics: {reasons}")
    return watches, left


def _unfit(layer: nn.Module, stats: dict[str, Tensor]) -> str | None:
    if not stats:
        return "it keeps no running statistics, and normalizes by each batch"
    if isinstance(layer, torch.jit.ScriptModule):
        return "it is TorchScript, compiled already"
    if is_frozen(layer):
        return "it is frozen: call unfreeze first"
    if any(is_lazy(buffer) for buffer in stats.values()):
        return "it has not seen its first input"
    return "its statistics are on the meta device" if any(buffer.is_meta for buffer in stats.values()) else None


def _pooled(job: _Job, watches: Sequence[Watch]) -> tuple[int, int]:
    """Measure all layers in one pass in training mode; return the number of batches, and of passes."""
    for watch in watches:
        set_mode(watch.layer, training=True)
    with _hooked(watches, watch_pooled):
        return _measure(job, watches), 1


def _sequential(job: _Job, watches: Sequence[Watch]) -> tuple[int, int]:
    """Measure one layer after the other, all in evaluation; return the number of batches, and of passes."""
    order: list[str] = []

    def scout(watch: Watch) -> Callable[..., None]:
        def hook(*_: object) -> None:
            watch.count_use()
            if watch.name not in order:
                order.append(watch.name)

        return hook

    with _hooked(watches, scout):
        batches = _measure(job, watches)
    named = {watch.name: watch for watch in watches}
    passes = 1
    for name in dict.fromkeys(chain.from_iterable(job.ranks.gather(lambda: order))):
        passes += _settle(job, named[name])
    return batches, passes


def _settle(job: _Job, watch: Watch) -> int:
    """Give a layer the statistics of its inputs, until they are those of its inputs; return the number of passes."""
    for count in range(1, _MOST_PASSES + 1):
        watch.forget()
        with _hooked([watch], watch_alone):
            _measure(job, [watch])
        found = watch.result()
        if isinstance(found, str):
            return count
        change = _compared(watch, found)
        _write([(watch, found)])
        ratio = max(abs(ratio - 1) for ratio in change.var_ratio)
        if watch.uses == 1 or max(change.mean_moved, ratio) < _SETTLED:
            return count
    watch.settled = False
    return _MOST_PASSES


def _measure(job: _Job, watches: Sequence[Watch]) -> int:
    """Go over the data once, on all ranks; return the number of batches.

    Raises:
        UserError: there are none.
    """

    def run() -> tuple[int, list[Any]]:
        batches = 0
        for batch in batches_of(job.data, "recalibrate"):
            batches += 1
            for watch in watches:
                watch.begin_forward()
            with suppress(Stop):
                run_batch(job.model, batch, job.forward)
            for watch in watches:
                watch.end_forward()
        return batches, [watch.report() for watch in watches]

    found = job.ranks.gather(run)
    for number, watch in enumerate(watches):
        watch.take([reports[number] for _, reports in found])
    batches = sum(count for count, _ in found)
    if not batches:
        raise UserError("recalibrate got no batch from `data`: nothing was changed")
    return batches


@contextmanager
def _hooked(watches: Sequence[Watch], hook: Callable[[Watch], Callable[..., None]]) -> Iterator[None]:
    """Let a hook see the inputs of each layer in the block, after those of others have changed them."""
    with ExitStack() as stack:
        for watch in watches:
            handle = watch.layer.register_forward_pre_hook(hook(watch), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _buffers(watch: Watch) -> dict[str, Tensor]:
    """Return the buffers of a layer that are written, by their names in the model."""
    buffers: dict[str, Tensor] = running_stats(watch.layer)
    tracked = watch.layer._buffers.get("num_batches_tracked")
    if tracked is not None and watch.kind != "instance":  # which never counts
        buffers["num_batches_tracked"] = tracked
    prefix = f"{watch.name}." if watch.name else ""
    return {f"{prefix}{name}": buffer for name, buffer in buffers.items()}


def _write(measured: Sequence[tuple[Watch, Statistics]]) -> None:
    """Write all statistics, or none."""
    with ExitStack() as undo, torch.no_grad():
        for watch, (mean, var) in measured:
            values = (mean, var, torch.tensor(watch.inputs))
            for buffer, value in zip(_buffers(watch).values(), values, strict=False):
                undo.callback(buffer.copy_, buffer.clone())
                buffer.copy_(value.view(buffer.shape))
        undo.pop_all()


def _compared(watch: Watch, found: Statistics) -> Recalibrated:
    """Return the new statistics of a layer beside the old ones."""
    assert watch.sums is not None
    mean, var = (buffer.detach().double().cpu().flatten() for buffer in running_stats(watch.layer).values())
    eps = eps_of(watch.layer) or 0.0
    ratio = (found.var + eps) / (var + eps)
    ratio[found.var == var] = 1.0  # 0 / 0 without eps
    return Recalibrated(
        name=watch.name,
        cls=base_class(watch.layer).__name__,
        values=int(watch.sums.elements),
        inputs=watch.inputs,
        uses=watch.uses,
        mean_moved=float(((found.mean - mean).abs() / (found.var + eps).sqrt().clamp(min=1e-30)).max()),
        var_ratio=(float(ratio.min()), float(ratio.max())),
        skipped=watch.skipped,
        cut=watch.cut,
        settled=watch.settled,
    )
