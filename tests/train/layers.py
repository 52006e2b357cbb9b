"""Layers of somebody's own, written to files as a user has them."""

from pathlib import Path

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
TEXTBOOK = f"{EXAMPLES / 'textbook.py'}:BatchNorm"
PLAIN_ATTRIBUTES = f"{EXAMPLES / 'plain_attributes.py'}:BatchNorm2d"
