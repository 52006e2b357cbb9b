"""A generated layer: its source, how its author would use it, and what may be said of it."""

import linecache
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Usage:
    """How the author of a layer uses it, as code: the independent check follows it.

    Every part is run in the namespace of the layer's module, with the arrays ``x``, ``weight`` and ``bias`` in it, and
    ``C``, the number of channels. ``train`` and ``evaluate`` leave the output in ``y``.

    Args:
        setup: Build it, and keep what the caller keeps.
        set_affine: Put ``weight`` and ``bias`` where the layer keeps them; empty where the caller passes them.
        train: Call it in training.
        evaluate: Call it in evaluation.
        backward: After ``train``, leave the gradients for ``dy`` in ``dx``, ``dweight`` and ``dbias``; empty where it
            has no hand-written backward pass.
    """

    setup: str
    set_affine: str
    train: str
    evaluate: str
    backward: str = ""


@dataclass(frozen=True)
class Truth:
    """What a layer computes.

    Args:
        family: batch, layer, group, instance or rms.
        order: The axes of torch's order in the layer's own.
        shape: The input's shape in torch's order.
        eps: Its eps.
        momentum: The weight of the batch in the running statistics.
        unbiased: Whether the running variance is the unbiased one.
        groups: The number of groups.
        trailing: How many trailing axes a layer normalization averages over.
    """

    family: str
    order: tuple[int, ...]
    shape: tuple[int, ...]
    eps: float
    momentum: float = 0.1
    unbiased: bool = True
    groups: int = 1
    trailing: int = 1


@dataclass(frozen=True)
class Written:
    """A layer written in one way.

    Args:
        name: What tests call it.
        source: The code of its module.
        target: The class or function in it that is to be checked.
        library: The library whose arrays it takes.
        axes: Its value of each axis of the matrix.
        usage: How it is used.
        truth: What it computes, were it right.
        families: The families that a report may name.
        allowed: Warnings that are true of it, beside the edge cases.
        fault: The planted fault; empty for a right layer.
    """

    name: str
    source: str
    target: str
    library: str
    axes: Mapping[str, str]
    usage: Usage
    truth: Truth
    families: tuple[str, ...]
    allowed: frozenset[str] = field(default_factory=frozenset)
    fault: str = ""

    @property
    def kind(self) -> str:
        """The family that its author means."""
        return self.families[0]

    @property
    def host(self) -> str:
        """The name of the right layer that its fault is planted into."""
        return self.name.removeprefix(f"{self.fault}-in-")

    @property
    def module_name(self) -> str:
        """The name of its module."""
        return "matrix_" + "".join(letter if letter.isalnum() else "_" for letter in self.name)

    def load(self) -> ModuleType:
        """Execute its source as a module, so that ``inspect`` finds the code and ``pickle`` finds the class."""
        filename = f"{self.module_name}.py"
        module = ModuleType(self.module_name)
        module.__file__ = filename
        sys.modules[self.module_name] = module
        linecache.cache[filename] = (len(self.source), None, self.source.splitlines(keepends=True), filename)
        exec(compile(self.source, filename, "exec"), module.__dict__)
        return module

    def load_target(self) -> Any:
        """Return the class or function that is to be checked."""
        return getattr(self.load(), self.target)
