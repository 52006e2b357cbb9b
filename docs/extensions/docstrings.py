"""Docstrings as the site shows them: formulas in MathML, shapes as code, links, and signatures that are inherited.

MathML is drawn by the browser itself, so the site needs no script for its formulas.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from textwrap import dedent
from typing import Any

import griffe
import torch
from latex2mathml.converter import convert

_MATH = re.compile(r"^\.\. math:: (.*)$", re.MULTILINE)
_INLINE_MATH = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:func|class|meth|mod):`([^`]+)`")
_SECTION = re.compile(r"\n(?=(?:Args|Shape|Returns|Yields|Raises|References?):\n)")
_SHAPE = re.compile(r"^Shape:\n((?: +\S.*\n?)+)", re.MULTILINE)
_REFERENCE = re.compile(r"^(References?:)\n((?: +\S.*\n?)+)", re.MULTILINE)
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")
_DUNDER = re.compile(r"(?<![`\w.])__\w+__(?![`\w])")
_DOCTEST = re.compile(r"^>>> .*\n?(?:.+\n?)*", re.MULTILINE)
_LITERAL = re.compile(r"::\n\n(?= )")


class Docstrings(griffe.Extension):
    """Rewrite docstrings, and give classes the signature that they inherit from torch.nn's or from tuple."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package that has been read."""
        for obj in _objects(pkg):
            if obj.docstring:
                obj.docstring.value = to_markdown(obj.docstring.value, obj)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Set the ``__init__`` that a class inherits, and the values of defaults that are constants."""
        try:
            owner = getattr(importlib.import_module(cls.module.path), cls.name, None)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("normkit"):
                raise
            return  # a module of an extra that is not installed
        if cls.name.startswith("_") or not inspect.isclass(owner):
            return
        if is_dataclass(owner):
            defaults = {field.name: field.default for field in fields(owner) if field.default is not MISSING}
            for parameter in cls.parameters:
                if parameter.name in defaults:
                    parameter.default = repr(defaults[parameter.name])
        elif "__init__" not in cls.members and issubclass(owner, (torch.nn.Module, tuple)):
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*_parameters(owner))))


def to_markdown(docstring: str, obj: griffe.Object) -> str:
    """Return a docstring with the few things that are reStructuredText as Markdown."""
    text = _MATH.sub(lambda found: f'<div class="formula">{convert(found[1], display="block")}</div>', docstring)
    text = _INLINE_MATH.sub(lambda found: convert(found[1]), text)
    text = _SECTION.sub("\n\n", text)
    text = _SHAPE.sub(_shape, text)
    text = _REFERENCE.sub(lambda found: f"**{found[1]}** {dedent(found[2])}", text)
    text = _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    text = _DUNDER.sub(r"`\g<0>`", text)
    text = _DOCTEST.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", text)
    text = _ROLE.sub(lambda found: _link(found[1], obj), text)
    return _LITERAL.sub(":\n\n", text)


def _objects(module: griffe.Object) -> Iterator[griffe.Object]:
    yield module
    for member in module.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _shape(found: re.Match[str]) -> str:
    lines = re.sub(r";  +", "\n", dedent(found[1]).strip()).replace("``", "")
    return f"**Shape:**\n\n```text\n{lines}\n```\n"


def _link(name: str, obj: griffe.Object) -> str:
    """Return a link to what a name means where it stands, or the name alone if the site does not describe it."""
    try:
        target = obj.resolve(name)
    except griffe.NameResolutionError:
        target = name
    return f'<autoref optional identifier="{target}"><code>{name}</code></autoref>'


def _parameters(owner: type) -> list[griffe.Parameter]:
    own = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    return [own, *(_parameter(parameter) for parameter in inspect.signature(owner).parameters.values())]


def _parameter(parameter: inspect.Parameter) -> griffe.Parameter:
    required = parameter.default is parameter.empty
    typed = parameter.annotation is not parameter.empty
    return griffe.Parameter(
        parameter.name,
        kind=griffe.ParameterKind[parameter.kind.name.lower()],
        annotation=inspect.formatannotation(parameter.annotation) if typed else None,
        default=None if required else repr(parameter.default),
    )
