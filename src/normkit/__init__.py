"""normkit: normalization for PyTorch and NumPy that is right, fast, and tells what is wrong."""

from typing import TYPE_CHECKING, Any

from normkit import functional
from normkit.backends import choose, use_backend
from normkit.errors import UserError
from normkit.layers import *  # noqa: F403
from normkit.layers import __all__ as _layers
from normkit.model import *  # noqa: F403
from normkit.model import __all__ as _model

if TYPE_CHECKING:
    from normkit.checking import check
    from normkit.explaining import explain

__version__ = "0.1.0"

__all__ = ["UserError", "check", "choose", "explain", "functional", "use_backend", *_layers, *_model]  # noqa: PLE0604  (of names)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """``normkit.check`` and ``normkit.explain`` are loaded when they are asked for: most programs do without."""
    if name == "check":
        from normkit.checking import check

        return check
    if name == "explain":
        from normkit.explaining import explain

        return explain
    raise AttributeError(f"module 'normkit' has no attribute {name!r}")
