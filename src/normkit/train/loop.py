"""The training of one contender, an epoch at a time, and its state between epochs."""

from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from normkit.model import convert_sync_batchnorm
from normkit.train import sync
from normkit.train.activations import histograms, watch
from normkit.train.config import TrainConfig
from normkit.train.contenders import Contender
from normkit.train.data import Dataset, epoch_batches
from normkit.train.guard import Guard
from normkit.train.model import LeNet, lenet
from normkit.train.own import check_command, shown
from normkit.train.progress import Progress, Step
from normkit.train.results import Activation, EpochMetrics, NormResult, StepDifference, restored
from normkit.train.states import attached, lacks_affine, lost, read_norms
from normkit.train.step import evaluate, forward_backward, test_batch
from normkit.train.verify import Lockstep


class Training:
    """One contender's network, optimizer and records.

    Nothing random happens in a step, and the order of the images follows from seed and epoch, so the state after an
    epoch decides all later numbers.

    Args:
        config: The run's options.
        contender: What is trained.
        dataset: The images.
    """

    def __init__(self, config: TrainConfig, contender: Contender, dataset: Dataset) -> None:
        self.config = config
        self.contender = contender
        self.dataset = dataset
        self.model = contender.network(config.seed, config.image_size)
        self.guard = Guard(contender.own, self.model)
        if config.sync:
            convert_sync_batchnorm(self.model)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=config.lr_of(contender.norm))
        self.result = NormResult(
            contender.norm,
            parameters=sum(weight.numel() for weight in self.model.parameters()),
            impl=contender.impl,
            target=contender.own.target if contender.own else "",
            without_affine=lacks_affine(self.model) if contender.own else [],
        )
        self.lockstep = self._lockstep() if self._is_compared else None
        self._is_warm = False

    @property
    def _is_compared(self) -> bool:
        """Whether torch.nn's layers are trained along; without a normalization there is nothing to compare."""
        asked = self.config.verify and self.contender.layers != "torch"
        return self.contender.own is not None or (asked and self.contender.norm != "none")

    def _lockstep(self) -> Lockstep:
        config = self.config
        one, other = (lenet(self.contender.norm, "torch", config.seed, image_size=config.image_size) for _ in range(2))
        lockstep = Lockstep(self.model, (one, other), config.lr_of(self.contender.norm), config.image_size)
        if config.sync:
            lockstep.share = sync.share
        return lockstep

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
                with self.guard.explained(f"in step {step}"):
                    loss, right = self._step(images, labels)
                seconds = perf_counter() - start
            if self.lockstep:
                found = self.lockstep.after_step(loss)
                differences.append(StepDifference(norm=result.norm, impl=result.impl, epoch=epoch, step=step, **found))
            if is_first:
                early = histograms(activations, epoch, step)
            if is_last:
                late = histograms(activations, epoch, step)
            seen += len(batch)
            speed.add(len(batch), seconds, is_steady=self._is_warm)
            loss_sum += loss * len(batch)
            correct += right
            average = loss_sum / seen, correct / seen, speed.images_per_second
            if not self._is_warm:
                self._tell_of_graphs(progress)
            self._is_warm = True
            progress.step(Step(result.norm, result.impl, epoch, self.config.epochs, *average))
        test_loss, test_accuracy = self._test(epoch)
        if self.lockstep:
            evaluation = self.lockstep.after_evaluation(dataset.test_images[: test_batch(self.config.image_size)])
            differences[-1] = replace(differences[-1], **evaluation)
            result.twin_test_accuracy = self._evaluate(self.lockstep.free)[1]
        result.early, result.late = early, late
        result.differences += differences
        result.epochs.append(
            EpochMetrics(
                norm=result.norm,
                impl=result.impl,
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
        loss, correct = step(self.model, images, labels, self.config.image_size)
        self.optimizer.step()
        return loss, correct

    def _tell_of_graphs(self, progress: Progress) -> None:
        own, kept = self.contender.own, attached(self.model)
        if own and kept:
            progress.note(
                f"{shown(own.target)} keeps the autograd graph of every step in its {' and '.join(kept)}, so memory "
                f"grows with each: {check_command(own.target)} says more"
            )

    def _test(self, epoch: int) -> tuple[float, float]:
        if self.lockstep:
            self.lockstep.before_evaluation()
        with self.guard.explained(f"in the evaluation after epoch {epoch}"):
            return self._evaluate(self.model)

    def _evaluate(self, model: LeNet) -> tuple[float, float]:
        return evaluate(model, self.dataset.test_images, self.dataset.test_labels, self.config.image_size)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that later epochs and the report depend on, in types that load with ``weights_only``.

        What somebody's own layers keep stands beside the state dict too, by role: some do not save it.
        """
        return {
            "model": self.model.state_dict(),
            "own_norms": read_norms(self.model) if self.contender.own else {},
            "optimizer": self.optimizer.state_dict(),
            "lockstep": self.lockstep.state_dict() if self.lockstep else None,
            "result": asdict(self.result),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that ``state_dict`` returned, as far as the layers save theirs."""
        with self.guard.explained("when its checkpoint was loaded"):
            self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.lockstep:
            self.lockstep.load_state_dict(state["lockstep"])
        saved = dict(state["result"])
        for name, record in _RECORDS.items():
            saved[name] = [restored(record, fields) for fields in saved[name]]
        self.result = NormResult(**saved)
        self.result.lost_on_save = lost(state["own_norms"], self.model) or self.result.lost_on_save


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
