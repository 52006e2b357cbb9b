"""Global state that a target may change: recorded before and compared after."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

_SETTINGS: dict[str, Callable[[], Any]] = {
    "torch's default dtype": lambda: str(torch.get_default_dtype()),
    "torch's grad mode": torch.is_grad_enabled,
    "torch's number of threads": torch.get_num_threads,
    "torch's deterministic mode": torch.are_deterministic_algorithms_enabled,
    "torch's seed": torch.initial_seed,
    "NumPy's error handling": lambda: str(np.geterr()),
}


def snapshot() -> dict[str, Any]:
    """Read the settings as they are now."""
    return {name: read() for name, read in _SETTINGS.items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say what differs, in words."""
    return [f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]]


def generator_states() -> dict[str, str]:
    """Read the states of the global random generators."""
    state = torch.get_rng_state()
    return {
        "NumPy": repr(np.random.get_state()),
        "Python": repr(random.getstate()),
        "torch": repr(state.sum().item()) + repr(state[:64].tolist()),
    }


def seed_torch(seed: int) -> None:
    """Seed torch's generators.

    Where there is no GPU, torch.manual_seed keeps a stack trace for each kind of device, which takes 100 times as long.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def reseeded(action: Callable[[], object]) -> list[str]:
    """Name the generators that ``action`` seeds: from two different states it leaves them in the same one."""
    ends = []
    for seed in (101, 202):
        np.random.seed(seed)
        random.seed(seed)
        seed_torch(seed)
        action()
        ends.append(generator_states())
    return [name for name in ends[0] if ends[0][name] == ends[1][name]]


@contextlib.contextmanager
def no_uninitialised_memory() -> Iterator[None]:
    """Let torch fill the memory that it allocates with NaN, so that what was never set is the same each time."""
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


@contextlib.contextmanager
def preserved_settings() -> Iterator[None]:
    """Put torch's and NumPy's settings back when the block ends."""
    dtype, grad, threads, errors = (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        np.geterr(),
    )
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        np.seterr(**errors)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Put the settings and the global random generators back when the block ends."""
    states = np.random.get_state(), random.getstate(), torch.get_rng_state()
    try:
        with preserved_settings():
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
        torch.set_rng_state(states[2])
