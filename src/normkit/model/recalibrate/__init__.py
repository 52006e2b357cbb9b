"""Running statistics taken anew from data, as if all of it were one batch.

Read ``run.py`` first: the two modes. ``watch.py`` measures the input of a layer, ``moments.py`` what the numbers are,
``proof.py`` tries layers of somebody's own, ``ranks.py`` merges processes, ``result.py`` is what is returned.
"""

from normkit.model.recalibrate.result import Recalibrated, Recalibration
from normkit.model.recalibrate.run import recalibrate

__all__ = ["Recalibrated", "Recalibration", "recalibrate"]
