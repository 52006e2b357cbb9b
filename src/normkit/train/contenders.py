"""What a run trains: every norm with every implementation that has it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from normkit.checking.families import TITLES
from normkit.errors import UserError
from normkit.train.config import IMPLS, TrainConfig
from normkit.train.model import LeNet, lenet, places, trace
from normkit.train.own import OwnLayer, find, shown
from normkit.train.results import label_of


@dataclass(frozen=True)
class Contender:
    """A norm, and whose layers do it.

    Args:
        norm: One of ``NORMS``.
        layers: ``"normkit"``, ``"torch"`` or a layer of somebody's own.
        impl: A short name of the implementation; empty where the run has one alone.
    """

    norm: str
    layers: str | OwnLayer
    impl: str = ""

    @property
    def own(self) -> OwnLayer | None:
        """The layer of somebody's own; None for those of a package."""
        return None if isinstance(self.layers, str) else self.layers

    @property
    def label(self) -> str:
        """Its name in file names and pictures."""
        return label_of(self.norm, self.impl)

    def network(self, seed: int, image_size: int) -> LeNet:
        """Build its network."""
        return lenet(self.norm, self.layers, seed, image_size=image_size)

    def trace(self, image_size: int) -> list[tuple[str, tuple[int, ...]]]:
        """Return each layer's class and output shape for one image."""
        return trace(self.norm, self.layers, image_size=image_size)


def contenders(config: TrainConfig) -> list[Contender]:
    """Find the own layers of a run, try them, and return all that it trains, in order.

    An own layer is trained in the place of its own family. Without a norm there is one network for all.

    Raises:
        UserError: an own layer cannot be trained, or takes the place of none of the norms.
    """
    owns = [find(target) for target in config.own_layers]
    for own in owns:
        if own.family not in config.norms:
            raise UserError(
                f"{shown(own.target)} is {TITLES[own.family]}, and the norms to train are {', '.join(config.norms)}: "
                f"add `norms={own.family}`"
            )
        for name, shape in places(own.family, config.image_size).items():
            own.try_at(name, shape)
    by_target = {own.target: own for own in owns}
    layers = [by_target.get(impl, impl) for impl in config.impls]
    names = dict(zip(config.impls, short_names(layers), strict=True)) if len(layers) > 1 else {}
    found = []
    for norm in config.norms:
        for impl in config.impls[:1] if norm == "none" else config.impls:
            own_layer = by_target.get(impl)
            if own_layer is None or own_layer.family == norm:
                found.append(Contender(norm, own_layer or impl, "" if norm == "none" else names.get(impl, "")))
    return found


def short_names(layers: Sequence[str | OwnLayer]) -> list[str]:
    """Name each implementation: an own layer by its class, with its file before it where that is needed."""
    names = [layer if isinstance(layer, str) else layer.name for layer in layers]
    taken = Counter(name.lower() for name in names)  # some file systems do not tell BatchNorm from batchnorm
    for index, layer in enumerate(layers):
        if not isinstance(layer, str) and (taken[names[index].lower()] > 1 or names[index].lower() in IMPLS):
            location = layer.target.rpartition(":")[0] or layer.target
            names[index] = f"{Path(location).stem if location.endswith('.py') else location}.{layer.name}"
    seen: Counter[str] = Counter()
    for index, name in enumerate(names):
        seen[name.lower()] += 1
        if seen[name.lower()] > 1:
            names[index] = f"{name}-{seen[name.lower()]}"
    return names
