"""The report in a real browser: it needs no network, its tables work, and text from the data stays text."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

sys.path.append(str(Path(__file__).parent.parent / "unit" / "report"))

from report_fixture import HOSTILE, NEEDLE, make_run  # pyright: ignore[reportMissingImports]

from offsft.evaluate.table import evaluation_table, write_table
from offsft.report.evaluation_page import write_evaluation_page
from offsft.report.page import write_report
from tests.programs import find, require

pytestmark = pytest.mark.e2e

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1280,900",
)
WAIT_S = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    require("chromium", "chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(find("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(find("chromedriver")))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "made-up", samples=2)
    write_report(folder)
    return folder


@pytest.fixture
def page(browser: webdriver.Chrome, run: Path) -> Iterator[webdriver.Chrome]:
    """The page, freshly loaded; fails a test that left an error in the console."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get((run / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def shown(table: WebElement) -> str:
    return table.find_element(By.CSS_SELECTOR, ".shown").text


def body_rows(table: WebElement) -> list[WebElement]:
    return table.find_elements(By.CSS_SELECTOR, "tbody > tr:not(.details)")


def until(page: webdriver.Chrome, condition: Callable[[], bool]) -> None:
    WebDriverWait(page, WAIT_S).until(lambda _: condition())


def test_page_asks_for_nothing_but_itself(page: webdriver.Chrome, run: Path) -> None:
    events: list[dict[str, Any]] = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert (run / "report.html").as_uri() in asked, "the log must hold requests at all"
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    assert page.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)") == []


def test_text_from_the_data_does_not_run(page: webdriver.Chrome) -> None:
    for summary in page.find_elements(By.TAG_NAME, "details"):
        page.execute_script("arguments[0].open = true", summary)
    assert page.execute_script("return [typeof window.injected, document.images.length]") == ["undefined", 0]
    problems = [cell.get_property("textContent") for cell in page.find_elements(By.CSS_SELECTOR, "#rewrites .cell")]
    assert HOSTILE in problems


def test_filter_by_source(page: webdriver.Chrome) -> None:
    table = page.find_element(By.ID, "rewrites")
    assert shown(table) == "60 of 60 shown"
    table.find_element(By.CSS_SELECTOR, "button[data-group=guided]").click()
    assert shown(table) == "12 of 60 shown"
    badges = [row.find_element(By.CSS_SELECTOR, ".badge").text for row in body_rows(table)]
    assert badges == ["guided"] * 12
    table.find_element(By.CSS_SELECTOR, "button[data-group=all]").click()
    assert shown(table) == "60 of 60 shown"


def test_search_within_a_filter(page: webdriver.Chrome) -> None:
    table = page.find_element(By.ID, "rewrites")
    search = table.find_element(By.CSS_SELECTOR, "input")
    search.send_keys(NEEDLE.upper())
    until(page, lambda: shown(table) == "1 of 60 shown")
    assert body_rows(table)[0].find_element(By.TAG_NAME, "mark").text == NEEDLE
    table.find_element(By.CSS_SELECTOR, "button[data-group=self]").click()
    assert shown(table) == "0 of 60 shown"
    table.find_element(By.CSS_SELECTOR, "button[data-group=expert]").click()
    assert shown(table) == "1 of 60 shown"


def test_pages_show_every_row_once(page: webdriver.Chrome) -> None:
    table = page.find_element(By.ID, "rewrites")
    following = table.find_element(By.CSS_SELECTOR, ".next")
    counts = [len(body_rows(table))]
    while following.is_enabled():
        following.click()
        counts.append(len(body_rows(table)))
    assert counts == [20, 20, 20]
    assert table.find_element(By.CSS_SELECTOR, ".page").text == "41–60 of 60"
    table.find_element(By.CSS_SELECTOR, ".previous").click()
    assert table.find_element(By.CSS_SELECTOR, ".page").text == "21–40 of 60"


def test_attempts_open_and_close(page: webdriver.Chrome) -> None:
    table = page.find_element(By.ID, "rewrites")
    rows = json.loads(str(table.find_element(By.TAG_NAME, "script").get_property("textContent")))
    more = body_rows(table)[2].find_element(By.CSS_SELECTOR, "button.more")
    more.click()
    assert more.get_attribute("aria-expanded") == "true"
    opened = table.find_elements(By.CSS_SELECTOR, ".attempt .text")
    assert [text.get_property("textContent") for text in opened] == [attempt["text"] for attempt in rows[2]["attempts"]]
    more.click()
    assert table.find_elements(By.CSS_SELECTOR, ".attempt") == []


def test_answers_of_both_models(page: webdriver.Chrome) -> None:
    table = page.find_element(By.ID, "evaluation")
    buttons = table.find_elements(By.CSS_SELECTOR, ".filters button")
    counts = [int(button.find_element(By.CSS_SELECTOR, ".n").text) for button in buttons]
    assert counts[0] == sum(counts[1:]) == 40
    table.find_element(By.CSS_SELECTOR, "button[data-group=improved]").click()
    assert shown(table) == f"{counts[1]} of 40 shown"
    body_rows(table)[0].find_element(By.CSS_SELECTOR, "button.more").click()
    assert len(table.find_elements(By.CSS_SELECTOR, ".attempt")) == 4, "two samples of each model"


def test_an_evaluations_answers_by_outcome(page: webdriver.Chrome, run: Path) -> None:
    answers = {name: pyarrow.dataset.dataset(run / "evaluation" / name).to_table() for name in ("base", "trained")}
    write_table(evaluation_table(answers, {"held_out": 0}), run)
    write_evaluation_page(run)
    page.get((run / "evaluation.html").as_uri())
    table = page.find_element(By.ID, "samples")
    assert shown(table) == "80 of 80 shown"
    table.find_element(By.CSS_SELECTOR, "button[data-group=truncated]").click()
    samples = [row["samples"] for model in answers.values() for row in model.to_pylist()]
    cut = sum(any(sample["outcome"] == "truncated" for sample in each) for each in samples)
    assert shown(table) == f"{cut} of 80 shown"
    body_rows(table)[0].find_element(By.CSS_SELECTOR, "button.more").click()
    outcomes = [kind.text for kind in table.find_elements(By.CSS_SELECTOR, ".attempt .kind")]
    assert len(outcomes) == 2
    assert "truncated" in outcomes
    assert page.execute_script("return typeof window.injected") == "undefined"


@pytest.mark.parametrize(("width", "variant"), [(1280, "wide"), (390, "narrow")])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_on_wide_and_narrow_screens(page: webdriver.Chrome, width: int, variant: str, scheme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    figures = page.find_elements(By.CSS_SELECTOR, "figure svg")
    visible = [figure for figure in figures if figure.is_displayed()]
    assert len(visible) == 7
    for figure in visible:
        assert figure.find_element(By.XPATH, "..").get_attribute("class") == variant
        assert figure.size["width"] > 300
        assert figure.size["height"] > 60
    assert page.execute_script("return document.documentElement.scrollWidth") <= width, "nothing sticks out"
    paper, ink = page.execute_script(
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('#figure-gap svg text')).fill]"
    )
    assert (brightness(paper) > brightness(ink)) is (scheme == "light"), (paper, ink)


def brightness(color: str) -> int:
    """Sum of the channels of a computed `rgb(r, g, b)`."""
    return sum(int(channel) for channel in color[color.index("(") + 1 : -1].split(",")[:3])
