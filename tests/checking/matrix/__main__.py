"""Run the whole matrix on all cores and print how well normkit judges it: ``python -m tests.checking.matrix``."""

import argparse
import json
import multiprocessing
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

from tests.checking.matrix.faults import FAULTS
from tests.checking.matrix.judge import Judgement, judge
from tests.checking.matrix.plan import faulty, right, right_in_jax


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.checking.matrix", description=__doc__)
    parser.add_argument("names", nargs="*", help="only the layers whose names contain one of these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    parser.add_argument("--failures", action="store_true", help="list every report that is not as it should be")
    parser.add_argument("--by-axis", action="store_true", help="count the failures by the values of the axes")
    parser.add_argument("--source", action="store_true", help="print the layers instead of checking them")
    parser.add_argument("--json", type=Path, help="write each judgement to this file")
    options = parser.parse_args()
    layers = [*right(), *(right_in_jax() if find_spec("jax") else []), *faulty()]
    if options.names:
        layers = [layer for layer in layers if any(name in layer.name for name in options.names)]
    if options.source:
        print("\n\n".join(f"# {layer.name}\n\n{layer.source}" for layer in layers))
        return
    context = multiprocessing.get_context("spawn")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        judgements = list(pool.map(judge, layers, chunksize=4))
    print_table(judgements)
    if options.by_axis:
        print_by_axis(judgements)
    if options.failures:
        print_failures(judgements)
    if options.json:
        options.json.write_text(json.dumps([_plain(judgement) for judgement in judgements], indent=1))


def print_table(judgements: Sequence[Judgement]) -> None:
    """Print recall for each code, then the totals."""
    planted = [judgement for judgement in judgements if judgement.layer.fault]
    sound = [judgement for judgement in judgements if not judgement.layer.fault]
    print(f"{'planted fault':32} {'planted':>8} {'named':>6} {'recall':>7} {'refused':>8}")
    for code in FAULTS:
        rows = [judgement for judgement in planted if judgement.layer.fault == code]
        if rows:
            _print_recall(code, rows)
    if planted:
        _print_recall("all", planted)
    print()
    families = list(dict.fromkeys(judgement.layer.kind for judgement in sound))
    print(f"{'right layers':32} {'written':>8} {'faultless':>10} {'share':>6} {'refused':>8}")
    for family in families:
        _print_faultless(family, [judgement for judgement in sound if judgement.layer.kind == family])
    if sound:
        _print_faultless("all", sound)
    reports = [judgement for judgement in judgements if not judgement.refusal]
    if reports:
        codes, false = (sum(len(codes) for codes in found) for found in _codes(reports))
        print()
        print(f"reports               {len(reports)} of {len(judgements)}, {len(judgements) - len(reports)} refusals")
        print(f"core codes            {codes}, of them false {false}: precision {1 - false / max(codes, 1):.1%}")
        print(f"false codes           {false / len(reports):.3f} a report")
        print(f"seconds a report      median {statistics.median(judgement.seconds for judgement in reports):.2f}")


def _codes(reports: Sequence[Judgement]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    return [report.codes for report in reports], [report.false for report in reports]


def _print_recall(label: str, rows: Sequence[Judgement]) -> None:
    named, refused = sum(row.named for row in rows), sum(bool(row.refusal) for row in rows)
    print(f"{label:32} {len(rows):8} {named:6} {named / len(rows):7.0%} {refused:8}")


def _print_faultless(label: str, rows: Sequence[Judgement]) -> None:
    faultless, refused = sum(not row.problems for row in rows), sum(bool(row.refusal) for row in rows)
    print(f"{label:32} {len(rows):8} {faultless:10} {faultless / len(rows):6.0%} {refused:8}")


def print_by_axis(judgements: Sequence[Judgement]) -> None:
    """Print, for each value of each axis, how many right layers and how many faulty ones fail."""
    seen: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for judgement in judgements:
        kind = "faulty" if judgement.layer.fault else "right"
        for item in judgement.layer.axes.items():
            seen[item][kind] += 1
            seen[item][f"{kind} failed"] += bool(judgement.problems)
    print(f"\n{'axis':12} {'value':36} {'right layers failed':>20} {'faulty ones failed':>20}")
    for (axis, value), counts in sorted(seen.items(), key=lambda item: (item[0][0], -_share(item[1]))):
        right_ones = f"{counts['right failed']} of {counts['right']}"
        faulty_ones = f"{counts['faulty failed']} of {counts['faulty']}"
        print(f"{axis:12} {value:36} {right_ones:>20} {faulty_ones:>20}")


def _share(counts: Counter[str]) -> float:
    return counts["right failed"] / max(counts["right"], 1)


def print_failures(judgements: Sequence[Judgement]) -> None:
    """Print each report that is not as it should be."""
    print()
    for judgement in judgements:
        if judgement.problems:
            print(f"{judgement.layer.name}: {'; '.join(judgement.problems)}")


def _plain(judgement: Judgement) -> dict[str, object]:
    layer = judgement.layer
    return {
        "name": layer.name,
        "fault": layer.fault,
        "axes": dict(layer.axes),
        "codes": judgement.codes,
        "problems": judgement.problems,
        "seconds": judgement.seconds,
    }


if __name__ == "__main__":
    main()
