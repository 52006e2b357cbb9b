"""A measured row, and what follows from it."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from normkit.bench.cases import THREADS_OF_TARGETS, ModelCase, Row
from normkit.bench.contenders import COMPILED, COPY, OURS, TORCH
from normkit.bench.measure import Timing
from normkit.bench.table import ROW_BY_NAME

UNSTEADY: Final = 0.1
"""The spread, relative to the median, beyond which a ratio says little."""
SMALL_BYTES: Final = 1_000_000


@dataclass(frozen=True)
class Result:
    """One row, timed in one allocator regime.

    Args:
        row: The case and the pass.
        regime: One of environment.REGIMES.
        threads: Number of threads of torch and of ours.
        copies: Number of copies of the input that move as many bytes as the row must; 0 for whole networks.
        timings: By contender.
    """

    row: Row
    regime: str
    threads: int
    copies: float
    timings: dict[str, Timing]

    @property
    def ratio(self) -> float:
        """torch.nn's time divided by ours."""
        return self.timings[TORCH].median / self.timings[OURS].median

    @property
    def steady(self) -> bool:
        """True where the times vary so little that the ratio can be trusted."""
        return max(self.timings[name].spread for name in (OURS, TORCH)) <= UNSTEADY

    @property
    def compiled_ratio(self) -> float | None:
        """The compiled torch.nn's time divided by ours; None where it was not timed."""
        return self.timings[COMPILED].median / self.timings[OURS].median if COMPILED in self.timings else None

    @property
    def target(self) -> float:
        """The least ratio that is asked for."""
        return self.row.case.target(self.row.pass_, self.regime)

    @property
    def passed(self) -> bool | None:
        """True where the ratio reaches the target; None where the number of threads is not the targets'."""
        return self.ratio >= self.target if self.threads == THREADS_OF_TARGETS else None

    def in_copies(self, contender: str) -> float | None:
        """Return a contender's time as a multiple of a copy of the input.

        None for whole networks, and for inputs so small that a copy is mostly the cost of calling it.
        """
        case = self.row.case
        if isinstance(case, ModelCase) or case.nbytes < SMALL_BYTES:
            return None
        return self.timings[contender].median / self.timings[COPY].median

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        case = self.row.case
        what: dict[str, Any]
        if isinstance(case, ModelCase):
            layout = "channels_last" if case.channels_last else "contiguous"
            what = {"model": case.model, "layout": layout, "fused": case.fused}
        else:
            what = {
                "norm": case.norm,
                "shape": list(case.shape),
                "layout": "channels_last" if case.channels_last else "contiguous",
                "dtype": case.dtype,
            }
        return {
            "name": self.row.name,
            **what,
            "pass": self.row.pass_,
            "regime": self.regime,
            "threads": self.threads,
            "seconds": {name: asdict(timing) for name, timing in self.timings.items()},
            "ratio": self.ratio,
            "steady": self.steady,
            "compiled_ratio": self.compiled_ratio,
            "copies": {name: self.in_copies(name) for name in self.timings if name != COPY},
            "copies_limit": self.copies or None,
            "target": self.target,
            "passed": self.passed,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Result":
        """Return what :meth:`to_json` was called on."""
        timings = {name: Timing(**timing) for name, timing in data["seconds"].items()}
        row = ROW_BY_NAME[data["name"]]
        return cls(row, data["regime"], data["threads"], data["copies_limit"] or 0.0, timings)
