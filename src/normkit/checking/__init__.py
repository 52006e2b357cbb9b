"""``normkit check``: treat a normalization layer as a black box, measure what it computes, name what deviates.

``check`` is the way in from Python; ``normkit.testing`` wraps it for test suites; the command line is in
``normkit.cli.check``.
"""

from typing import Any, Unpack

from normkit.checking.options import CheckOptions, Options
from normkit.checking.process import TIMEOUT, check_anything
from normkit.checking.report import Finding, Identity, Report

__all__ = ["Finding", "Identity", "Options", "Report", "check"]


def check(
    obj: Any, *, family: str | None = None, convention: str | None = None, **options: Unpack[CheckOptions]
) -> Report:
    """Find out what a normalization layer computes, and what about it deviates from its torch.nn twin.

    It runs the layer's code.

    Args:
        obj: A torch.nn.Module class or instance, another class or instance with a forward pass, a function; or a
            string ``path/to/file.py:Name`` or ``package.module:Name``.
        family: batch, layer, group, instance or rms; None finds it out.
        convention: torch, keras, flax or onnx: whose momentum and running variance apply. None takes torch's, or
            Keras' or Flax's where the code follows theirs.
        options: More keyword arguments:

            - features: Number of channels or features to build it with; None finds it out.
            - init: Arguments of its constructor, by name.
            - call: Arguments of its call, by name; "ones", "zeros", "randn", "mask" and "randint(K)" are made to the
              input's shape, or to other axes, as in "ones(N,L)".
            - method: The method that is the forward pass; None takes forward or __call__, or finds it.
            - adapter: ``path/to/file.py:make``, a function that takes the layer and returns a callable of x alone.
            - timeout: Seconds after which it is stopped, 60 by default.
            - isolated: Whether to run it in another process, True by default. A string always is; an object is where
              the platform can fork and the object does not work on JAX arrays. ``Report.isolation`` says where it ran.
    Raises:
        TypeError: a keyword argument is none of these.
        UserError: it cannot be built or called, crashes or takes too long; the message says what was tried. The
            ``findings`` of such an error hold what was found before.

    >>> import torch
    >>> report = check(torch.nn.BatchNorm2d)
    >>> report.ok, report.identity.reduces
    (True, 'N, H, W: per channel')
    """
    unknown = sorted(options.keys() - CheckOptions.__optional_keys__)
    if unknown:
        takes = ", ".join(["family", "convention", *CheckOptions.__annotations__])
        raise TypeError(f"check() got an unexpected keyword argument {unknown[0]!r}: it takes {takes}")
    chosen = Options.of(options, family, convention)
    return check_anything(obj, chosen, options.get("timeout", TIMEOUT), isolated=options.get("isolated", True))
