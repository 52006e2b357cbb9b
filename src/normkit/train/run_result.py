"""The result of a run: what is compared and what is in its folder, as records, as JSON and for people to read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from normkit.json_types import finite
from normkit.renderable import Renderable, text_of, unbroken
from normkit.train.config import TrainConfig
from normkit.train.own import check_command, shown
from normkit.train.quantities import QUANTITIES
from normkit.train.results import NormResult, Verdict, record
from normkit.train.verify import conclusion


@dataclass(frozen=True)
class RunResult(Renderable):
    """A run, finished or not: its folder, its options and one result a contender, for those with an epoch done."""

    folder: Path
    config: TrainConfig
    norms: list[NormResult]
    verdicts: list[Verdict]
    files: list[str]

    def __str__(self) -> str:
        return text_of(self)

    def __rich__(self) -> RenderableType:
        packages = [verdict for verdict in self.verdicts if not verdict.target]
        owns = [verdict for verdict in self.verdicts if verdict.target]
        parts: list[RenderableType] = [_comparison(self.norms)]
        if packages:
            parts += [_differences(packages), _drift(packages)]
        if owns:
            parts += [*_own_layers(owns), *_conclusions(owns, self.norms)]
        parts += [unbroken(chance_note(norm)) for norm in self.norms if norm.learned_nothing]
        return Group(*parts, *self._written())

    def _written(self) -> Iterator[Text]:
        yield unbroken(f"Everything is in {self.folder}:")
        for kind, suffixes in (("pictures", {".png"}), ("numbers", {".csv", ".json"}), ("checkpoints", {".pt"})):
            names = [name for name in self.files if Path(name).suffix in suffixes]
            yield unbroken(f"  {kind:<12} {', '.join(names)}")

    @property
    def passed(self) -> bool:
        """True where every verification was within its tolerances, or none was asked for."""
        return all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``metrics.json`` holds; numbers that are not finite are null."""
        summary = []
        for result in self.norms:
            last = result.epochs[-1]
            summary.append(
                {
                    "norm": result.norm,
                    **({"impl": result.impl} if result.impl else {}),
                    "epochs": last.epoch,
                    "parameters": result.parameters,
                    "train_accuracy": last.train_accuracy,
                    "test_accuracy": last.test_accuracy,
                    "seconds_per_epoch": result.seconds_per_epoch,
                    "final_loss": last.train_loss,
                    "lost_on_save": result.lost_on_save,
                }
            )
        tree = {
            "folder": str(self.folder),
            "config": self.config.to_json(),
            "results": summary,
            "verify": [record(verdict) for verdict in self.verdicts],
            "epochs": [record(row) for result in self.norms for row in result.epochs],
            "files": self.files,
        }
        found: dict[str, Any] = finite(tree)
        return found


def _comparison(norms: Sequence[NormResult]) -> Table:
    several = any(norm.impl for norm in norms)
    columns = ["norm", "train accuracy", "test accuracy", "seconds per epoch", "final loss"]
    if several:  # narrow columns leave room for the names of classes
        columns = ["norm", "layers", *(column.replace(" ", "\n", 1) for column in columns[1:])]
    return _table(
        "Result",
        columns,
        [
            (
                norm.norm,
                *(["torch.nn" if norm.impl == "torch" else norm.impl] if several else []),
                f"{norm.epochs[-1].train_accuracy:.3f}",
                f"{norm.epochs[-1].test_accuracy:.3f}",
                f"{norm.seconds_per_epoch:.2f}",
                f"{norm.epochs[-1].train_loss:.3f}",
            )
            for norm in norms
        ],
    )


def _differences(verdicts: Sequence[Verdict]) -> Table:
    """Return the largest differences of normkit's layers from torch.nn's."""
    rows = []
    for verdict in verdicts:
        largest = {found.quantity: f"{found.largest:.1e}" for found in verdict.quantities}
        judged = "same" if verdict.passed else "DIFFERS"
        rows.append((verdict.norm, *(largest.get(quantity.name, "") for quantity in QUANTITIES), judged))
    return _table(
        f"Each of {verdicts[0].steps:,} steps against torch.nn: largest relative difference",
        ("norm", *(quantity.title.replace(" ", "\n") for quantity in QUANTITIES), "verdict"),
        [*rows, ("tolerance", *(f"{quantity.tolerance:.0e}" for quantity in QUANTITIES), "")],
    )


def _drift(verdicts: Sequence[Verdict]) -> Table:
    """Return how far two separate trainings drifted apart."""
    return _table(
        "Separate trainings from the same first weights: largest relative difference",
        ("norm", "loss", "gradient", "statistics", "weights", "test accuracy", "torch.nn's"),
        [
            (
                verdict.norm,
                f"{verdict.drift_loss:.1e}",
                f"{verdict.drift_gradient:.1e}",
                f"{verdict.drift_running:.1e}",
                f"{verdict.drift_weight:.1e}",
                f"{verdict.test_accuracy:.3f}",
                f"{verdict.twin_test_accuracy:.3f}",
            )
            for verdict in verdicts
        ],
    )


def _own_layers(verdicts: Sequence[Verdict]) -> Iterator[RenderableType]:
    """Yield where somebody's own layers left the tolerance of each quantity first, and how far they went."""
    titles = {quantity.name: quantity.title for quantity in QUANTITIES}
    yield _table(
        "Your layers against torch.nn's, on the same weights, statistics and images",
        ("layers", "norm", "quantity", "first step", "largest", "where"),
        [
            (
                verdict.impl,
                verdict.norm,
                titles[found.quantity],
                "none" if found.first_step is None else f"{found.first_step:,}",
                f"{found.largest:.1e}",
                found.layer,
            )
            for verdict in verdicts
            for found in verdict.quantities
        ],
    )
    tolerances = ", ".join(f"{quantity.title} {quantity.tolerance:.0e}" for quantity in QUANTITIES)
    yield unbroken(
        f"first step: the first beyond the tolerance ({tolerances}); largest: the largest relative difference"
    )
    yield Text()


def _conclusions(verdicts: Sequence[Verdict], norms: Sequence[NormResult]) -> Iterator[Text]:
    """Yield a line for each own layer: where it departs and what says why, or that it does not."""
    for verdict in verdicts:
        yield unbroken(conclusion(verdict))
        yield unbroken(
            f"  trained by itself it ends at a test accuracy of {verdict.test_accuracy:.3f}, torch.nn's at "
            f"{verdict.twin_test_accuracy:.3f}"
        )
    for norm in norms:
        if norm.without_affine:
            yield unbroken(affine_note(norm))
        if norm.lost_on_save:
            yield unbroken(lost_note(norm))
    yield Text()


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table whose first column is to the left and all others to the right."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def chance_note(result: NormResult) -> str:
    """Say that a contender has learned nothing yet, which is no verdict on it."""
    last = result.epochs[-1]
    return (
        f"{result.label}: has learned nothing in {last.epoch} epochs (accuracy {last.train_accuracy:.2f}, chance is "
        "0.10). More --epochs, smaller --batch-size or a learning rate of its own may change that: "
        f"--lr {result.norm}=RATE"
    )


def affine_note(result: NormResult) -> str:
    """Say that a layer lacks weight or bias, which the layer beside it has."""
    what = " and ".join(result.without_affine)
    return (
        f"{shown(result.target)} has no {what}, and the layers beside it have: it can end lower for that alone. "
        f"{check_command(result.target)} says more"
    )


def lost_note(result: NormResult) -> str:
    """Say what a layer does not save, and what would."""
    what = " and ".join(result.lost_on_save)
    return (
        f"{shown(result.target)} loses its {what} on save: register_buffer would keep them in its state_dict (for "
        "weight and bias, torch.nn.Parameter). A resumed training goes on with those of a fresh layer, so its numbers "
        f"differ from those of an uninterrupted one. {check_command(result.target)} says more"
    )
