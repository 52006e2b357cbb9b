"""HTML pages that need nothing else: a template with its style and its script inside."""

from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup


def render_page(package: str, **values: Any) -> str:
    """Return the page of a package, which holds ``page.html``, ``page.css`` and, if it wants, ``page.js``.

    Args:
        package: The full name of the package.
        values: What the template names, beside ``css``, ``js`` and ``version``.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # what a script gets keeps its order
    folder = files(package)
    text = {
        part: (folder / f"page.{part}").read_text(encoding="utf-8")
        for part in ("html", "css", "js")
        if (folder / f"page.{part}").is_file()
    }
    inside = {part: Markup(text.get(part, "")) for part in ("css", "js")}
    return environment.from_string(text["html"]).render(**inside, version=version("normkit"), **values)
