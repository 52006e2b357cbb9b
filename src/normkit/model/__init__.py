"""Tools for the normalization inside a model."""

from normkit.model.accelerate import accelerate, restore
from normkit.model.handwritten import Recipe, register_norm
from normkit.model.summary import Summary

__all__ = ["Recipe", "Summary", "accelerate", "register_norm", "restore"]
