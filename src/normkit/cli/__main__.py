"""``python -m normkit.cli`` is the same as ``normkit``."""

from normkit.cli import main

main()
