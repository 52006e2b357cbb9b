"""Why a model evaluates unlike it trains: what each norm saw, which one makes the gap, and what mends it."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import torch
from torch import nn

from normkit.errors import UserError
from normkit.model.classes import require_module
from normkit.model.data import Forward, batches_of
from normkit.model.diagnose.examination import Examination, Progress
from normkit.model.diagnose.observe import Tracked
from normkit.model.diagnose.report import Diagnosis
from normkit.model.norms import norm_layers, running_stats
from normkit.model.preserve import preserved

__all__ = ["Diagnosis", "diagnose"]


def diagnose(
    model: nn.Module,
    data: Iterable[Any],
    forward: Forward | None = None,
    *,
    batches: int = 24,
    progress: Progress | None = None,
) -> Diagnosis:
    """Say why a model that is good in training is bad in evaluation, and which call mends it.

    Runs batches with the norms in evaluation and in training form, everything else in evaluation. Then it asks of every
    cause how much of the gap is closed without it. The model is left bit for bit as it was.

    Args:
        model: The model. Wrappers for several devices and compiled graphs are looked through.
        data: Batches as training gets them, shuffled: a loader, a list, or a tensor, which is one batch.
        forward: How to call the model with a batch, if a batch is no tensor, tuple or mapping of arguments.
        batches: How many batches to take. They are held in memory.
        progress: Is called after each batch with what is being done.
    Returns:
        The causes, the one that explains most of the gap first. Print it.
    Raises:
        UserError: model is no torch.nn.Module, is TorchScript or has no weights yet; or the data give no batch.

    >>> import normkit
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8))
    >>> data = [torch.randn(64, 3) for _ in range(24)]
    >>> print(normkit.diagnose(model, data).findings[0].code)
    never-updated
    """
    require_module(model, "diagnose")
    if batches < 1:
        raise UserError(f"`batches` must be 1 or more, not {batches}")
    model = _unwrapped(model)
    _refuse(model)
    with preserved(model), torch.no_grad(), torch.compiler.set_stance("force_eager"):
        taken = list(islice(batches_of(data, "diagnose"), batches))
        if not taken:
            raise UserError("diagnose expected `data` that yields batches; it yields none")
        model.eval()
        layers = [Tracked(*layer) for layer in norm_layers(model) if running_stats(layer.module)]
        return Examination(model, layers, taken, forward, progress or (lambda _: None)).diagnosis()


def _refuse(model: nn.Module) -> None:
    """Refuse a model that cannot be run or looked into."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UserError("diagnose cannot look into TorchScript: give the model that it was made of")
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise UserError("diagnose expected a model with weights; some are on the meta device: load them first")


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers: compiled, DistributedDataParallel, DataParallel."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner
