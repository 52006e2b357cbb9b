"""Global state that a target may change: recorded before and compared after."""

import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def _torch(read: Callable[[Any], Any]) -> Callable[[], Any]:
    def read_if_loaded() -> Any:
        torch = sys.modules.get("torch")
        return None if torch is None or not hasattr(torch, "get_rng_state") else read(torch)

    return read_if_loaded


_SETTINGS: dict[str, Callable[[], Any]] = {
    "torch's default dtype": _torch(lambda torch: str(torch.get_default_dtype())),
    "torch's grad mode": _torch(lambda torch: torch.is_grad_enabled()),
    "torch's number of threads": _torch(lambda torch: torch.get_num_threads()),
    "torch's deterministic mode": _torch(lambda torch: torch.are_deterministic_algorithms_enabled()),
    "torch's seed": _torch(lambda torch: torch.initial_seed()),
    "NumPy's error handling": lambda: str(np.geterr()),
}


def snapshot() -> dict[str, Any]:
    """The settings as they are now."""
    return {name: read() for name, read in _SETTINGS.items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What differs, in words."""
    return [f"{name}: {before[name]} became {after[name]}" for name in before if before[name] != after[name]]


def generator_states() -> dict[str, str]:
    """The states of the global random generators."""
    states = {"NumPy": repr(np.random.get_state()), "Python": repr(random.getstate())}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = repr(torch.get_rng_state().sum().item()) + repr(torch.get_rng_state()[:64].tolist())
    return states


def reseeded(action: Callable[[], object]) -> list[str]:
    """The generators that ``action`` seeds: from two different states it leaves them in the same one."""
    ends = []
    for seed in (101, 202):
        np.random.seed(seed)
        random.seed(seed)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)
        action()
        ends.append(generator_states())
    return [name for name in ends[0] if ends[0][name] == ends[1][name]]


class Settings:
    """Puts torch's and NumPy's settings back when the block ends."""

    def __enter__(self) -> None:
        import torch

        self._settings = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), np.geterr()

    def __exit__(self, *error: object) -> None:
        import torch

        dtype, grad, threads, errors = self._settings
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        np.seterr(**errors)


class Preserved(Settings):
    """Puts the global random generators back too."""

    def __enter__(self) -> None:
        import torch

        super().__enter__()
        self._states = np.random.get_state(), random.getstate(), torch.get_rng_state()

    def __exit__(self, *error: object) -> None:
        import torch

        super().__exit__(*error)
        np.random.set_state(self._states[0])
        random.setstate(self._states[1])
        torch.set_rng_state(self._states[2])
