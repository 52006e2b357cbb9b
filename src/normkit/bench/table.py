"""The table: every case that is timed, and the choice of rows from it."""

from collections.abc import Sequence
from typing import Any, Final

from normkit.bench.cases import ModelCase, NormCase, Row
from normkit.choices import did_you_mean
from normkit.errors import UserError


def _target(norm: str, shape: tuple[int, ...], forward: float, both: float, **options: Any) -> NormCase:
    return NormCase(norm, shape, (forward, both), headline=True, **options)


HEADLINES: Final = (
    _target("BatchNorm2d", (32, 64, 56, 56), 3.3, 2.5),
    _target("BatchNorm2d", (32, 64, 56, 56), 1.0, 1.0, channels_last=True),
    _target("BatchNorm2d", (32, 256, 14, 14), 6.0, 5.0),
    _target("BatchNorm2d", (32, 256, 14, 14), 2.0, 2.2, channels_last=True),
    _target("BatchNorm2d", (64, 64, 112, 112), 4.0, 3.0),
    _target("BatchNorm3d", (4, 32, 16, 28, 28), 4.0, 3.5),
    _target("BatchNorm1d", (4096, 1024), 1.0, 1.2),
    _target("BatchNorm1d", (64, 128, 500), 3.0, 2.5),
    _target("LayerNorm", (8192, 768), 0.95, 1.0),
    _target("LayerNorm", (4096, 1024), 2.0, 3.0, dtype="bfloat16"),
    _target("RMSNorm", (8192, 768), 2.0, 4.5),
    _target("RMSNorm", (8192, 4096), 6.0, 8.0, dtype="bfloat16"),
    _target("GroupNorm", (8, 320, 64, 64), 0.95, 1.15, groups=32),
    _target("GroupNorm", (8, 320, 64, 64), 0.95, 1.2, groups=32, channels_last=True),
    _target("InstanceNorm2d", (8, 320, 64, 64), 3.5, 2.0),
    _target("InstanceNorm2d", (8, 320, 64, 64), 4.0, 4.0, channels_last=True),
    _target("LayerNorm2d", (32, 96, 56, 56), 1.9, 2.8),
    _target("BatchNorm2d", (32, 64, 56, 56), 1.8, 2.0, dtype="bfloat16"),
)

SMALLEST: Final = (
    NormCase("BatchNorm1d", (8, 64), smallest=True),
    NormCase("BatchNorm2d", (1, 16, 4, 4), smallest=True),
    NormCase("LayerNorm", (1, 768), smallest=True),
    NormCase("RMSNorm", (1, 768), smallest=True),
    NormCase("GroupNorm", (1, 16, 4, 4), groups=4, smallest=True),
    NormCase("InstanceNorm2d", (1, 16, 4, 4), smallest=True),
    NormCase("LayerNorm2d", (1, 16, 4, 4), smallest=True),
    NormCase("BatchNorm2d", (1, 16, 4, 4), channels_last=True),
    NormCase("BatchNormAct2d", (1, 16, 4, 4)),
    NormCase("LayerNorm", (8, 64)),
    NormCase("RMSNorm", (8, 64)),
    NormCase("LayerNorm", (1, 768), dtype="bfloat16"),
    NormCase("BatchNorm1d", (8, 64), dtype="float64"),
)

ODD_SHAPES: Final = (
    NormCase("BatchNorm2d", (7, 13, 17, 19)),
    NormCase("BatchNorm2d", (7, 13, 17, 19), channels_last=True),
    NormCase("BatchNorm1d", (33, 777)),
    NormCase("BatchNorm1d", (5, 31, 97)),
    NormCase("BatchNorm3d", (2, 5, 13, 17, 9)),
    NormCase("LayerNorm", (129, 513)),
    NormCase("LayerNorm", (19, 3, 17, 31), axes=3),
    NormCase("RMSNorm", (129, 513)),
    NormCase("GroupNorm", (3, 21, 13, 17), groups=7),
    NormCase("GroupNorm", (3, 21, 13, 17), groups=7, channels_last=True),
    NormCase("InstanceNorm2d", (3, 21, 13, 17)),
    NormCase("InstanceNorm2d", (3, 21, 13, 17), channels_last=True),
    NormCase("LayerNorm2d", (3, 21, 13, 17)),
)

COMMON_SHAPES: Final = (
    NormCase("BatchNorm2d", (128, 16, 32, 32)),
    NormCase("BatchNorm2d", (16, 512, 7, 7)),
    NormCase("BatchNorm2d", (16, 512, 7, 7), channels_last=True),
    NormCase("BatchNorm2d", (32, 64, 56, 56), affine=False),
    NormCase("BatchNormAct2d", (32, 64, 56, 56)),
    NormCase("BatchNormAct2d", (32, 64, 56, 56), channels_last=True),
    NormCase("BatchNormAct2d", (16, 144, 16, 16)),
    NormCase("BatchNormAct2d", (16, 144, 16, 16), channels_last=True),
    NormCase("BatchNorm1d", (256, 512)),
    NormCase("BatchNorm1d", (64, 128, 500), channels_last=True),
    NormCase("BatchNorm3d", (4, 32, 16, 28, 28), channels_last=True),
    NormCase("LayerNorm", (32, 197, 384)),
    NormCase("LayerNorm", (256, 16, 12, 12), axes=3),
    NormCase("LayerNorm", (8192, 768), affine=False),
    NormCase("RMSNorm", (1, 4096)),
    NormCase("RMSNorm", (2048, 4096)),
    NormCase("GroupNorm", (8, 128, 1000), groups=8),
    NormCase("GroupNorm", (2, 512, 16, 16), groups=32),
    NormCase("InstanceNorm1d", (16, 64, 1000)),
    NormCase("InstanceNorm2d", (8, 64, 64, 64), affine=True),
    NormCase("InstanceNorm3d", (2, 16, 16, 28, 28)),
    NormCase("LayerNorm2d", (32, 96, 56, 56), channels_last=True),
    NormCase("LayerNorm2d", (8, 384, 14, 14)),
)

DTYPES: Final = (
    NormCase("BatchNorm2d", (32, 64, 56, 56), channels_last=True, dtype="bfloat16"),
    NormCase("BatchNorm2d", (32, 64, 56, 56), dtype="bfloat16", mixed=True),
    NormCase("BatchNorm2d", (32, 64, 56, 56), dtype="float16"),
    NormCase("BatchNorm2d", (32, 64, 56, 56), dtype="float64"),
    NormCase("LayerNorm", (4096, 1024), dtype="bfloat16", mixed=True),
    NormCase("LayerNorm", (4096, 1024), dtype="float16"),
    NormCase("LayerNorm", (4096, 1024), dtype="float64"),
    NormCase("RMSNorm", (4096, 1024), dtype="float16"),
    NormCase("RMSNorm", (4096, 1024), dtype="float64"),
    NormCase("GroupNorm", (8, 320, 64, 64), groups=32, dtype="bfloat16"),
    NormCase("GroupNorm", (8, 320, 64, 64), groups=32, dtype="float64"),
    NormCase("InstanceNorm2d", (8, 320, 64, 64), dtype="bfloat16"),
    NormCase("InstanceNorm2d", (8, 320, 64, 64), dtype="float16"),
    NormCase("LayerNorm2d", (32, 96, 56, 56), dtype="bfloat16"),
)

MODELS: Final = (
    ModelCase("mobilenet", (1.7, 1.0)),
    ModelCase("mobilenet", (1.15, 1.0), channels_last=True),
    ModelCase("mobilenet", fused=True),
    ModelCase("mobilenet", fused=True, channels_last=True),
    ModelCase("resnet"),
    ModelCase("resnet", channels_last=True),
    ModelCase("resnet", fused=True),
    ModelCase("lenet"),
    ModelCase("convnext"),
    ModelCase("convnext", channels_last=True),
)

CASES: Final[tuple[NormCase | ModelCase, ...]] = HEADLINES + MODELS + SMALLEST + ODD_SHAPES + COMMON_SHAPES + DTYPES
ROWS: Final = tuple(Row(case, pass_) for case in CASES for pass_ in case.passes)
ROW_BY_NAME: Final = {row.name: row for row in ROWS}
MODEL_NAMES: Final = tuple(dict.fromkeys(case.model for case in MODELS))


def select(text: str = "", models: Sequence[str] = (), *, quick: bool = False) -> list[Row]:
    """Return the rows to time.

    Args:
        text: Words that a row's name must all hold.
        models: Names of networks: their training steps, and nothing else.
        quick: Only the rows of a quick run, unless models are named.
    Raises:
        UserError: a model that does not exist, or nothing is left.
    """
    for model in models:
        if model not in MODEL_NAMES:
            meant = did_you_mean(model, MODEL_NAMES)
            raise UserError(f"`models` must be one of {', '.join(MODEL_NAMES)}, not {model!r}{meant}")
    rows: Sequence[Row] = ROWS
    if models:
        rows = [row for row in rows if isinstance(row.case, ModelCase) and row.case.model in models]
    elif quick:
        rows = [row for row in rows if row.case.quick]
    found = [row for row in rows if row.matches(text.split())]
    if not found:
        which = " of a `quick` run, which has few of them," if quick and not models else ""
        raise UserError(
            f"`text` {text!r} matches none of {len(rows)} rows{which}; a row is called, for example, {rows[0].name!r}"
        )
    return found
