"""The page in headless Chromium: by mouse, by keyboard, in both languages, light and dark, narrow and wide.

Playwright drives the Chromium that the machine has (Debian: ``apt install chromium``). Without one these tests are
skipped.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import normkit
from normkit.explaining.page import page
from normkit.explaining.running import running_statistics

pytestmark = pytest.mark.interop
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install '.[dev]'")
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
X = np.random.default_rng(0).normal(1.0, 2.0, size=(2, 4, 3))
SEEN = normkit.explain("group", X, num_groups=2, weight=[1.0, 2.0, 3.0, 4.0], bias=[0.0, 1.0, 2.0, 3.0])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(SEEN), encoding="utf-8")
    return path


@pytest.fixture
def view(browser: Any, file: Path) -> Iterator[Any]:
    view = browser.new_page()
    errors: list[str] = []
    view.on("pageerror", lambda error: errors.append(str(error)))
    view.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    view.on("request", lambda request: errors.append(request.url) if not request.url.startswith("file:") else None)
    view.goto(file.as_uri())
    yield view
    view.close()
    assert errors == []


def cells(view: Any) -> list[float]:
    return [float(text.split("\n")[-1]) for text in view.locator(".cell").all_inner_texts()]


def choose(view: Any, name: str, value: str) -> None:
    view.locator(f"#{name} input[value='{value}']").check(force=True)


def column(view: Any, table: str, number: int) -> list[float]:
    return [float(text) for text in view.locator(f"#{table} tbody tr td:nth-child({number})").all_inner_texts()]


def test_every_step_shows_the_numbers_of_the_reference(view: Any) -> None:
    for step, expected in (("x", SEEN.x), ("deviation", SEEN.deviation), ("x_hat", SEEN.x_hat), ("y", SEEN.y)):
        choose(view, "step", step)
        np.testing.assert_allclose(cells(view), expected.reshape(-1), atol=0.00501)
    np.testing.assert_allclose(column(view, "sets", 2), SEEN.mean, atol=0.000051)
    np.testing.assert_allclose(column(view, "sets", 3), SEEN.var, atol=0.000051)


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "rms", "channel"])
def test_every_norm_of_the_example_is_the_references(norm: str, view: Any) -> None:
    choose(view, "input", "images")
    choose(view, "norm", norm)
    choose(view, "step", "x_hat")
    np.testing.assert_allclose(cells(view), normkit.explain(norm).x_hat.reshape(-1), atol=0.00501)
    choose(view, "layout", "last")
    np.testing.assert_allclose(cells(view), normkit.explain(norm, channels_last=True).x_hat.reshape(-1), atol=0.00501)


def test_pointing_at_a_cell_shows_its_set(view: Any) -> None:
    view.locator("[data-place='1,2,1']").hover()
    bright = view.locator(".cell:not(.other)")
    assert bright.count() == SEEN.case.count
    assert {one.get_attribute("data-set") for one in bright.all()} == {str(SEEN.case.sets[1, 2, 1])}
    details = view.locator("#details").inner_text()
    assert f"mean = {SEEN.mean[3]:.4f}" in details
    assert f"= {SEEN.x_hat[1, 2, 1]:.4f}" in details
    assert view.locator(".weight.used").count() == 1
    view.locator("h1").hover()
    assert view.locator(".cell.other").count() == 0


def test_the_keyboard_is_enough(view: Any) -> None:
    view.locator("#norm input:checked").focus()
    view.keyboard.press("ArrowRight")
    assert view.evaluate("document.activeElement.value") == "instance"
    assert "InstanceNorm1d" in view.locator("#what").inner_text()
    view.keyboard.press("ArrowLeft")
    for _ in range(12):
        view.keyboard.press("Tab")
        if view.evaluate("document.activeElement.classList.contains('cell')"):
            break
    assert view.evaluate("document.activeElement.dataset.place") == "0,0,0"
    for pressed, place in (
        ("ArrowDown", "0,1,0"),
        ("ArrowRight", "0,1,1"),
        ("ArrowRight", "0,1,2"),
        ("ArrowRight", "1,1,0"),
    ):
        view.keyboard.press(pressed)
        assert view.evaluate("document.activeElement.dataset.place") == place
    assert view.locator(".cell:not(.other)").count() == SEEN.case.count
    view.keyboard.press("Escape")
    assert view.locator(".cell.other").count() == 0


def test_the_slider_moves_the_running_statistics(view: Any) -> None:
    view.locator("#momentum").focus()
    for _ in range(6):
        view.keyboard.press("ArrowRight")
    assert view.locator("#momentum-value").inner_text() == "0.40"
    view.locator("#channel").select_option("2")
    seen = running_statistics(momentum=0.4)
    np.testing.assert_allclose(column(view, "steps-table", 3), [step.mean[2] for step in seen.steps], atol=0.000051)
    np.testing.assert_allclose(column(view, "steps-table", 6), [step.var[2] for step in seen.steps], atol=0.000051)
    np.testing.assert_allclose(
        column(view, "evaluation-table", 2), seen.evaluation.y[0, 2].reshape(-1)[:4], atol=0.000051
    )


def test_evaluation_averages_nothing(view: Any) -> None:
    choose(view, "norm", "batch")
    choose(view, "mode", "evaluation")
    assert "Nothing of this input is averaged" in view.locator("#note").inner_text()
    choose(view, "norm", "layer")
    assert "the same as training" in view.locator("#note").inner_text()


def test_what_a_layer_refuses_is_said(view: Any) -> None:
    choose(view, "input", "features")
    choose(view, "norm", "instance")
    assert "Expected more than 1 spatial element" in view.locator("#note").inner_text()
    assert view.locator(".cell").count() == 0


def test_both_languages(view: Any) -> None:
    english = view.locator("body").inner_text()
    choose(view, "language", "zh")
    chinese = view.locator("body").inner_text()
    assert view.evaluate("document.documentElement.lang") == "zh"
    assert "归一化对哪些值求平均" in chinese
    assert "What a normalization averages" in english
    assert "undefined" not in english + chinese


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_nothing_is_cut_off(width: int, scheme: Any, lang: str, browser: Any, file: Path) -> None:
    view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    view.goto(file.as_uri())
    choose(view, "language", lang)
    assert view.evaluate("document.documentElement.getAttribute('data-theme')") == scheme
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    view.locator("#theme").click()
    assert view.evaluate("document.documentElement.getAttribute('data-theme')") != scheme
    view.close()
