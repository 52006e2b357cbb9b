"""Tables of times."""

from collections.abc import Iterable, Sequence

from normkit.bench.cases import LARGE_BYTES, RETAINED, THREADS_OF_TARGETS
from normkit.bench.contenders import OURS, TORCH
from normkit.bench.environment import REGIMES
from normkit.bench.measure import Timing, geometric_mean
from normkit.bench.results import UNSTEADY, Result
from normkit.bench.section import Section, duration, reached


def sections(results: Sequence[Result]) -> list[Section]:
    """Return a table for each regime."""
    regimes = dict.fromkeys(result.regime for result in results)
    return [_section(regime, [result for result in results if result.regime == regime]) for regime in regimes]


def _section(regime: str, results: Sequence[Result]) -> Section:
    compiled = any(result.compiled_ratio is not None for result in results)
    columns = ["case", "pass", "ours", "torch.nn", "ratio", "target", "verdict", "× a copy"]
    if compiled:
        columns.insert(5, "compiled")
    rows = []
    for result in results:
        cells = [
            result.row.case.name,
            result.row.pass_,
            time_text(result.timings[OURS]),
            time_text(result.timings[TORCH]),
            f"{result.ratio:.2f}",
            f"{result.target:g}",
            verdict(result),
            _copies_text(result),
        ]
        if compiled:
            cells.insert(5, "" if result.compiled_ratio is None else f"{result.compiled_ratio:.2f}")
        rows.append(tuple(cells))
    return Section(f"Times with {REGIMES[regime]}", tuple(columns), tuple(rows), tuple(_notes(regime, results)))


def verdict(result: Result) -> str:
    """Say whether a row reaches its target, or where it has none that torch.nn is faster; or that times vary."""
    if not result.steady:
        return "unsteady"
    return reached(result.passed) or ("slower" if result.ratio < 1.0 else "")


def time_text(timing: Timing) -> str:
    """Return a median and its spread as text."""
    return f"{duration(timing.median)} ±{100 * timing.spread:.0f}%"


def _copies_text(result: Result) -> str:
    ours, torchs = result.in_copies(OURS), result.in_copies(TORCH)
    return "" if ours is None or torchs is None else f"{ours:.1f} / {torchs:.1f}"


def _notes(regime: str, results: Sequence[Result]) -> Iterable[str]:
    slower = sum(result.ratio < 1.0 for result in results)
    ratios = [result.ratio for result in results]
    yield (
        f"torch.nn is faster in {slower} of {len(results)} rows; torch.nn's time is {geometric_mean(ratios):.2f} times "
        f"ours in the geometric mean, {min(ratios):.2f} at the least and {max(ratios):.2f} at the most."
    )
    yield "ratio: torch.nn's time divided by ours, above 1 where we are faster."
    judged = [result for result in results if result.passed is not None and result.steady]
    if judged:
        missed = sum(not result.passed for result in judged)
        yield f"{len(judged) - missed} of {len(judged)} steady rows reach their target, {missed} miss it."
    elif all(result.passed is None for result in results):
        yield f"The targets are those for {THREADS_OF_TARGETS} threads, so there is no verdict."
    if any(result.in_copies(OURS) for result in results):
        yield (
            "Times are medians, ± half the distance between the quartiles. A copy is y.copy_(x) into a tensor that "
            "exists, timed in turn with the row; the last column is the time of ours / torch.nn's divided by the "
            "copy's; the least that must be moved is 1 copy, and 2.5 with backward."
        )
    if regime == RETAINED:
        yield "A target is the least ratio that we ask of ourselves for a row in this regime: 0.9, or more."
    else:
        yield f"Targets: as fast as torch.nn (0.9 allows for noise), and twice that over {LARGE_BYTES // 10**6} MB."
    unsteady = sum(not result.steady for result in results)
    if unsteady:
        yield (
            f"Unsteady, {unsteady} of {len(results)} rows: a spread of more than {100 * UNSTEADY:.0f}%, so the ratio "
            "says little. Time them again, on a quieter machine."
        )
