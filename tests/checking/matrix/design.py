"""Choose, from all combinations of the axes, some that meet each value in varied company."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

Axes = Mapping[str, str]
Choices = Mapping[str, Callable[[Axes], tuple[str, ...]]]
_CANDIDATES = 40


def covering(choices: Choices, fits: Callable[[Axes], bool], rows: int, seed: int) -> list[dict[str, str]]:
    """Return combinations that cover the values, then the pairs of values, greedily; the same for the same seed.

    Args:
        choices: For each axis the values that go with those of the axes before it.
        fits: Whether a combination makes sense.
        rows: How many to return.
        seed: The seed of the random candidates.
    """
    draw = random.Random(seed)
    chosen: list[dict[str, str]] = []
    values: Counter[tuple[str, str]] = Counter()
    pairs: Counter[tuple[tuple[str, str], tuple[str, str]]] = Counter()
    candidates = _random(choices, fits, draw)
    while len(chosen) < rows:

        def worth(axes: Axes) -> float:
            new = sum(pairs[pair] == 0 for pair in combinations(axes.items(), 2))
            return new + sum(30 / (1 + values[item]) for item in axes.items())

        best = max((next(candidates) for _ in range(_CANDIDATES)), key=worth)
        chosen.append(best)
        values.update(best.items())
        pairs.update(combinations(best.items(), 2))
    return chosen


def _random(choices: Choices, fits: Callable[[Axes], bool], draw: random.Random) -> Iterator[dict[str, str]]:
    while True:
        axes: dict[str, str] = {}
        for axis, allowed in choices.items():
            axes[axis] = draw.choice(allowed(axes))
        if fits(axes):
            yield axes


def cover(rows: Sequence[Axes], covered: Iterable[tuple[str, str]] = (), count: int | None = None) -> list[int]:
    """Return the indices of rows that hold as many values of the axes as so few rows can.

    Args:
        rows: The values of each row.
        covered: Values that are held already.
        count: How many to return; None for as many as hold every value.
    """
    missing = {item for row in rows for item in row.items()}.difference(covered)
    chosen: list[int] = []
    while missing if count is None else len(chosen) < min(count, len(rows)):
        left = [index for index in range(len(rows)) if index not in chosen]
        best = max(left, key=lambda index: len(missing & set(rows[index].items())))
        chosen.append(best)
        missing -= set(rows[best].items())
    return sorted(chosen)
