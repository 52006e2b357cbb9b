"""Warn of what no built page may hold, so that a strict build fails.

A page loads nothing from another host: the site works without a network. No reStructuredText of a docstring is left.
"""

import logging
import re
from pathlib import Path
from typing import Any

_LOADED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)""")
_LINKED = re.compile(r"""<link\b(?![^>]*\brel=["']?canonical)[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)""")
_LEFT = re.compile(r"\.\. \w+::|:(?:func|class|meth|mod|math):`")


def on_post_build(config: Any) -> None:
    """Look through the pages that were written."""
    log = logging.getLogger("mkdocs.plugins")
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        text = page.read_text()
        for url in (*_LOADED.findall(text), *_LINKED.findall(text)):
            log.warning("%s loads %s", page.relative_to(config.site_dir), url)
        for markup in _LEFT.findall(text):
            log.warning("%s shows %r as it stands in a docstring", page.relative_to(config.site_dir), markup)
