"""normkit: normalization for PyTorch and NumPy that is right, fast, and tells what is wrong."""

from normkit import functional
from normkit.backends import choose, use_backend
from normkit.errors import UserError
from normkit.layers import *  # noqa: F403
from normkit.layers import __all__ as _layers
from normkit.model import *  # noqa: F403
from normkit.model import __all__ as _model

__version__ = "0.1.0"

__all__ = ["UserError", "choose", "functional", "use_backend", *_layers, *_model]
