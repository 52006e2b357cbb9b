"""The whole matrix: the right layers, and each fault planted into some of them."""

import hashlib
from collections import Counter
from dataclasses import replace
from functools import cache

from tests.checking.matrix.batch import Batch
from tests.checking.matrix.batch_axes import AXES
from tests.checking.matrix.batch_axes import fits as batch_fits
from tests.checking.matrix.design import cover, covering
from tests.checking.matrix.faults import FAULTS
from tests.checking.matrix.forms import source
from tests.checking.matrix.stateless import Stateless
from tests.checking.matrix.stateless_axes import choices
from tests.checking.matrix.stateless_axes import fits as stateless_fits
from tests.checking.matrix.template import Template
from tests.checking.matrix.usage import usage
from tests.checking.matrix.written import Written

ROWS = {"batch": 180, "layer": 64, "rms": 14, "group": 30, "instance": 12}
"""How many right layers of each family; those on JAX arrays are beside them."""
ROWS_IN_JAX = {"batch": 10, "layer": 4}
PLANTED = 20
"""How many layers each fault is planted into, where so many take it."""
FAST = 40
"""How many right ones and how many faulty ones the fast tests take."""
_SEED = 23


def _templates(family: str, rows: int, *, library: str = "") -> list[Template]:
    kind = Batch if family == "batch" else Stateless
    axes = dict(AXES) if family == "batch" else choices(family)
    if library:
        axes["library"] = lambda _: (library,)
    return [kind(row) for row in covering(axes, batch_fits if family == "batch" else stateless_fits, rows, _SEED)]


@cache
def templates() -> tuple[tuple[str, Template], ...]:
    """Return the right layers by name, JAX aside."""
    return tuple(
        (_name(template, family, number), template)
        for family, rows in ROWS.items()
        for number, template in enumerate(_templates(family, rows))
    )


def _name(template: Template, family: str, number: int) -> str:
    place = template.axes.get("layout", template.axes.get("over", "")).replace(" ", "")
    told = template.axes.get("mode", "")
    parts = [f"{family}{number:03}", template["library"], template["form"], place, template.axes["holder"], told]
    return "-".join(part.replace(" ", "_") for part in parts if part not in ("", "none"))


def write(template: Template, name: str) -> Written:
    """Write a layer."""
    return Written(
        name=name,
        source=source(template),
        target=template["title"],
        library=template["library"],
        axes=template.axes,
        usage=usage(template),
        truth=template.truth(),
        families=template.families(),
        allowed=frozenset(template.allowed()),
        fault=template.fault,
    )


def right() -> list[Written]:
    """Return the right layers."""
    return [write(template, name) for name, template in templates()]


def right_in_jax() -> list[Written]:
    """Return the right layers on JAX arrays."""
    return [
        write(template, _name(template, family, number))
        for family, rows in ROWS_IN_JAX.items()
        for number, template in enumerate(_templates(family, rows, library="jax"))
    ]


def faulty() -> list[Written]:
    """Return the faulty layers: each fault in PLANTED right ones, those that hold the fewest faults so far first."""
    used: Counter[str] = Counter()
    planted = []
    for code, fault in FAULTS.items():
        hosts = [(name, template) for name, template in templates() if fault.fits(template.axes)]
        hosts.sort(key=lambda host: (used[host[0]], _shuffled(host[0], code)))
        for variant, (name, template) in enumerate(hosts[:PLANTED]):
            used[name] += 1
            planted.append(write(replace(template, fault=code, variant=variant), f"{code}-in-{name}"))
    return planted


def _shuffled(name: str, code: str) -> str:
    """Return a key that puts the names in an order of its own for each code."""
    return hashlib.md5(f"{name} {code}".encode()).hexdigest()


def fast() -> tuple[list[Written], list[Written]]:
    """Return few right and few faulty layers, which hold every fault and together every value of every axis."""
    sound, planted = right(), faulty()
    axes = [layer.axes for layer in sound]
    chosen = cover(axes, count=FAST)
    covered = {item for index in chosen for item in axes[index].items()}
    values = [{**row.axes, "fault": row.fault, f"fault in {row.axes['library']}": row.fault} for row in planted]
    among_faulty = cover(values, covered, count=FAST)
    covered |= {item for index in among_faulty for item in values[index].items()}
    chosen += cover(axes, covered)
    return [sound[index] for index in chosen], [planted[index] for index in among_faulty]
