"""The page holds the reference's numbers for every choice, and needs nothing from anywhere."""

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import normkit
from normkit.explaining.page import page
from normkit.explaining.page.data import GROUPS, page_data
from normkit.explaining.words import WORDS
from normkit.reference import update_running


class Page(HTMLParser):
    """The tags of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, Any] = {}
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = dict(attrs).get("id") == "data"

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data = json.loads(data)
            self._in_data = False


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return page_data(None)


def test_it_loads_nothing_from_anywhere() -> None:
    text = page()
    for tag, attributes in Page(text).tags:
        assert tag not in ("link", "img", "iframe", "base"), tag
        assert not {"src", "href"} & set(attributes), (tag, attributes)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_every_message_exists() -> None:
    used = files("normkit.explaining.page")
    script, template = (used / "page.js").read_text(), (used / "page.html").read_text()
    named = re.findall(r'say\("([^"]+)"', script) + re.findall(r'data-say="([^"]+)"', template)
    assert len(named) > 30
    assert set(named) <= set(WORDS)


def test_every_choice_is_there(data: dict[str, Any]) -> None:
    for place in data["inputs"]:
        for norm in data["norms"]:
            for groups in GROUPS if norm == "group" else (1,):
                for mode in ("training", "evaluation"):
                    assert f"{place}/{norm}/{groups}/{mode}" in data["choices"]


def test_training_is_torchs(data: dict[str, Any]) -> None:
    entry = data["choices"]["images/last/group/2/training"]
    x = torch.tensor(entry["x"]).reshape(2, 2, 2, 4).movedim(-1, 1)
    y = F.group_norm(x, 2, torch.tensor(entry["weight"]), torch.tensor(entry["bias"])).movedim(1, -1)
    np.testing.assert_allclose(np.reshape(entry["y"], (2, 2, 2, 4)), y.numpy(), atol=3e-6)


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_evaluation_is_torchs(kind: str, data: dict[str, Any]) -> None:
    entry = data["choices"][f"images/first/{kind}/1/evaluation"]
    mean, var = ([seen[name] for seen in entry["statistics"].values()] for name in ("mean", "var"))
    x = torch.tensor(entry["x"]).reshape(2, 4, 2, 2)
    weight, bias = torch.tensor(entry["weight"]), torch.tensor(entry["bias"])
    y = F.batch_norm(x, torch.tensor(mean), torch.tensor(var), weight, bias)
    np.testing.assert_allclose(np.reshape(entry["y"], (2, 4, 2, 2)), y.numpy(), atol=3e-6)
    assert entry["running"]


def test_norms_without_running_statistics_say_so(data: dict[str, Any]) -> None:
    assert data["choices"]["images/first/layer/1/evaluation"] == {"same_as_training": True}


def test_what_the_layer_refuses_is_said(data: dict[str, Any]) -> None:
    assert "more than 1 spatial element" in data["choices"]["features/first/instance/1/training"]["refused"]


def test_running_statistics_follow_the_momentum(data: dict[str, Any]) -> None:
    running = data["running"]
    assert running["momenta"][0] == "0.00"
    assert running["momenta"][-1] == "1.00"
    for momentum, seen in running["of"].items():
        mean: Any = np.zeros(running["channels"])
        for step, batch in enumerate(running["batch_mean"]):
            mean = update_running(mean, batch, float(momentum))
            np.testing.assert_allclose(seen["mean"][step], mean, atol=1e-5)
        np.testing.assert_allclose(seen["var"], seen["torch_var"], atol=1e-6)
        np.testing.assert_allclose(seen["y"], seen["torch_y"], atol=1e-6)


def test_it_begins_with_what_was_explained() -> None:
    x = np.random.default_rng(0).normal(size=(6, 9, 5))
    seen = normkit.explain("group", x, num_groups=3, weight=np.full(9, 3.0))
    found = Page(page(seen, "zh")).data
    assert found["start"] == {"input": "yours", "layout": "first", "norm": "group", "groups": 3, "mode": "training"}
    entry = found["choices"]["yours/first/group/3/training"]
    assert entry["count"] == 15
    assert entry["weight"] == [3.0] * 9
    np.testing.assert_allclose(entry["x"], x[:3].round(6))
    assert entry["cut"]
    assert "divisible" in found["choices"]["yours/first/group/2/training"]["refused"]
    assert 'lang="zh"' in page(seen, "zh")


def test_its_own_example_is_no_array_of_yours() -> None:
    found = Page(page(normkit.explain("group", num_groups=2))).data
    assert found["start"] == {"input": "images", "layout": "first", "norm": "group", "groups": 2, "mode": "training"}
    assert not any(place.startswith("yours") for place in found["inputs"])


def test_an_array_of_yours_is_evaluated_by_its_own_statistics() -> None:
    x = np.random.default_rng(0).normal(100.0, 2.0, size=(8, 3, 5))
    found = Page(page(normkit.explain("batch", x))).data["choices"]
    trained, evaluated = (found[f"yours/first/batch/1/{mode}"] for mode in ("training", "evaluation"))
    assert evaluated["is_own"]
    assert evaluated["weight"] == trained["weight"]
    assert evaluated["statistics"]["0"]["mean"] == pytest.approx(x[:, 0].mean() * (1 - 0.9**10), rel=1e-6)


def test_a_large_array_is_shown_with_its_norm_alone() -> None:
    x = np.random.default_rng(0).normal(size=(2, 8, 100, 100))
    found = Page(page(normkit.explain("instance", x))).data["choices"]
    assert found["yours/first/instance/1/training"]["num_sets"] == 16
    assert "up to 100,000 values" in found["yours/first/batch/1/training"]["refused"]


@pytest.mark.parametrize("shape", [(4,), (2, 3, 2, 2, 2, 2)])
def test_an_array_of_any_rank_has_a_page(shape: tuple[int, ...]) -> None:
    found = Page(page(normkit.explain("layer", np.random.default_rng(0).normal(size=shape)))).data
    assert found["choices"]["yours/first/layer/1/training"]["num_sets"] == (1 if len(shape) == 1 else 2)


def test_text_in_the_data_cannot_end_the_script() -> None:
    text = page()
    assert text.count("</script>") == 2
