"""normkit: normalization for PyTorch and NumPy that is right, fast, and tells what is wrong.

What needs torch is imported when it is asked for, so the command line answers at once where it computes nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit import backends, bench, functional, layers, model, reference, spec, statistics, testing, train  # noqa: F401
    from normkit.backends import choose, set_backend, use_backend
    from normkit.checking import check
    from normkit.explaining import explain
    from normkit.layers import (
        BatchNorm1d,
        BatchNorm2d,
        BatchNorm3d,
        BatchNormAct2d,
        GroupNorm,
        InstanceNorm1d,
        InstanceNorm2d,
        InstanceNorm3d,
        LayerNorm,
        LayerNorm2d,
        LazyBatchNorm1d,
        LazyBatchNorm2d,
        LazyBatchNorm3d,
        LazyInstanceNorm1d,
        LazyInstanceNorm2d,
        LazyInstanceNorm3d,
        RMSNorm,
        SyncBatchNorm,
    )
    from normkit.model.accelerate import accelerate, restore, restored
    from normkit.model.convert import Conversion, Converted, Drift, Match
    from normkit.model.convert.convert import convert
    from normkit.model.diagnose import Diagnosis, diagnose
    from normkit.model.fold import Folding
    from normkit.model.fold.fold import fold
    from normkit.model.freeze import freeze, is_frozen, unfreeze
    from normkit.model.parameter_groups import ParameterGroups, parameter_groups
    from normkit.model.port import Ported, PortedLayer, port
    from normkit.model.recalibrate import Recalibrated, Recalibration, recalibrate
    from normkit.model.recipe import Recipe
    from normkit.model.recipes import register_norm
    from normkit.model.running import accumulate_stats, no_stats_update, skip_nonfinite
    from normkit.model.summary import Summary
    from normkit.model.sync import convert_sync_batchnorm, revert_sync_batchnorm
    from normkit.model.warmup import Warmup, warmup

__version__ = "0.1.0"

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct2d",
    "Conversion",
    "Converted",
    "Diagnosis",
    "Drift",
    "Folding",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNorm2d",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "Match",
    "ParameterGroups",
    "Ported",
    "PortedLayer",
    "RMSNorm",
    "Recalibrated",
    "Recalibration",
    "Recipe",
    "Summary",
    "SyncBatchNorm",
    "UserError",
    "Warmup",
    "accelerate",
    "accumulate_stats",
    "check",
    "choose",
    "convert",
    "convert_sync_batchnorm",
    "diagnose",
    "explain",
    "fold",
    "freeze",
    "functional",
    "is_frozen",
    "no_stats_update",
    "parameter_groups",
    "port",
    "recalibrate",
    "register_norm",
    "restore",
    "restored",
    "revert_sync_batchnorm",
    "set_backend",
    "skip_nonfinite",
    "unfreeze",
    "use_backend",
    "warmup",
]

_MODULES: Final = (
    "backends",
    "bench",
    "functional",
    "layers",
    "model",
    "reference",
    "spec",
    "statistics",
    "testing",
    "train",
)
_HOMES: Final = {
    "check": "checking",
    "choose": "backends",
    "explain": "explaining",
    "set_backend": "backends",
    "use_backend": "backends",
}
"""The packages of single names; all others come from layers or model."""


def __dir__() -> list[str]:
    return __all__


def _find(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"normkit.{name}")
    for package in (_HOMES[name],) if name in _HOMES else ("layers", "model") if name in __all__ else ():
        module = import_module(f"normkit.{package}")
        if name in module.__all__:
            return getattr(module, name)
    raise AttributeError(f"module 'normkit' has no attribute {name!r}")


if not TYPE_CHECKING:  # a type checker that saw it would believe every name

    def __getattr__(name: str) -> Any:
        globals()[name] = found = _find(name)
        return found
