"""``python -m normkit`` is the same as ``normkit``."""

from normkit.cli import main

main()
