"""The training of one norm, an epoch at a time, and its state between epochs."""

from dataclasses import asdict
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from normkit.model import convert_sync_batchnorm
from normkit.train import sync
from normkit.train.activations import histograms, watch
from normkit.train.config import TrainConfig
from normkit.train.data import Dataset, epoch_batches
from normkit.train.model import lenet
from normkit.train.progress import Progress, Step
from normkit.train.results import Activation, EpochMetrics, NormResult, StepDifference
from normkit.train.step import evaluate, forward_backward
from normkit.train.verify import Lockstep


class Training:
    """One norm's network, optimizer and records.

    Nothing random happens in a step, and the order of the images follows from seed and epoch, so the state after an
    epoch decides all later numbers.

    Args:
        config: The run's options.
        norm: Which of its norms this is.
        dataset: The images.
    """

    def __init__(self, config: TrainConfig, norm: str, dataset: Dataset) -> None:
        self.config = config
        self.dataset = dataset
        self.model = lenet(norm, config.impl, config.seed)
        if config.sync:
            convert_sync_batchnorm(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.lr)
        self.result = NormResult(norm, parameters=sum(weight.numel() for weight in self.model.parameters()))
        self.lockstep: Lockstep | None = None
        self._is_warm = False
        if config.verify and norm != "none":  # without a normalization there is nothing to compare
            twins = lenet(norm, "torch", config.seed), lenet(norm, "torch", config.seed)
            self.lockstep = Lockstep(self.model, twins, config.lr)

    @property
    def epochs_done(self) -> int:
        """Epochs whose numbers are in ``result``."""
        return len(self.result.epochs)

    def batches(self, epoch: int) -> list[Tensor]:
        """Return the indices of each batch of an epoch."""
        return epoch_batches(len(self.dataset.train_labels), self.config.batch_size, self.config.seed, epoch)

    def run_epoch(self, progress: Progress) -> None:
        """Train one more epoch, then test."""
        result, dataset, epoch = self.result, self.dataset, self.epochs_done + 1
        batches = self.batches(epoch)
        loss_sum, correct, seen = 0.0, 0, 0
        speed = _Speed()
        early, late = result.early, result.late
        differences: list[StepDifference] = []
        for number, batch in enumerate(batches):
            step = (epoch - 1) * len(batches) + number + 1
            images, labels = dataset.train_images[batch], dataset.train_labels[batch]
            if self.lockstep:
                self.lockstep.before_step(images, labels)
            is_first, is_last = step == 1, number == len(batches) - 1
            with watch(self.model, active=is_first or is_last) as activations:
                start = perf_counter()
                loss, right = self._step(images, labels)
                seconds = perf_counter() - start
            if self.lockstep:
                differences.append(self.lockstep.after_step(result.norm, epoch, step, loss))
            if is_first:
                early = histograms(activations, epoch, step)
            if is_last:
                late = histograms(activations, epoch, step)
            seen += len(batch)
            speed.add(len(batch), seconds, is_steady=self._is_warm)
            self._is_warm = True
            loss_sum += loss * len(batch)
            correct += right
            progress.step(
                Step(result.norm, epoch, self.config.epochs, loss_sum / seen, correct / seen, speed.images_per_second)
            )
        test_loss, test_accuracy = evaluate(self.model, dataset.test_images, dataset.test_labels)
        if self.lockstep:
            result.twin_test_accuracy = evaluate(self.lockstep.free, dataset.test_images, dataset.test_labels)[1]
        result.early, result.late = early, late
        result.differences += differences
        result.epochs.append(
            EpochMetrics(
                norm=result.norm,
                epoch=epoch,
                train_loss=loss_sum / seen,
                train_accuracy=correct / seen,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
                seconds=seen / speed.images_per_second,
                images_per_second=speed.images_per_second,
            )
        )

    def _step(self, images: Tensor, labels: Tensor) -> tuple[float, int]:
        step = sync.forward_backward if self.config.sync else forward_backward
        loss, correct = step(self.model, images, labels)
        self.optimizer.step()
        return loss, correct

    def state_dict(self) -> dict[str, Any]:
        """Return the state that later epochs and the report depend on, in types that load with ``weights_only``."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lockstep": self.lockstep.state_dict() if self.lockstep else None,
            "result": asdict(self.result),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that ``state_dict`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lockstep:
            self.lockstep.load_state_dict(state["lockstep"])
        saved = dict(state["result"])
        for name, record in _RECORDS.items():
            saved[name] = [record(**fields) for fields in saved[name]]
        self.result = NormResult(**saved)


class _Speed:
    """Images a second over the steps of an epoch, without the first step of a process, which loads and compiles."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None
        self._images, self._seconds = 0, 0.0

    def add(self, images: int, seconds: float, *, is_steady: bool) -> None:
        """Count a step."""
        if is_steady:
            self._images += images
            self._seconds += seconds
        else:
            self._first = images, seconds

    @property
    def images_per_second(self) -> float:
        """The speed of the later steps; of the first one while there is no other."""
        images, seconds = (self._images, self._seconds) if self._images or self._first is None else self._first
        return images / seconds


_RECORDS: dict[str, type[EpochMetrics] | type[Activation] | type[StepDifference]] = {
    "epochs": EpochMetrics,
    "early": Activation,
    "late": Activation,
    "differences": StepDifference,
}
