"""What a run is asked to do: every option, its default and its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch

from normkit.errors import UserError
from normkit.threads import check_threads

NORMS: Final = ("batch", "layer", "group", "instance", "none")
IMPLS: Final = ("normkit", "torch")
DIGITS: Final = "digits"
FASHION: Final = "fashion-mnist"

# The published experiment's values, for a training set of 60,000 images.
PUBLISHED_EPOCHS: Final = 10
PUBLISHED_BATCH_SIZE: Final = 256
PUBLISHED_LR: Final = 1.0
# With 1,442 digits ten epochs of 256 are 60 steps; 20 epochs of 64 are 460, enough to see a norm at work.
DIGITS_EPOCHS: Final = 20
DIGITS_BATCH_SIZE: Final = 64

MAX_SEED: Final = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete and valid set of options; ``create`` makes one.

    Nothing in it depends on where the run folder lies, so that a folder may be moved and resumed.
    """

    data: str
    norms: tuple[str, ...]
    impl: str
    epochs: int
    batch_size: int
    lr: float
    seed: int
    threads: int
    verify: bool
    sync: bool
    data_dir: str | None

    @classmethod
    def create(
        cls,
        *,
        data: str = DIGITS,
        norms: Sequence[str] = ("batch",),
        impl: str = "normkit",
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float = PUBLISHED_LR,
        seed: int = 0,
        threads: int | None = None,
        verify: bool = False,
        sync: bool = False,
        data_dir: str | Path | None = None,
    ) -> TrainConfig:
        """Fill in the defaults that depend on the data or the machine, and check every value.

        Args:
            data: ``"digits"``, ``"fashion-mnist"`` or a folder of four IDX files in the MNIST form.
            norms: What to compare: names from ``NORMS``, each once.
            impl: Whose layers to train with: ``"normkit"`` or ``"torch"``.
            epochs: Passes over the training images; 20 for the digits, 10 otherwise.
            batch_size: Images per step; 64 for the digits, 256 otherwise.
            lr: Learning rate of plain SGD.
            seed: Decides the initial weights and the order of the images.
            threads: Threads of torch's own operations; torch's default if None.
            verify: Train torch.nn's layers in lockstep and compare.
            sync: Share every batch among the ranks that torchrun started.
            data_dir: Where the Fashion-MNIST files are; Debian's place if None.
        Raises:
            UserError: a value cannot be used.
        """
        is_digits = data == DIGITS
        if data not in (DIGITS, FASHION):
            data = str(Path(data).expanduser().resolve())
        config = cls(
            data=data,
            norms=tuple(norms),
            impl=impl,
            epochs=(DIGITS_EPOCHS if is_digits else PUBLISHED_EPOCHS) if epochs is None else epochs,
            batch_size=(DIGITS_BATCH_SIZE if is_digits else PUBLISHED_BATCH_SIZE) if batch_size is None else batch_size,
            lr=lr,
            seed=seed,
            threads=torch.get_num_threads() if threads is None else threads,
            verify=verify,
            sync=sync,
            data_dir=None if data_dir is None else str(Path(data_dir).expanduser().resolve()),
        )
        config.check()
        return config

    def check(self) -> None:
        """Raise ``UserError`` for the first value that cannot be used."""
        if not self.norms:
            raise UserError(f"no norm to train: give at least one of {', '.join(NORMS)}")
        for norm in self.norms:
            if norm not in NORMS:
                raise UserError(f"unknown norm {norm!r}: choose from {', '.join(NORMS)}")
            if self.norms.count(norm) > 1:
                raise UserError(f"norm {norm!r} is given more than once: name each norm to compare once")
        if self.impl not in IMPLS:
            raise UserError(f"unknown implementation {self.impl!r}: choose from {', '.join(IMPLS)}")
        if self.verify and self.impl == "torch":
            raise UserError(
                "--verify compares normkit's layers with torch.nn's, and --impl torch trains torch.nn's: "
                "leave one of them away"
            )
        if self.sync and self.impl == "torch" and "batch" in self.norms:
            raise UserError(
                "--sync shares a batch's statistics among ranks on the CPU, which torch.nn.SyncBatchNorm refuses: "
                "leave --impl torch or --norm batch away"
            )
        if self.epochs < 1:
            raise UserError(f"--epochs must be 1 or more, not {self.epochs}")
        if self.batch_size < 1:
            raise UserError(f"--batch-size must be 1 or more, not {self.batch_size}")
        if self.batch_size == 1 and "batch" in self.norms:
            raise UserError(
                "--batch-size 1 cannot train batch norm: the variance of a single value is 0. "
                "Use 2 or more images per batch, or another norm"
            )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"--lr must be a finite number above 0, not {self.lr:g}")
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"--seed must be between 0 and {MAX_SEED}, not {self.seed}")
        check_threads(self.threads)
        if self.data_dir is not None and self.data != FASHION:
            raise UserError(f"--data-dir says where the {FASHION} files are: it has no meaning with --data {self.data}")

    def to_json(self) -> dict[str, Any]:
        """The options as JSON types."""
        return {**asdict(self), "norms": list(self.norms)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> TrainConfig:
        """The options that ``to_json`` wrote."""
        names = {field.name for field in fields(cls)}
        if not isinstance(saved, Mapping) or set(saved) != names:
            raise UserError(f"the saved configuration must hold exactly {', '.join(sorted(names))}")
        config = cls(**{**saved, "norms": tuple(saved["norms"])})
        config.check()
        return config

    def check_same(self, given: Mapping[str, Any]) -> None:
        """Raise ``UserError`` when an option given to a resumed run differs from what the run was started with."""
        if not given:
            return
        asked = TrainConfig.create(**{**self.to_json(), **given}).to_json()
        saved = self.to_json()
        differing = [name for name in saved if asked[name] != saved[name]]
        if differing:
            listing = "; ".join(f"{name} is {saved[name]}, asked {asked[name]}" for name in differing)
            raise UserError(
                f"a resumed run keeps its options, or its numbers would mean nothing ({listing}): "
                "leave these options away, or start a new run"
            )
