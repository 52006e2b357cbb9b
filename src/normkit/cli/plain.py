"""Commands whose help is plain to read: paragraphs fill the width, and a flag has no type beside it."""

from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command; its docstring is its help."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:
        super().__init__(*args, help=reflow(help), **options)

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, flags without a type."""
        return _without_types_of_flags(super().get_params(ctx))


class PlainGroup(TyperGroup):
    """The command that holds the commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, flags without a type."""
        return _without_types_of_flags(super().get_params(ctx))


def reflow(text: str | None) -> str | None:
    """A docstring with each paragraph on one line, for the terminal to break; indented lines stay as they are."""
    if text is None:
        return None
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else " ".join(part.split("\n")) for part in paragraphs)


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
