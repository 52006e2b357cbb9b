"""Commands whose help is plain to read, and whose errors name options where the library names arguments."""

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand, TyperGroup

from normkit.errors import UserError


class _PlainHelp:
    """Help whose paragraphs fill the width, and whose flags have no type beside them; a class beside one of Typer's."""

    def __init__(self, *args: Any, help: str | None = None, **options: Any) -> None:
        super().__init__(*args, help=reflow(help), **options)  # type: ignore[call-arg]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, flags without a type."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return parameters


class PlainGroup(_PlainHelp, TyperGroup):
    """A command that holds commands."""


class PlainCommand(_PlainHelp, TyperCommand):
    """A command; its docstring is its help."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of the library names the command's options."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            options = {parameter.name: parameter.opts[0] for parameter in self.params if parameter.name}
            raise UserError(name_options(str(error), options)) from error


def reflow(text: str | None) -> str | None:
    """Return a docstring with each paragraph on one line, for the terminal to break; keep indented lines."""
    if text is None:
        return None
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else " ".join(part.split("\n")) for part in paragraphs)


def name_options(message: str, options: Mapping[str, str]) -> str:
    """Return a message of the library with options instead of arguments.

    The library writes an argument as `name`, or as `name=value` with a value.

    Args:
        options: The option of each argument.
    """

    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in options:
            return match[0]
        return options[name] if value is None else f"{options[name]} {value}"

    return re.sub(r"`(\w+)(?:=([^`]+))?`", option, message)
