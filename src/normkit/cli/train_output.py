"""What ``normkit train`` prints: shapes, the comparison, the verdicts, the names of the files."""

from pathlib import Path
from typing import TYPE_CHECKING

from normkit.cli import console

if TYPE_CHECKING:
    from normkit.train import NormResult, RunResult, Verdict


def print_trace(label: str, layers: list[tuple[str, tuple[int, ...]]]) -> None:
    """Print each layer's output shape for one image, as the publication does."""
    console.out.print(f"LeNet, norm {label}:")
    for name, shape in layers:
        console.out.print(f"  {name + ' output shape:':<28} {shape}")
    console.out.print()


def print_result(result: "RunResult") -> None:
    """Print the comparison, the verdicts if there are some, and the names of the files."""
    several = any(norm.impl for norm in result.norms)
    columns = ["norm", "train accuracy", "test accuracy", "seconds per epoch", "final loss"]
    if several:  # narrow columns leave room for the names of classes
        columns = ["norm", "layers", *(column.replace(" ", "\n", 1) for column in columns[1:])]
    console.print_table(
        "Result",
        columns,
        [
            (
                norm.norm,
                *([_spelled(norm.impl)] if several else []),
                f"{norm.epochs[-1].train_accuracy:.3f}",
                f"{norm.epochs[-1].test_accuracy:.3f}",
                f"{norm.seconds_per_epoch:.2f}",
                f"{norm.epochs[-1].train_loss:.3f}",
            )
            for norm in result.norms
        ],
    )
    packages = [verdict for verdict in result.verdicts if not verdict.target]
    owns = [verdict for verdict in result.verdicts if verdict.target]
    if packages:
        print_verdicts(packages)
    if owns:
        print_own(owns)
        print_conclusions(owns, result.norms)
    console.out.print(f"Everything is in {result.folder}:")
    for kind, suffixes in (("pictures", {".png"}), ("numbers", {".csv", ".json"}), ("checkpoints", {".pt"})):
        names = [name for name in result.files if Path(name).suffix in suffixes]
        console.out.print(f"  {kind:<12} {', '.join(names)}", soft_wrap=True)


def print_verdicts(verdicts: "list[Verdict]") -> None:
    """Print the largest differences of normkit's layers from torch.nn's."""
    from normkit.train.quantities import QUANTITIES

    rows = []
    for verdict in verdicts:
        largest = {found.quantity: f"{found.largest:.1e}" for found in verdict.quantities}
        judged = "same" if verdict.passed else "DIFFERS"
        rows.append((verdict.norm, *(largest.get(quantity.name, "") for quantity in QUANTITIES), judged))
    console.print_table(
        f"Each of {verdicts[0].steps:,} steps against torch.nn: largest relative difference",
        ("norm", *(quantity.title.replace(" ", "\n") for quantity in QUANTITIES), "verdict"),
        [*rows, ("tolerance", *(f"{quantity.tolerance:.0e}" for quantity in QUANTITIES), "")],
    )
    print_drift(verdicts)


def print_own(verdicts: "list[Verdict]") -> None:
    """Print of every quantity of somebody's own layers where it left its tolerance first, and how far it went."""
    from normkit.train.quantities import QUANTITIES

    titles = {quantity.name: quantity.title for quantity in QUANTITIES}
    console.print_table(
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
    console.out.print(
        f"first step: the first beyond the tolerance ({tolerances}); largest: the largest relative difference\n",
        soft_wrap=True,
    )


def print_drift(verdicts: "list[Verdict]") -> None:
    """Print how far two separate trainings drifted apart."""
    console.print_table(
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


def print_conclusions(verdicts: "list[Verdict]", norms: "list[NormResult]") -> None:
    """Print a line for each own layer: where it departs and what says why, or that it does not."""
    from normkit.train import conclusion, lost_note

    for verdict in verdicts:
        console.out.print(conclusion(verdict), soft_wrap=True)
        console.out.print(
            f"  trained by itself it ends at a test accuracy of {verdict.test_accuracy:.3f}, torch.nn's at "
            f"{verdict.twin_test_accuracy:.3f}",
            soft_wrap=True,
        )
    for norm in norms:
        if norm.lost_on_save:
            console.out.print(lost_note(norm), soft_wrap=True)
    console.out.print()


def _spelled(impl: str) -> str:
    return "torch.nn" if impl == "torch" else impl
