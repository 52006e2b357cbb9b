"""``normkit check``: treat a normalization layer as a black box, measure what it computes, name what deviates.

``check`` is the way in from Python; ``normkit.testing`` wraps it for test suites; the command line is in
``normkit.cli.check``.
"""

from collections.abc import Mapping
from typing import Any

from normkit.checking.options import Options
from normkit.checking.process import TIMEOUT, check_object, check_target
from normkit.checking.report import Finding, Identity, Report

__all__ = ["Finding", "Identity", "Options", "Report", "check"]


def check(
    obj: Any,
    *,
    family: str | None = None,
    features: int | None = None,
    init: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
    convention: str | None = None,
    method: str | None = None,
    adapter: str | None = None,
    timeout: float = TIMEOUT,
    isolated: bool = True,
) -> Report:
    """Find out what a normalization layer computes, and what about it deviates from its torch.nn twin.

    It runs the layer's code.

    Args:
        obj: A torch.nn.Module class or instance, another class or instance with ``forward`` or ``__call__``, a
            function; or a string ``path/to/file.py:Name`` or ``package.module:Name``.
        family: batch, layer, group, instance or rms; None finds it out.
        features: Number of channels or features to build it with.
        init: Arguments of its constructor, by name.
        call: Arguments of its call, by name; "ones", "zeros", "randn", "mask" and "randint(K)" are made to the
            input's shape, or to other axes, as in "ones(N,L)".
        convention: torch, keras, flax or onnx: whose momentum and running variance apply. None takes torch's, or
            Keras' or Flax's where the code follows theirs.
        method: The method that is the forward pass; None takes forward or __call__, or finds it.
        adapter: ``path/to/file.py:make``, a function that takes the target and returns a callable of x alone.
        timeout: Seconds after which it is stopped.
        isolated: Whether to run it in another process. A string always is; an object is where the platform can fork
            and the object does not work on JAX arrays. ``Report.isolation`` says where it ran.
    Raises:
        UserError: it cannot be built or called, crashes or takes too long; the message says what was tried. The
            ``findings`` of such an error hold what was found before.

    >>> import torch
    >>> report = check(torch.nn.BatchNorm2d)
    >>> report.ok, report.identity.reduces
    (True, 'N, H, W: per channel')
    """
    options = Options(family, features, init or {}, call or {}, convention, None, method, adapter)
    if isinstance(obj, str):
        return check_target(obj, options, timeout)
    return check_object(obj, options, timeout, isolated=isolated)
