"""Conversion of batch norms into other norms, one idea a file.

``groups`` chooses the number of groups, ``layers`` are the classes that torch.nn lacks, ``source`` says which layers
can be converted, ``change`` makes them other layers, ``moments`` rescales weights, ``proof`` compares what the model
returns, ``report`` tells, and ``convert`` is the function.
"""

from normkit.model.convert.convert import convert
from normkit.model.convert.report import Conversion, Converted, Drift, Match

__all__ = ["Conversion", "Converted", "Drift", "Match", "convert"]
