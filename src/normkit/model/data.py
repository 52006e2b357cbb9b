"""Batches of anybody's data, given to anybody's model."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.errors import UserError

Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on one batch of the data, as ``lambda model, batch: model(batch["image"], batch["mask"])``."""


_COMPILED: Final = "_orig_mod"  # how torch.compile's module, whose class takes seconds to import, names the model


def run_batch(model: nn.Module, batch: Any, forward: Forward | None = None) -> Any:
    """Run a model on one batch of a loader.

    Args:
        model: The model.
        batch: A tensor; a tuple or list, whose first entry is the input, as loaders of (input, label) give it; or a
            mapping, whose entries are the model's keyword arguments. Tensors are moved to the model's device.
        forward: How to call the model instead; it gets the batch as the loader gave it, on the model's device.
    Raises:
        UserError: the batch is none of these, and no forward is given.
    """
    batch = to_device(batch, device_of(model))
    if forward is not None:
        return forward(model, batch)
    if isinstance(batch, Tensor):
        return model(batch)
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
        return model(batch[0])
    if isinstance(batch, Mapping):
        return model(**batch)
    raise UserError(
        f"expected batches that are tensors, tuples that begin with one, or mappings of arguments; got "
        f"{type(batch).__name__}: give `forward`, a function of the model and a batch"
    )


def run_backward(outputs: Any) -> bool:
    """Run the backward pass of what a model returned, from gradients of one; say whether any of it has one."""
    results = [result for result in tensors_in(outputs) if result.requires_grad]
    torch.autograd.backward(results, [torch.ones_like(result) for result in results])
    return bool(results)


def batches_of(data: Iterable[Any], caller: str) -> Iterator[Any]:
    """Yield the batches of a loader; a single tensor is one batch.

    Raises:
        UserError: it cannot be iterated over.
    """
    if isinstance(data, Tensor):
        yield data
        return
    try:
        iterator = iter(data)
    except TypeError:
        raise UserError(
            f"{caller} expected `data` that yields batches, such as a DataLoader or a list of tensors; got "
            f"{type(data).__name__}"
        ) from None
    yield from iterator


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel, DataParallel and torch.compile, whose names it has itself."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        else:
            inner = dict(model.named_children()).get(_COMPILED)
        if inner is None:
            return model
        model = inner


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer; the CPU where it has none."""
    tensors = (*model.parameters(), *model.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


def to_device(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors, at any depth, on a device."""
    return map_tensors(value, lambda tensor: tensor.to(device))


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Return a batch with each of its tensors, at any depth, replaced by what a function makes of it."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(entry, change) for key, entry in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple takes its entries one by one
        return type(value)(*(map_tensors(entry, change) for entry in value))
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(entry, change) for entry in value)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in what a model takes or returns: in mappings, sequences and dataclasses, at any depth."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors_in(entry)
    elif isinstance(value, tuple | list | set | frozenset):
        for entry in value:
            yield from tensors_in(entry)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))
