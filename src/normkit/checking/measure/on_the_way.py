"""Find the layers inside of a target that its input passes through."""

import numpy as np
import torch

from normkit.checking.measure.probe import Probe
from normkit.checking.patterns import Values
from normkit.checking.target.model import norms_in, other_layers_in

Parts = dict[str, torch.nn.Module]


def layers_on_the_way(probe: Probe, rank: int) -> tuple[Parts, Parts]:
    """Return the norms within a module, and the other layers that get what depends on its input, by path.

    What gets further inputs alone, as an embedding of labels does, is a part of a norm.

    Args:
        probe: The target.
        rank: The rank of its input.
    """
    layer = probe.builder.build(rank)
    norms, others = norms_in(layer.instance), other_layers_in(layer.instance)
    if not norms or not others:
        return norms, {}
    seen: dict[str, list[Values]] = {path: [] for path in others}

    def watch(path: str) -> None:
        def note(module: torch.nn.Module, given: tuple[object, ...]) -> None:
            seen[path] += [value.detach().double().numpy() for value in given if isinstance(value, torch.Tensor)][:1]

        others[path].register_forward_pre_hook(note)

    for path in others:
        watch(path)
    for seed in (0, 1):
        probe.forward(layer, probe.x(rank, seed=seed))
    return norms, {path: part for path, part in others.items() if _differs(seen[path])}


def _differs(inputs: list[Values]) -> bool:
    return len(inputs) > 1 and not (inputs[0].shape == inputs[-1].shape and np.array_equal(inputs[0], inputs[-1]))
