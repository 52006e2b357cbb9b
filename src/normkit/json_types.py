"""JSON that every reader takes: a number that is not finite is null."""

import math
from typing import Any


def finite(tree: Any) -> Any:
    """Return a tree of JSON types with null where a number is not finite."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
