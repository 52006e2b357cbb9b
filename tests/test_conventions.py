"""The table of conventions agrees with the libraries that are installed, and with what the cheat sheet says."""

import inspect
from pathlib import Path

import pytest
from torch import nn

from normkit import conventions
from normkit.checking import families
from normkit.conventions import CONVENTIONS, KINDS, format_eps

SHEET = Path(__file__).parent.parent / "docs" / "cheat-sheet.md"


def sheet_rows() -> dict[str, list[str]]:
    """The rows of the tables with five libraries, by their first cell."""
    found: dict[str, list[str]] = {}
    for line in SHEET.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 6:
            found.setdefault(cells[0], cells[1:])
    return found


def column(of: str) -> int:
    return list(CONVENTIONS).index(of)


@pytest.mark.parametrize("library", CONVENTIONS)
def test_the_cheat_sheet_agrees(library: str) -> None:
    sheet, convention = sheet_rows(), CONVENTIONS[library]

    def cell(row: str) -> str:
        return sheet[row][column(library)]

    for kind in KINDS:
        row = "RMS" if kind == "rms" else kind.capitalize()
        assert cell(row).startswith(f"`{convention.layers[kind]}`")
        eps = convention.epsilons[kind]
        assert ("None" if eps is None else format_eps(eps)) in cell(f"eps of {row}")
    assert f"{convention.eps_name}=" in cell("eps of Batch")
    assert f"`{convention.arrays['weight']}`, `{convention.arrays['bias']}`" in cell("weight, bias")
    assert (convention.rms_weight is not None) == ("RMS:" in cell("weight, bias"))
    assert f"`{convention.arrays['running_mean']}`, `{convention.arrays['running_var']}`" in cell("running statistics")
    assert ("old" in cell("momentum weighs")) == convention.momentum_weighs_old
    assert cell("momentum weighs").endswith(f"{convention.momentum:g}")
    assert cell("stored variance").strip("*") == ("unbiased" if convention.unbiased_running else "biased")
    assert ("1" in cell("channel axis") and "-1" not in cell("channel axis")) == (convention.channel_axis == 1)


def test_torch_agrees() -> None:
    torch_layers = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "layer": nn.LayerNorm}
    torch_layers |= {"instance": nn.InstanceNorm2d, "rms": nn.RMSNorm}
    convention = CONVENTIONS["torch"]
    for kind, cls in torch_layers.items():
        assert inspect.signature(cls).parameters[convention.eps_name].default == convention.epsilons[kind]
    assert inspect.signature(nn.BatchNorm2d).parameters["momentum"].default == convention.momentum
    assert set(convention.arrays.values()) <= set(nn.BatchNorm2d(3).state_dict())


@pytest.mark.interop
def test_keras_and_flax_agree() -> None:
    flax = pytest.importorskip("flax.linen")
    keras = pytest.importorskip("keras")
    for library, convention in ((flax, CONVENTIONS["flax"]), (keras.layers, CONVENTIONS["keras"])):
        for kind in KINDS:
            cls = getattr(library, convention.layers[kind].partition("(")[0])
            assert inspect.signature(cls).parameters[convention.eps_name].default == convention.epsilons[kind], cls
        batch = getattr(library, convention.layers["batch"])
        assert inspect.signature(batch).parameters["momentum"].default == convention.momentum


def test_check_uses_the_same_table() -> None:
    assert all(CONVENTIONS[name] is convention for name, convention in families.CONVENTIONS.items())


def test_momentum_is_converted_both_ways() -> None:
    keras, torch, mlx = (CONVENTIONS[name] for name in ("keras", "torch", "mlx"))
    assert keras.convert_momentum(0.99, torch) == 0.01
    assert torch.convert_momentum(0.01, keras) == 0.99
    assert torch.convert_momentum(0.2, mlx) == 0.2


def test_the_table_for_people_has_a_cell_for_each_library() -> None:
    table = conventions.rows()
    assert table[0][1:] == ("torch", "Keras", "Flax", "MLX", "ONNX")
    assert {len(row) for row in table} == {6}
    assert ("weight", "weight", "gamma (rms: scale)", "scale", "weight", "scale") in table
