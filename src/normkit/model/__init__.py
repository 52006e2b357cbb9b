"""Tools for the normalization inside a model."""

from normkit.model.accelerate import accelerate, restore, restored
from normkit.model.convert import Conversion, Converted, Drift, Match, convert
from normkit.model.diagnose import Diagnosis, diagnose
from normkit.model.fold import Folding, fold
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

__all__ = [
    "Conversion",
    "Converted",
    "Diagnosis",
    "Drift",
    "Folding",
    "Match",
    "ParameterGroups",
    "Ported",
    "PortedLayer",
    "Recalibrated",
    "Recalibration",
    "Recipe",
    "Summary",
    "Warmup",
    "accelerate",
    "accumulate_stats",
    "convert",
    "convert_sync_batchnorm",
    "diagnose",
    "fold",
    "freeze",
    "is_frozen",
    "no_stats_update",
    "parameter_groups",
    "port",
    "recalibrate",
    "register_norm",
    "restore",
    "restored",
    "revert_sync_batchnorm",
    "skip_nonfinite",
    "unfreeze",
    "warmup",
]
