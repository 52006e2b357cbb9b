"""The numbers of an explanation are the layer's, and so are its refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import normkit
from normkit.explaining.example import learned

LAYERS: list[tuple[str, Any, dict[str, Any]]] = [
    ("batch", torch.nn.BatchNorm2d(4), {}),
    ("instance", torch.nn.InstanceNorm2d(4, affine=True), {}),
    ("group", torch.nn.GroupNorm(2, 4), {"num_groups": 2}),
    ("layer", torch.nn.LayerNorm((4, 3, 2)), {}),
    ("rms", torch.nn.RMSNorm((4, 3, 2)), {}),
    ("rms", torch.nn.RMSNorm(2), {"normalized_shape": (2,)}),
]


@pytest.mark.parametrize(("kind", "layer", "arguments"), LAYERS)
def test_the_result_is_that_of_the_layer_it_names(kind: str, layer: Any, arguments: Any) -> None:
    x = torch.randn(3, 4, 3, 2)
    weight, bias = learned(tuple(layer.weight.shape))
    layer.weight.data[:] = torch.from_numpy(weight).float()
    if kind != "rms":
        layer.bias.data[:] = torch.from_numpy(bias).float()
        arguments = {**arguments, "bias": bias}
    seen = normkit.explain(kind, x, weight=weight, **arguments)
    np.testing.assert_allclose(seen.y, layer(x).detach().numpy(), rtol=1e-5, atol=2e-6)
    assert type(layer).__name__ in seen.case.layer


@pytest.mark.parametrize("channels_last", [False, True])
def test_each_set_has_its_own_mean_and_variance(channels_last: bool) -> None:
    seen = normkit.explain("group", channels_last=channels_last, num_groups=1)
    for number in range(seen.case.num_sets):
        cells = seen.x[seen.case.sets == number]
        assert seen.mean[number] == pytest.approx(cells.mean())
        assert seen.var[number] == pytest.approx(cells.var())
        np.testing.assert_allclose(seen.deviation[seen.case.sets == number], cells - cells.mean())
    np.testing.assert_allclose(seen.after[0], 0, atol=1e-12)
    np.testing.assert_allclose(seen.after[1], seen.var / (seen.var + seen.eps))


def test_the_json_holds_the_numbers() -> None:
    seen = normkit.explain("layer", np.arange(12.0).reshape(2, 3, 2))
    tree = json.loads(json.dumps(seen.to_dict()))
    assert tree["mean"] == [2.5, 8.5]
    assert tree["reduced"] == ["C", "L"]
    assert tree["view"] == {"A": 2, "R": 1, "K": 1, "S": 6}
    np.testing.assert_array_equal(tree["y"], seen.y)


@pytest.mark.parametrize(
    ("kind", "x", "arguments", "message"),
    [
        ("group", np.ones((2, 4)), {"num_groups": 3}, "divisible by num_groups; got 4 channels and num_groups=3"),
        ("batch", np.ones((1, 4)), {}, "Expected more than 1 value per channel when training"),
        ("instance", np.ones((2, 4)), {}, "Expected more than 1 spatial element when training"),
        ("batch", np.ones(4), {}, "at least 2 axes"),
        ("layer", np.ones((2, 4)), {"normalized_shape": (5,)}, r"Given normalized_shape=\[5\]"),
        ("batch", np.ones((2, 4)), {"weight": np.ones(3)}, "weight"),
        ("rms", np.ones((2, 4)), {"bias": np.ones(4)}, "no bias"),
        ("batch", np.array([[1.0, np.nan]]), {}, "finite"),
        ("batch", np.array([["a", "b"]]), {}, "numbers"),
        ("batch", np.ones((2, 4), complex), {}, "real numbers"),
        ("batch", [[1.0], [2.0, 3.0]], {}, "array of numbers"),
        ("batch", torch.ones(2, 4, dtype=torch.complex64), {}, "real numbers"),
        ("batch", np.float64(3.0), {}, r"with axes and values; got shape \(\)"),
        ("batch", np.ones((0, 4)), {}, "with axes and values"),
        ("batch", np.full((2, 4), 1e200), {}, "overflow: scale the array"),
        (np.ones((2, 4)), "batch", {}, "numbers; got"),
        (["batch"], np.ones((2, 4)), {}, "expected the name of a norm"),
    ],
)
def test_what_the_layer_refuses_is_refused_in_its_words(kind: str, x: Any, arguments: Any, message: str) -> None:
    with pytest.raises(normkit.UserError, match=message):
        normkit.explain(kind, x, **arguments)


@pytest.mark.parametrize(
    ("x", "arguments", "is_said"),
    [(None, {}, True), (None, {"weight": [1.0, 2.0, 3.0, 4.0]}, False), (np.ones((2, 4)), {}, False)],
)
def test_a_variance_of_one_is_said_where_it_is_true(x: Any, arguments: Any, is_said: bool) -> None:
    assert ("a little below 1" in str(normkit.explain("batch", x, **arguments))) == is_said


def test_a_layer_is_named_only_where_there_is_one() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 2, 2, 2))
    assert normkit.explain("batch", x).case.layer == "normkit.functional.batch_norm"
    assert normkit.explain("instance").case.layer == "torch.nn.InstanceNorm2d(4, affine=True)"
    assert normkit.explain("layer", x, normalized_shape=2).case.layer == "torch.nn.LayerNorm(2)"


def test_the_language_is_that_of_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "批归一化" in str(normkit.explain("batch"))
    assert "批归一化" in normkit.explain("batch")._repr_html_()


def test_str_and_notebook_and_files(tmp_path: Path) -> None:
    seen = normkit.explain("group", np.arange(16.0).reshape(2, 4, 2), num_groups=2)
    assert "torch.nn.GroupNorm(2, 4)" in str(seen)
    html = seen._repr_html_()
    assert html.startswith("<div")
    assert "<svg" in html
    assert "GroupNorm" in html
    seen.save(tmp_path / "a.svg")
    seen.save(str(tmp_path / "a.png"))
    seen.save(tmp_path / "a.html", lang="zh")
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "a.png", "a.html"}


def test_in_jupyter_the_text_is_returned_and_not_displayed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = normkit.explain("batch")
    text, html = str(seen), seen._repr_html_()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(seen) == text
    assert seen._repr_html_() == html


@pytest.mark.parametrize(
    ("name", "message"), [("a.gif", "ends in .svg, .png or .html"), ("no/a.svg", "does not exist")]
)
def test_a_file_that_cannot_be_is_not_touched(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(normkit.UserError, match=message):
        normkit.explain("batch").save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
