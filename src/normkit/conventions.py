"""What the libraries call the same layers and arrays, their defaults, and what they store: the one table of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

KINDS: Final = ("batch", "layer", "group", "instance", "rms")
"""The kinds of norm that the table has."""

ROLES: Final = ("weight", "bias", "running_mean", "running_var")
"""What an array of a norm is for, in torch's names."""


@dataclass(frozen=True)
class Convention:
    """How a library names, stores and updates; all of it is in wide use.

    Args:
        title: How to name it.
        layers: The layer of each kind.
        arrays: The name of the array of each role.
        eps_name: The argument that is added to the variance.
        epsilons: Its default for each kind; None: the machine epsilon of the dtype.
        channel_axis: Where the channels are.
        momentum: The default momentum, in its own meaning.
        momentum_weighs_old: Whether momentum is the weight of the old value.
        unbiased_running: Whether the running variance is divided by n - 1.
        rms_weight: The name of the weight of an RMS norm, where it has another.
    """

    title: str
    layers: Mapping[str, str] = field(repr=False)
    arrays: Mapping[str, str] = field(repr=False)
    eps_name: str
    epsilons: Mapping[str, float | None] = field(repr=False)
    channel_axis: int
    momentum: float
    momentum_weighs_old: bool
    unbiased_running: bool
    rms_weight: str | None = None

    @property
    def eps(self) -> float:
        """The default eps of its batch normalization."""
        return self.epsilons["batch"] or 0.0

    def convert_momentum(self, momentum: float, to: "Convention") -> float:
        """Return what this library's momentum is called in another one."""
        same = self.momentum_weighs_old == to.momentum_weighs_old
        return momentum if same else round(1 - momentum, 12)

    def name_of(self, role: str, kind: str) -> str:
        """Return the name of an array of a norm of some kind."""
        return self.rms_weight if self.rms_weight and (role, kind) == ("weight", "rms") else self.arrays[role]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "title": self.title,
            "layers": dict(self.layers),
            "arrays": dict(self.arrays),
            "rms_weight": self.rms_weight or self.arrays["weight"],
            "eps_name": self.eps_name,
            "eps": dict(self.epsilons),
            "channel_axis": self.channel_axis,
            "momentum": self.momentum,
            "momentum_weighs": "old" if self.momentum_weighs_old else "new",
            "running_variance": "unbiased" if self.unbiased_running else "biased",
        }


def _by_kind(*values: Any) -> dict[str, Any]:
    return dict(zip(KINDS, values, strict=True))


def _by_role(*names: str) -> dict[str, str]:
    return dict(zip(ROLES, names, strict=True))


CONVENTIONS: Final[Mapping[str, Convention]] = {
    "torch": Convention(
        title="torch",
        layers=_by_kind("BatchNorm1d/2d/3d", "LayerNorm", "GroupNorm", "InstanceNorm1d/2d/3d", "RMSNorm"),
        arrays=_by_role("weight", "bias", "running_mean", "running_var"),
        eps_name="eps",
        epsilons=_by_kind(1e-5, 1e-5, 1e-5, 1e-5, None),
        channel_axis=1,
        momentum=0.1,
        momentum_weighs_old=False,
        unbiased_running=True,
    ),
    "keras": Convention(
        title="Keras",
        layers=_by_kind(
            "BatchNormalization",
            "LayerNormalization",
            "GroupNormalization",
            "GroupNormalization(groups=-1)",
            "RMSNormalization",
        ),
        arrays=_by_role("gamma", "beta", "moving_mean", "moving_variance"),
        eps_name="epsilon",
        epsilons=_by_kind(1e-3, 1e-3, 1e-3, 1e-3, 1e-6),
        channel_axis=-1,
        momentum=0.99,
        momentum_weighs_old=True,
        unbiased_running=False,
        rms_weight="scale",
    ),
    "flax": Convention(
        title="Flax",
        layers=_by_kind("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm"),
        arrays=_by_role("scale", "bias", "mean", "var"),
        eps_name="epsilon",
        epsilons=_by_kind(1e-5, 1e-6, 1e-6, 1e-6, 1e-6),
        channel_axis=-1,
        momentum=0.99,
        momentum_weighs_old=True,
        unbiased_running=False,
    ),
    "mlx": Convention(
        title="MLX",
        layers=_by_kind("BatchNorm", "LayerNorm", "GroupNorm", "InstanceNorm", "RMSNorm"),
        arrays=_by_role("weight", "bias", "running_mean", "running_var"),
        eps_name="eps",
        epsilons=_by_kind(1e-5, 1e-5, 1e-5, 1e-5, 1e-5),
        channel_axis=-1,
        momentum=0.1,
        momentum_weighs_old=False,
        unbiased_running=True,
    ),
    "onnx": Convention(
        title="ONNX",
        layers=_by_kind(
            "BatchNormalization",
            "LayerNormalization",
            "GroupNormalization",
            "InstanceNormalization",
            "RMSNormalization",
        ),
        arrays=_by_role("scale", "B", "input_mean", "input_var"),
        eps_name="epsilon",
        epsilons=_by_kind(1e-5, 1e-5, 1e-5, 1e-5, 1e-5),
        channel_axis=1,
        momentum=0.9,
        momentum_weighs_old=True,
        unbiased_running=False,
    ),
}


def rows(libraries: Iterable[str] = CONVENTIONS) -> list[tuple[str, ...]]:
    """Return the table for people: the first row are the libraries, the first column says what a row is about.

    Args:
        libraries: Which, in this order.
    """
    every = [CONVENTIONS[library] for library in libraries]
    table: list[tuple[str, ...]] = [("", *(one.title for one in every))]
    table += [(kind, *(one.layers[kind] for one in every)) for kind in KINDS]
    table += [(role, *(_names(one, role) for one in every)) for role in ROLES]
    table += [(f"eps of {kind}", *(_eps(one, kind) for one in every)) for kind in KINDS]
    table.append(("channel axis", *("last" if one.channel_axis == -1 else str(one.channel_axis) for one in every)))
    table.append(("momentum", *(f"{one.momentum:g}" for one in every)))
    table.append(("momentum weighs the", *("old value" if one.momentum_weighs_old else "new batch" for one in every)))
    table.append(("stored variance", *("unbiased" if one.unbiased_running else "biased" for one in every)))
    return table


def _names(convention: Convention, role: str) -> str:
    other = convention.rms_weight if role == "weight" else None
    return f"{convention.arrays[role]} (rms: {other})" if other else convention.arrays[role]


def _eps(convention: Convention, kind: str) -> str:
    value = convention.epsilons[kind]
    return f"{convention.eps_name}={'None: the machine epsilon' if value is None else format_eps(value)}"


def format_eps(value: float) -> str:
    """Return an eps as people write it: 1e-5."""
    return f"{value:.0e}".replace("e-0", "e-")
