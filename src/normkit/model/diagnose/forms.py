"""Run a model with its norms in one form or another: by running, batch, pooled or unpadded statistics.

Nothing but the norms changes from form to form. Whatever a form stores, it stores in copies of the buffers.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from normkit.model.data import Forward, run_batch
from normkit.model.diagnose.observe import Input, Pooled, Tracked, input_of, look
from normkit.model.norms import RUNNING
from normkit.model.preserve import set_mode

BATCH: Final = "batch"
"""A layer runs as in training."""
UNPADDED: Final = "unpadded"
"""A layer normalizes by those positions of the batch that are not padded."""

Choice = str | tuple[Pooled, ...]
"""Statistics of a layer that are not its running ones: ``BATCH``, ``UNPADDED``, or pooled ones, one for each use."""
Watch = Callable[[Tracked, int, Input], None]
"""Is told of each call: the layer, the place among its calls, and what it gets."""

_KEPT: Final = 65536
"""Elements that are kept of each output."""


class Kept(NamedTuple):
    """An output of a model, or equally spaced elements of it: float32, on the CPU.

    Of a single number, as a loss is, nothing is kept: it has no spread to measure by.
    """

    values: Tensor
    shape: tuple[int, ...]


Outputs = list[list[Kept]]
"""Of each batch, each floating-point tensor that the model returned."""


@dataclass
class Runner:
    """Runs the batches.

    Args:
        model: The model, all of it in evaluation mode.
        layers: Its layers that keep running statistics.
        batches: The batches.
        forward: How to call the model, if not with the batch alone.
        progress: Is called after each batch.
        measured_at: The layer whose result is compared; None: the model's own outputs are.
    """

    model: nn.Module
    layers: Sequence[Tracked]
    batches: Sequence[Any]
    forward: Forward | None
    progress: Callable[[], None]
    measured_at: Tracked | None = None

    def run(
        self,
        choices: Mapping[str, Choice] | None = None,
        *,
        watch: Watch | None = None,
        eps: Mapping[str, float] | None = None,
        most: int | None = None,
    ) -> Outputs:
        """Run the batches and return the outputs.

        Args:
            choices: The statistics of layers, by name; the others use their running ones.
            watch: Is told of each call of a layer.
            eps: Another eps of layers, by name.
            most: Run so many batches only.
        """
        outputs: Outputs = []
        uses: Counter[str] = Counter()
        with self._in_form(choices or {}, watch, uses), _other_eps(self.layers, eps or {}):
            for batch in self.batches[:most]:
                uses.clear()
                outputs.append(self._output(batch))
                self.progress()
        return outputs

    def _output(self, batch: Any) -> list[Kept]:
        if self.measured_at is None:
            return list(keep(run_batch(self.model, batch, self.forward)))
        results: list[Kept] = []
        hook = self.measured_at.module.register_forward_hook(lambda _m, _x, y: results.extend(keep(y)))
        try:
            run_batch(self.model, batch, self.forward)
        finally:
            hook.remove()
        return results

    @contextmanager
    def _in_form(self, choices: Mapping[str, Choice], watch: Watch | None, uses: Counter[str]) -> Iterator[None]:
        with ExitStack() as stack:
            for layer in self.layers:
                stack.enter_context(copied_buffers(layer))
                prepare = _prepare(layer, choices.get(layer.name), watch, uses)
                stack.callback(layer.module.register_forward_pre_hook(prepare, with_kwargs=True).remove)
            yield


def keep(value: Any) -> Iterator[Kept]:
    """Yield what is kept of an output."""
    for tensor in tensors_of(value):
        flat = tensor.detach().reshape(-1)
        kept = flat[:: -(-flat.numel() // _KEPT)] if flat.numel() > 1 else flat[:0]
        yield Kept(kept.float().cpu(), tuple(tensor.shape))


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors of an output, at any depth."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping | tuple | list):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_of(entry)


@contextmanager
def copied_buffers(layer: Tracked) -> Iterator[None]:
    """Put copies in the place of a layer's buffers, and its mode back, when the block ends."""
    module, held = layer.module, dict(layer.module._buffers)
    module._buffers.update({name: buffer.clone() for name, buffer in held.items() if buffer is not None})
    try:
        yield
    finally:
        module._buffers.update(held)
        set_mode(module, training=False)


def _prepare(layer: Tracked, choice: Choice | None, watch: Watch | None, uses: Counter[str]) -> Callable[..., None]:
    """Return a hook that gives a layer the statistics of its form before each call."""
    module = layer.module
    stored = [_as_buffers(layer, pooled) for pooled in choice] if isinstance(choice, tuple) else []

    def prepare(_module: nn.Module, args: Any, kwargs: Any) -> None:
        use = uses[layer.name]
        uses[layer.name] += 1
        given = input_of(layer, args, kwargs)
        if watch is not None and given is not None:
            watch(layer, use, given)
        if stored:
            module._buffers.update(stored[min(use, len(stored) - 1)])
        elif choice == UNPADDED and given is not None:
            seen = look(layer, given)
            module._buffers.update(_as_buffers(layer, Pooled(seen.mean_unpadded, seen.var_unpadded)))
        elif choice == BATCH:
            set_mode(module, training=given is not None and (given.x[:, 0].numel() > 1 or layer.kind == "instance"))

    return prepare


def _as_buffers(layer: Tracked, pooled: Pooled) -> dict[str, Tensor]:
    held = {name: layer.module._buffers[name] for name in RUNNING}
    return {
        name: value.to(buffer).reshape(buffer.shape)
        for (name, buffer), value in zip(held.items(), pooled, strict=True)
        if buffer is not None
    }


@contextmanager
def _other_eps(layers: Sequence[Tracked], eps: Mapping[str, float]) -> Iterator[None]:
    held = [(layer.module, layer.module.eps) for layer in layers if layer.name in eps]
    try:
        for layer in layers:
            if layer.name in eps:
                layer.module.eps = eps[layer.name]  # type: ignore[assignment]
        yield
    finally:
        for module, value in held:
            module.eps = value
