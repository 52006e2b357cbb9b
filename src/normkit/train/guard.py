"""Errors of somebody's layer in the middle of a training, told as such."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from normkit.checking.target.errors import RAISED, describe
from normkit.errors import UserError
from normkit.train.activations import PLACES
from normkit.train.memory import is_shortage
from normkit.train.model import LeNet
from normkit.train.own import OwnLayer, check_command, require_shape, shown


class OwnLayerError(UserError):
    """A layer of somebody's own raised while it was trained."""


class Guard:
    """Watches which normalization of a network runs, to say where an error was raised.

    Args:
        own: The layer of somebody's own in it; None: every error is passed on as it is.
        model: The network.
    """

    def __init__(self, own: OwnLayer | None, model: LeNet) -> None:
        self.own = own
        self._inside = ""
        for name in model.adapters:
            norm = model.get_submodule(name)

            def enter(_: nn.Module, inputs: Any, name: str = name) -> None:
                self._inside = name

            def leave(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
                require_shape(output, inputs[0])
                self._inside = ""

            norm.register_forward_pre_hook(enter)
            norm.register_forward_hook(leave)

    @contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn what the layer raises within into an ``OwnLayerError``.

        Args:
            doing: What is being done, as "in step 3".
        """
        self._inside = ""
        try:
            yield
        except RAISED as error:
            if self.own is None or is_shortage(error):
                raise
            raise OwnLayerError(
                f"{shown(self.own.target)} raised {describe(error)}{self._where(error)}, {doing}: "
                f"{check_command(self.own.target)} examines it"
            ) from error

    def _where(self, error: BaseException) -> str:
        if not self._inside:
            is_backward = any(frame.name == "backward" for frame in traceback.extract_tb(error.__traceback__))
            return " in the backward pass" if is_backward else " outside of its forward pass"
        return f" at {self._inside}, after {PLACES[self._inside.removeprefix('norm')]}"
