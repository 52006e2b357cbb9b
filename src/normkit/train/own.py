"""Somebody's own layer: found as ``normkit check`` finds it, and built for the places of the LeNet."""

import os
import shlex
from dataclasses import dataclass, replace
from hashlib import sha256
from inspect import getsourcefile
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.checking.families import TITLES
from normkit.checking.measure.calls import running
from normkit.checking.measure.lab import measure
from normkit.checking.options import Options
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.builder import Builder
from normkit.checking.target.callables import kind_of, libraries_of, name_of
from normkit.checking.target.errors import CannotRunError, TargetError
from normkit.checking.target.global_state import preserved
from normkit.checking.target.load import ImportEffects, load
from normkit.checking.target.modes import Switch
from normkit.checking.target.resolve import resolve
from normkit.checking.target.shared import SharedState
from normkit.errors import UserError
from normkit.train.config import GROUPS, NORMS
from normkit.train.form import Form, form_for

_BY_TRAIN_AND_EVAL: Final = (Switch("method", "train", ("train",), ("eval",)),)
"""The mode of a module that train() and eval() switch, or the grad mode."""
_ARRAYS: Final = {"numpy": "NumPy arrays", "jax": "JAX arrays", "torch": "torch tensors"}
_TRIED: Final = 4
"""Images that a layer is tried on before the training."""


def shown(target: str) -> str:
    """Return a target as one types it: a file in or below the working directory by its relative path."""
    location, colon, name = target.rpartition(":")
    if not colon:
        location, name = target, ""
    if Path(location).is_absolute() and Path(location).is_relative_to(Path.cwd()):
        location = os.path.relpath(location)
    return f"{location}{colon}{name}"


def check_command(target: str) -> str:
    """Return the command that says what is wrong with a target."""
    return f"normkit check {shlex.quote(shown(target))}"


@dataclass(frozen=True)
class OwnLayer:
    """A class of somebody's own that can be built.

    Args:
        target: ``path/to/file.py:Name`` or ``package.module:Name``.
        name: The name of the class.
        family: The norm of the LeNet whose place it takes.
        builder: How to build and call it.
        ranks: The input ranks that it takes.
        fingerprint: SHA-256 of the file that defines it.
    """

    target: str
    name: str
    family: str
    builder: Builder
    ranks: tuple[int, ...]
    fingerprint: str

    def build(self, shape: tuple[int, ...]) -> tuple[nn.Module, Adapter]:
        """Build it for an activation; return what goes into the network, and what reads the layer's arrays.

        Args:
            shape: Of one image's activation: (C, H, W) or (C,).
        Raises:
            UserError: it takes no such activation, or cannot be built.
        """
        form = self._form(shape)
        features = torch.Size(shape).numel() if form.as_row else shape[0]
        builder = self.builder.with_geometry(features=(features,), groups=GROUPS)
        try:
            with preserved():  # what its constructor draws is not to change the weights of the network
                adapter = builder.build(form.rank)
        except (TargetError, TypeError) as error:
            raise UserError(f"cannot build {shown(self.target)} for {features} features: {error}") from error
        module = adapter.instance
        if form.changes(len(shape) + 1) or not self._is_plain(adapter):
            module = Adapted(adapter, form)
        return module, adapter

    def _form(self, shape: tuple[int, ...]) -> Form:
        form = form_for(self.family, self.ranks, len(shape) + 1, last=self.builder.geometry.last)
        if form is None:
            ranks = " or ".join(map(str, self.ranks))
            raise UserError(
                f"{shown(self.target)} takes inputs of rank {ranks}, and the LeNet gives it rank {len(shape) + 1}: "
                "let its forward take (N, C, H, W) and (N, C)"
            )
        return form

    def _is_plain(self, adapter: Adapter) -> bool:
        """Whether the module is called with x alone, returns the output, and is switched as torch's are."""
        style = self.builder.style
        takes_more = adapter.given or adapter.settings is not None or adapter.call.unfilled(adapter.arguments)
        is_usual = style.method is None and not style.transposed and not takes_more and not adapter.call.fixed
        return bool(is_usual and adapter.mode == _BY_TRAIN_AND_EVAL and self.builder.result_index is None)

    def try_at(self, name: str, shape: tuple[int, ...]) -> None:
        """Build it for one place of the network and run it in training and in evaluation, so that faults show early.

        Raises:
            UserError: it cannot be built, raises, or returns something else than a tensor of its input's shape.
        """
        module, _ = self.build(shape)
        x = torch.randn(_TRIED, *shape, generator=torch.Generator().manual_seed(0))
        for training in (True, False):
            module.train(training)
            doing = f"calling it on shape {tuple(x.shape)}{'' if training else ' in evaluation'}"
            try:
                with preserved(), running(doing), torch.set_grad_enabled(training):
                    require_shape(module(x), x)
            except TargetError as error:
                raise UserError(
                    f"{shown(self.target)} cannot be trained at {name}: {error}. {check_command(self.target)} says more"
                ) from error


class Adapted(nn.Module):
    """A layer of somebody's own behind what calls it: in its own form, with its mode as it wants to be told.

    Args:
        adapter: The layer.
        form: The form in which it takes an activation.
    """

    def __init__(self, adapter: Adapter, form: Form) -> None:
        super().__init__()
        self.layer = adapter.instance
        self.adapter = adapter
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        """Call the layer."""
        given = self.form.given(x)
        y = self.adapter.run(given, training=self.training, grad=torch.is_grad_enabled())
        return self.form.back(require_shape(y, given), x)


def require_shape(y: Any, x: Tensor) -> Tensor:
    """Return an output; raise ``TypeError`` if it is no tensor of the input's shape."""
    if not isinstance(y, Tensor):
        raise TypeError(f"it returned {type(y).__name__}, not a tensor")
    if y.shape != x.shape:
        raise TypeError(f"it returned shape {tuple(y.shape)} for an input of shape {tuple(x.shape)}")
    return y


def find(target: str) -> OwnLayer:
    """Find out how to build a layer, and which norm it is.

    Raises:
        UserError: it is no layer that can be trained in the LeNet.
    """
    with preserved():
        definition = load(shown(target))
        _require_module_class(target, definition)
        try:
            found = measure(resolve(definition, Options()), Options(), ImportEffects())
            family, builder, ranks = found.family, found.builder, found.resolved.ranks
        except CannotRunError as error:
            reason, _, _ = str(error).partition("\nWhat would help")
            raise UserError(
                f"{shown(target)} cannot be built for the LeNet: {reason}\n"
                f"Give its arguments names that tell their meaning, or defaults; {check_command(target)} says more"
            ) from error
        except TargetError as error:
            raise UserError(f"{shown(target)} cannot be run: {error}. {check_command(target)} says more") from error
    _require_place(target, family, found.family_reason, builder)
    source = getsourcefile(definition)
    return OwnLayer(
        target=target,
        name=name_of(definition),
        family=family,
        builder=_sharing(builder),
        ranks=ranks,
        fingerprint=sha256(Path(source).read_bytes() if source else b"").hexdigest(),
    )


def _sharing(builder: Builder) -> Builder:
    """Let the layers of a network share what is kept in their class, as they do without normkit."""
    return replace(builder, shared=SharedState(None))


def _require_module_class(target: str, definition: Any) -> None:
    kind, name = kind_of(definition), shown(target)
    if kind == "module class":
        return
    library = libraries_of(definition)[0].name
    what = {
        "module": "an instance, built for one number of features",
        "function": "a function, which keeps no weights for the optimizer",
    }.get(kind, f"a class that works on {_ARRAYS[library]}, and is no torch.nn.Module")
    help_ = {
        "module": "name its class",
        "function": "name a torch.nn.Module that keeps its arrays (nn.Parameter, register_buffer) and calls it",
    }.get(kind, "write it as a torch.nn.Module (nn.Parameter for weight and bias, register_buffer for statistics)")
    raise UserError(
        f"`impls={name}` is {what}: the LeNet is trained by torch's autograd and needs a class of torch.nn.Module. "
        f"To train it, {help_}. {check_command(target)} judges it as it is"
    )


def _require_place(target: str, family: str, reason: str, builder: Builder) -> None:
    name = shown(target)
    if family not in NORMS:
        is_what = f"{TITLES[family]} ({reason})" if family == "other" else TITLES[family]
        raise UserError(
            f"{name} is {is_what}, which has no place in the LeNet: name a batch, layer, group or instance "
            f"normalization. {check_command(target)} says what it computes"
        )
    if family == "group" and builder.geometry.groups != GROUPS:
        raise UserError(
            f"{name} normalizes all channels of a sample together, with a weight for each, as GroupNorm(1, C) does: "
            f"the LeNet's group norms have {GROUPS} groups. Give it an argument num_groups"
        )
    if family == "layer" and not builder.geometry.last:
        raise UserError(
            f"{name} normalizes over the channels at each position, and the LeNet's layer norm over all of a sample: "
            "name a layer normalization over the last axes"
        )
