"""Somebody's code: load it, build it, call it. Nothing here knows what a normalization computes."""
