"""Every cause that a diagnosis knows."""

from typing import Final

from normkit.model.diagnose.rules import batches, channels, statistics, use
from normkit.model.diagnose.rules.base import Case, Rule

# Where two explain the gap alike, the one that stands first is named first: it is the reason of the other.
RULES: Final[tuple[type[Rule], ...]] = (*channels.RULES, *use.RULES, *batches.RULES, *statistics.RULES)

__all__ = ["RULES", "Case", "Rule"]
