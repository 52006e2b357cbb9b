"""Put the page of ``normkit explain --out normalization.html`` into the site, made anew in every build."""

import tempfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from normkit.explaining.page import page

_FOLDER = tempfile.TemporaryDirectory(prefix="normkit-docs-")
_NAME = "normalization.html"


def on_files(files: Any, config: Any) -> Any:
    """Add the page to what is built; a file on disk, as the plugin for translations expects."""
    (Path(_FOLDER.name) / _NAME).write_text(page(), encoding="utf-8")
    files.append(File(_NAME, _FOLDER.name, config.site_dir, use_directory_urls=False))
    return files
