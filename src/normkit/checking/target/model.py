"""A whole model in the place of a norm: the norms that a module holds, and its other layers."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from normkit.checking.target.names import family_of

_MOST_NAMED = 4


def norms_in(module: Any) -> dict[str, torch.nn.Module]:
    """Return the norms within a module, by path."""
    return {path: part for path, part in _parts(module) if _is_norm(part)}


def other_layers_in(module: Any) -> dict[str, torch.nn.Module]:
    """Return the layers within a module that keep parameters and belong to no norm, by path."""
    return {
        path: part
        for path, part in _parts(module)
        if not _is_norm(part) and any(True for _ in part.parameters(recurse=False))
    }


def describe_model(name: str, norms: Mapping[str, torch.nn.Module], others: Mapping[str, torch.nn.Module]) -> str:
    """Say what a model holds, and how to check one of its norms.

    Args:
        name: The name of the model.
        norms: Its norms, by path.
        others: Its other layers, by path.
    """
    kinds: dict[str, list[str]] = {}
    for path, norm in norms.items():
        kinds.setdefault(_kind(norm), []).append(path)
    held = "; ".join(f"{_listed(paths)} ({kind})" for kind, paths in kinds.items())
    beside = ", ".join(dict.fromkeys(type(part).__name__ for part in others.values()))
    own = [kind for kind in kinds if not kind.startswith("torch.nn.")]
    todo = f"Check {' or '.join(own)} instead of it" if own else "All are torch.nn's own, so there is nothing to check"
    return (
        f"{name} is a model rather than a norm: it computes with {beside} as well. It holds {len(norms)} "
        f"norm{'s' if len(norms) > 1 else ''}: {held}. {todo}; normkit diagnose looks at the norms of a whole model"
    )


def _kind(norm: torch.nn.Module) -> str:
    kind = type(norm)
    return f"torch.nn.{kind.__name__}" if kind.__module__.startswith("torch.nn.") else kind.__name__


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(paths[:_MOST_NAMED]) + more


def _is_norm(part: torch.nn.Module) -> bool:
    return "norm" in type(part).__name__.lower() and family_of(type(part).__name__) is not None


def _parts(module: Any, prefix: str = "") -> Iterator[tuple[str, torch.nn.Module]]:
    """Every module inside of another, by path; a norm as a whole."""
    if not isinstance(module, torch.nn.Module):
        return
    for name, part in module.named_children():
        path = f"{prefix}{name}"
        yield path, part
        if not _is_norm(part):
            yield from _parts(part, f"{path}.")
