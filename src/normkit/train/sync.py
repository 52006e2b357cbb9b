"""One training on several ranks: each takes its share of every batch, and the batch norms see all of it.

The steps are those of one process with the whole batch, to rounding: the loss is a mean over the whole batch, gradients
are summed over the ranks, and every batch norm is a SyncBatchNorm.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from normkit.errors import UserError
from normkit.train.config import IMAGE_SIZE
from normkit.train.data import to_input


def launched_with() -> str:
    """Return the command that starts as many ranks as there are."""
    return f"torchrun --nproc-per-node {os.environ.get('WORLD_SIZE', '2')} -m normkit"


@contextmanager
def join(out: Path | None, resume: Path | None) -> Iterator[tuple[bool, Path | None, Path | None]]:
    """Join the ranks that torchrun started, on the CPU.

    Args:
        out, resume: The run folder, new or to go on with.
    Returns:
        Whether this rank is the first, which prints and writes the run folder, and the two folders for this rank: the
        others write to a temporary one.
    Raises:
        UserError: the process was not started by torchrun.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ):
        raise UserError(
            "`sync` expected several ranks, started by torchrun; start it with: "
            f"{launched_with()} train {f'--resume {resume}' if resume else '--sync'}"
        )
    distributed.init_process_group("gloo")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if distributed.get_rank() == 0:
                distributed.barrier()  # the others have copied what is resumed
                yield True, out, resume
            else:
                copied = Path(scratch) / "run"
                if resume is not None:
                    shutil.copytree(resume, copied)
                distributed.barrier()
                yield (False, None, copied) if resume is not None else (False, copied, None)
    finally:
        distributed.destroy_process_group()


def share(batch: Tensor) -> Tensor:
    """Return this rank's share of a batch."""
    return batch.tensor_split(distributed.get_world_size())[distributed.get_rank()]


def forward_backward(
    model: nn.Module, images: Tensor, labels: Tensor, image_size: int = IMAGE_SIZE
) -> tuple[float, int]:
    """Do :func:`normkit.train.step.forward_backward` on this rank's share of the batch; all ranks get the same."""
    mine, answers = share(images), share(labels)
    model.zero_grad(set_to_none=True)
    outputs = model(to_input(mine, image_size))
    loss = F.cross_entropy(outputs, answers, reduction="sum") / len(images)
    loss.backward()  # type: ignore[no-untyped-call]
    correct = (outputs.argmax(1) == answers).sum()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    shared = torch.cat([loss.detach()[None], correct[None].to(loss.dtype), *(g.flatten() for g in gradients)])
    distributed.all_reduce(shared)
    sums = shared[2:].split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
    for gradient, total in zip(gradients, sums, strict=True):
        gradient.copy_(total.view_as(gradient))
    return shared[0].item(), int(shared[1])
