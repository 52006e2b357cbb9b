"""A Lightning callback that diagnoses the norms of a model while it is trained.

Needs Lightning: ``pip install lightning``.
"""

from typing import Any

from lightning.pytorch.callbacks import Callback

from normkit.model.data import Forward
from normkit.model.diagnose import Diagnosis, diagnose

__all__ = ["DiagnoseNorms"]


class DiagnoseNorms(Callback):  # type: ignore[misc]
    """Run ``normkit.diagnose`` on the training batches after some epochs, log the gap and print what is found.

    It logs ``norm_gap``: how far evaluation is from training form, relative to the outputs. The model is not changed.

    Args:
        every_n_epochs: After how many epochs.
        batches: How many batches to look at.
        forward: Runs the module on a batch; None calls it as ``normkit.diagnose`` does.
    Attributes:
        found: The last diagnosis; None before the first.
    """

    def __init__(self, every_n_epochs: int = 1, *, batches: int = 24, forward: Forward | None = None) -> None:
        super().__init__()
        self.every_n_epochs = every_n_epochs
        self.batches = batches
        self.forward = forward
        self.found: Diagnosis | None = None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Diagnose; called by the trainer."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        self.found = diagnose(pl_module, trainer.train_dataloader, self.forward, batches=self.batches)
        pl_module.log("norm_gap", self.found.gap, rank_zero_only=True)
        if not self.found.healthy and trainer.is_global_zero:
            print(self.found)
