"""Run a function on several gloo ranks, in processes of their own."""

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn


def run(function: Callable[..., Any], ranks: int, *arguments: Any, timeout: float = 60.0) -> list[Any]:
    """What ``function(rank, *arguments)`` returns on each rank; an exception on any is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_enter, (function, ranks, folder, timeout, arguments), nprocs=ranks)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _enter(
    rank: int, function: Callable[..., Any], ranks: int, folder: str, timeout: float, arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks, timeout=timedelta(seconds=timeout)
    )
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
    finally:
        distributed.destroy_process_group()
