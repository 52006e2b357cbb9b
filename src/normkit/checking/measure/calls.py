"""Call a layer in an experiment: quietly, with its exceptions marked as its own and settings put back."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from normkit.checking.patterns import Values
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.errors import RAISED, TargetError
from normkit.checking.target.global_state import preserved_settings


@contextmanager
def running(doing: str) -> Iterator[None]:
    """Quiet the target's warnings and mark its exceptions as its own."""
    try:
        with preserved_settings(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except TargetError:
        raise
    except RAISED as error:
        raise TargetError(error, doing) from error


def doing(shape: tuple[int, ...], *, training: bool) -> str:
    """Say what a call does, for its exceptions."""
    return f"calling it on shape {shape}{'' if training else ' in evaluation'}"


def call(layer: Adapter, x: Values, *, training: bool = True, grad: bool | None = None) -> Values:
    """Call a layer on float64 values."""
    with running(doing(x.shape, training=training)):
        return layer.forward(x, training=training, grad=grad)
