"""The page of a diagnosis: whole, and in headless Chromium light and dark, narrow and wide."""

import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import normkit
from normkit.model.diagnose.page import page, save
from tests.model.patients import averaged, data, healthy, nan_channel

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def test_a_page_holds_causes_plots_and_numbers() -> None:
    found = normkit.diagnose(*averaged())
    text = page(found)
    shown = Page(text)
    assert "never-updated" in shown.text
    assert "normkit.recalibrate(model, data)" in shown.text
    assert found.findings[0].number in shown.text
    assert shown.count("svg") == 1 + 3 * len(found.layers)
    assert shown.count("tr") == 1 + len(found.layers)
    assert shown.count("script") == 0
    assert [tag for tag, attributes in shown.tags if {"src", "href"} & set(attributes)] == []
    assert "http" not in text.replace("http://www.w3.org/", "")
    assert "#0" not in text.partition("</style>")[2].replace('"#', "")  # no colour but the page's own


def test_plots_show_the_numbers() -> None:
    text = page(normkit.diagnose(*averaged()))
    plots = [part.partition("</svg>")[0] for part in text.split("<svg")[2:]]
    assert all("running mean" in plot for plot in plots[::3])
    assert all(plot.count("<use ") >= 12 for plot in plots[::3])  # a point a channel
    assert all("running std" in plot for plot in plots[1::3])
    assert all("evaluation form" in plot for plot in plots[2::3])


def test_pages_of_any_diagnosis(tmp_path: Path) -> None:
    import torch

    cases = (
        (healthy(), data()[:3]),
        nan_channel(),
        (torch.nn.BatchNorm1d(2), [torch.randn(4, 2)]),
        (torch.nn.Linear(2, 2), [torch.randn(4, 2)]),
    )
    for model, batches in cases:
        found = normkit.diagnose(model, batches)
        save(found, tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text()
        assert ("<h1>Healthy</h1>" in text) == found.healthy


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    save(normkit.diagnose(*averaged()), path)
    return path


@pytest.mark.interop
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_and_asks_for_nothing(width: int, scheme: Any, file: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((found for name in names if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("needs a Chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked: list[str] = []
        view.on("request", lambda request: asked.append(request.url))
        view.on("pageerror", lambda error: asked.append(str(error)))
        view.goto(file.as_uri())
        assert asked == [file.as_uri()]
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        colours = "[document.body, document.querySelector('svg text')].map(one => getComputedStyle(one).{})"
        (background, _), (text, fill) = (view.evaluate(colours.format(name)) for name in ("backgroundColor", "color"))
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
        assert text != background
        assert view.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == fill
        assert view.locator("svg").first.bounding_box()["width"] > 250
        browser.close()
