"""The options of a run: every one, its default and its limits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.threads import check_threads

NORMS: Final = ("batch", "layer", "group", "instance", "none")
IMPLS: Final = ("normkit", "torch")
"""The packages whose layers can be trained; anything else that is trained is a layer of somebody's own."""
GROUPS: Final = 2
"""Groups of the group norm: two divides all of 6, 16, 120 and 84 channels."""
IMAGE_SIZE: Final = 28
MIN_IMAGE_SIZE: Final = 16
"""The smallest images of which a pixel is left after both convolutions and both pools."""
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
_DEPENDS: Any = None
"""The default of an option whose value depends on the data or the machine."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A complete and valid set of options.

    Nothing in it depends on where the run folder lies, so that a folder may be moved and resumed.

    Args:
        data: ``"digits"``, ``"fashion-mnist"`` or a folder of four IDX files in the MNIST form.
        norms: The normalizations to compare: names from ``NORMS``, each once.
        impls: Whose layers are trained: ``"normkit"``, ``"torch"``, or a layer of somebody's own,
            ``"path/to/file.py:Name"`` or ``"package.module:Name"``, beside which the two others are trained too.
        epochs: Passes over the training images; None: 20 for the digits, 10 otherwise.
        batch_size: Images per step; None: 64 for the digits, 256 otherwise.
        lr: Learning rate of plain SGD, or one for each norm by its name; None, and for what is not named: 1.0.
        seed: Decides the initial weights and the order of the images.
        threads: Threads of torch's own operations; None: torch's default.
        verify: Train torch.nn's layers in lockstep and compare.
        sync: Share every batch among the ranks that torchrun started.
        data_dir: The folder of the Fashion-MNIST files; None: that of Debian's package.
        image_size: Height and width to which the images are enlarged.
    Raises:
        UserError: a value cannot be used.
    """

    data: str = DIGITS
    norms: Sequence[str] = ("batch",)
    impls: Sequence[str] = ("normkit",)
    epochs: int = _DEPENDS
    batch_size: int = _DEPENDS
    lr: float | Mapping[str, float] = _DEPENDS
    seed: int = 0
    threads: int = _DEPENDS
    verify: bool = False
    sync: bool = False
    data_dir: str | Path | None = None
    image_size: int = IMAGE_SIZE

    def __post_init__(self) -> None:
        """Fill in the defaults that depend on data or machine, make paths absolute, and check every value."""
        is_digits = self.data == DIGITS
        self._set(norms=tuple(self.norms), impls=_completed(self.impls))
        if self.data not in (DIGITS, FASHION):
            self._set(data=str(Path(self.data).expanduser().resolve()))
        if self.data_dir is not None:
            self._set(data_dir=str(Path(self.data_dir).expanduser().resolve()))
        if self.epochs is _DEPENDS:
            self._set(epochs=DIGITS_EPOCHS if is_digits else PUBLISHED_EPOCHS)
        if self.batch_size is _DEPENDS:
            self._set(batch_size=DIGITS_BATCH_SIZE if is_digits else PUBLISHED_BATCH_SIZE)
        if self.threads is _DEPENDS:
            self._set(threads=torch.get_num_threads())
        self._check_types()
        self._check_norms()
        self._check_impls()
        self._set(lr=self._rates())
        self._check_numbers()

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as a frozen dataclass sets its own fields

    def _check_types(self) -> None:
        for name in ("epochs", "batch_size", "seed", "threads", "image_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise UserError(f"`{name}` must be a whole number, not {value!r}")
        for name in ("verify", "sync"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"`{name}` must be True or False, not {getattr(self, name)!r}")

    def _rates(self) -> float | dict[str, float]:
        """Return one learning rate where all norms have the same, else each norm's."""
        named = {} if self.lr is _DEPENDS else self.lr
        given = dict(named) if isinstance(named, Mapping) else dict.fromkeys(self.norms, named)
        for norm, rate in given.items():
            require_norm(norm)
            if norm not in self.norms:
                raise UserError(f"`lr` names {norm}, and the norms to train are {', '.join(self.norms)}: drop it")
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not (math.isfinite(rate) and rate > 0):
                raise UserError(f"`lr` must be a finite number above 0, not {rate}")
        rates = {norm: float(given.get(norm, PUBLISHED_LR)) for norm in self.norms}
        return rates if len(set(rates.values())) > 1 else next(iter(rates.values()))

    def lr_of(self, norm: str) -> float:
        """Return the learning rate of a norm."""
        return self.lr[norm] if isinstance(self.lr, Mapping) else self.lr

    def _check_norms(self) -> None:
        if not self.norms:
            raise UserError(f"no norm to train: give at least one of {', '.join(NORMS)}")
        for norm in self.norms:
            require_norm(norm)
            if self.norms.count(norm) > 1:
                raise UserError(f"norm {norm!r} is given more than once: name each norm to compare once")

    @property
    def own_layers(self) -> tuple[str, ...]:
        """The layers of somebody's own among ``impls``."""
        return tuple(impl for impl in self.impls if impl not in IMPLS)

    def _check_impls(self) -> None:
        for impl in self.impls:
            if self.impls.count(impl) > 1:
                raise UserError(f"implementation {impl!r} is given more than once: name each to compare once")
        if not self.impls:
            raise UserError("no implementation to train: give at least one of normkit, torch, path/to/file.py:Name")
        if self.verify and self.impls == ("torch",):
            raise UserError(
                "`verify` compares normkit's layers with torch.nn's, and `impls=torch` trains torch.nn's: "
                "drop one of them"
            )
        if self.sync and self.own_layers:
            raise UserError(
                "`sync` shares a batch's statistics among ranks, and a layer of your own takes those of its own rank's "
                "share alone: drop `sync`, or train normkit's layers alone"
            )
        if self.sync and "torch" in self.impls and "batch" in self.norms:
            raise UserError(
                "`sync` shares a batch's statistics among ranks on the CPU, which torch.nn.SyncBatchNorm refuses: "
                "drop `impls=torch` or `norms=batch`"
            )

    def _check_numbers(self) -> None:
        if self.epochs < 1:
            raise UserError(f"`epochs` must be 1 or more, not {self.epochs}")
        if self.batch_size < 1:
            raise UserError(f"`batch_size` must be 1 or more, not {self.batch_size}")
        if self.batch_size == 1 and "batch" in self.norms:
            raise UserError(
                "`batch_size=1` cannot train batch norm: the variance of a single value is 0. "
                "Use 2 or more images per batch, or another norm"
            )
        if self.image_size < MIN_IMAGE_SIZE:
            raise UserError(
                f"`image_size` must be {MIN_IMAGE_SIZE} or more, not {self.image_size}: of smaller images nothing is "
                "left after the convolutions and pools"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"`seed` must be between 0 and {MAX_SEED}, not {self.seed}")
        check_threads(self.threads)
        if self.data_dir is not None and self.data != FASHION:
            raise UserError(f"`data_dir` says where the {FASHION} files are: it has no meaning with `data={self.data}`")

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON types."""
        return {**asdict(self), "norms": list(self.norms), "impls": list(self.impls)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "TrainConfig":
        """Return the options that ``to_json`` wrote."""
        names = {field.name for field in fields(cls)}
        if not isinstance(saved, Mapping) or set(saved) != names:
            raise UserError(
                f"the saved options are not those of this version of normkit, {', '.join(sorted(names))}: "
                "go on with the version that began the run, or start a new run"
            )
        return cls(**saved)

    def check_same(self, given: Mapping[str, Any]) -> None:
        """Raise ``UserError`` when an option given to a resumed run differs from that of its start; epochs may grow."""
        if not given:
            return
        asked = TrainConfig(**{**self.to_json(), **given}).to_json()
        saved = self.to_json()
        differing = [name for name in saved if asked[name] != saved[name] and name != "epochs"]
        if asked["epochs"] < saved["epochs"]:
            differing.append("epochs")
        if differing:
            listing = "; ".join(f"{name} is {saved[name]}, asked {asked[name]}" for name in differing)
            raise UserError(
                f"a resumed run keeps its options but for more epochs, or its numbers would mean nothing ({listing}): "
                "drop these options, or start a new run"
            )


def require_norm(norm: object) -> None:
    """Raise ``UserError`` unless this is the name of a norm."""
    if norm not in NORMS:
        raise UserError(f"unknown norm {norm!r}: choose from {', '.join(NORMS)}{did_you_mean(norm, NORMS)}")


def require_impl(impl: object) -> None:
    """Raise ``UserError`` unless this is the name of a package, or of a layer of somebody's own."""
    if impl not in IMPLS and not (isinstance(impl, str) and _names_a_layer(impl)):
        raise UserError(
            f"unknown implementation {impl!r}: choose from {', '.join(IMPLS)}, or name a layer of your own, "
            f"path/to/file.py:Name or package.module:Name{did_you_mean(impl, IMPLS)}"
        )


def _names_a_layer(impl: str) -> bool:
    return ":" in impl or impl.endswith(".py")


def _completed(impls: Sequence[str]) -> tuple[str, ...]:
    """Make the files of own layers absolute; put normkit's and torch.nn's layers beside own ones."""
    for impl in impls:
        require_impl(impl)
    found = tuple(impl if impl in IMPLS else _absolute(impl) for impl in impls)
    if set(found) <= set(IMPLS):
        return found
    return (*(impl for impl in IMPLS if impl not in found), *found)


def _absolute(impl: str) -> str:
    file, colon, name = impl.rpartition(":") if not impl.endswith(".py") else (impl, "", "")
    return f"{Path(file).expanduser().resolve()}{colon}{name}" if file.endswith(".py") else impl
