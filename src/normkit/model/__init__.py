"""Tools for the normalization inside a model."""

from normkit.model.accelerate import accelerate, restore
from normkit.model.handwritten import Recipe, register_norm
from normkit.model.running import accumulate_stats, no_stats_update, skip_nonfinite
from normkit.model.summary import Summary

__all__ = [
    "Recipe",
    "Summary",
    "accelerate",
    "accumulate_stats",
    "no_stats_update",
    "register_norm",
    "restore",
    "skip_nonfinite",
]
