"""The page of the HTTP services in a real browser, with a small server that gives scripted answers in our API."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from services.static import page_router
from tests.programs import find, require

pytestmark = pytest.mark.e2e

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1280,1000")  # fmt: skip
WAIT_S = 60
HOSTILE = "<img src=x onerror='window.injected=1'><|im_end|>"
EXAMPLE = {"name": "Apples", "problem": "Ann has 3 bags of 4 apples.", "solution": "3 * 4 = 12", "answer": "12"}
RESULT = {
    "id": "r1", "model": "base", "revision": "abc", "source": "guided", "response": f"{HOSTILE} 12", "answer": "12",
    "tokens": [{"text": HOSTILE, "policy_logprob": -0.02, "behavior_logprob": None},
               {"text": " 12", "policy_logprob": -2.5, "behavior_logprob": -1.0}],
    "expert_tokens": [{"text": "3 * 4", "policy_logprob": -5.0}, {"text": " = 12", "policy_logprob": -0.3}],
    "gap": {"kept_mean_logprob": -1.26, "expert_mean_logprob": -2.65, "closed": 1.39},
    "usage": {"prompt_tokens": 40, "completion_tokens": 30, "total_tokens": 70},
    "timing": {"seconds": 1.5, "queued_seconds": 0.1},
}  # fmt: skip
EVENTS = [
    ("start", {"id": "r1", "model": "base", "revision": "abc", "stages": ["self", "guided", "expert"]}),
    ("stage", {"stage": "self", "n": 1}),
    ("attempt", {"stage": "self", "outcome": "wrong", "tokens": 9, "text": HOSTILE}),
    ("stage", {"stage": "guided", "n": 1}),
    ("attempt", {"stage": "guided", "outcome": "correct", "tokens": 8, "text": "It is 12."}),
    ("result", RESULT),
]


class Script:
    """The server's next step: `gate` holds the stream after the first attempt, `status` refuses, `cut` breaks off."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gone = threading.Event()
        self.status, self.cut = 200, False
        self.asked: list[Any] = []


def scripted(script: Script) -> FastAPI:
    app = FastAPI()
    app.include_router(page_router)

    @app.get("/v1/examples")
    def examples() -> Any:
        return {"examples": [EXAMPLE]}

    @app.get("/v1/models")
    def models() -> Any:
        return {"data": [{"id": "base", "revision": "abc", "default": True}, {"id": "new", "default": False}]}

    @app.post("/v1/rewrite")
    async def rewrite(request: Request) -> Any:
        script.asked.append((request.headers.get("authorization"), await request.json()))
        if script.status != 200:
            error = {"message": HOSTILE, "type": "t", "param": None, "code": None}
            return JSONResponse({"error": error}, script.status, {"Retry-After": "7"})

        async def told():
            try:
                for number, (name, data) in enumerate(EVENTS):
                    if number == 3:
                        if script.cut:
                            return
                        while not script.gate.is_set():
                            await asyncio.sleep(0.02)
                    yield f"event: {name}\ndata: {json.dumps(data)}\n\n"
                yield "data: [DONE]\n\n"
            except asyncio.CancelledError:
                script.gone.set()
                raise

        return StreamingResponse(told(), media_type="text/event-stream")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        model = (await request.json())["model"]
        pieces = [{"choices": [{"delta": {"content": text}}]} for text in (f"{model} says ", HOSTILE)]
        lines = [f"data: {json.dumps(piece)}\n\n" for piece in pieces]
        return StreamingResponse(iter([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")

    return app


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
def served() -> Iterator[tuple[str, Script]]:
    script = Script()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(scripted(script), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", script
        server.should_exit = True
        thread.join()


@pytest.fixture
def page(browser: webdriver.Chrome, served: tuple[str, Script]) -> Iterator[webdriver.Chrome]:
    """The page with the example chosen; fails a test that ran injected text, left the host or left a console error."""
    url, script = served
    script.__init__()
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(url)
    until(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, "#example option")) == 2)
    browser.find_elements(By.CSS_SELECTOR, "#example option")[1].click()
    yield browser
    script.gate.set()
    assert browser.execute_script("return [typeof window.injected, document.images.length]") == ["undefined", 0]
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert url in asked, "the log must hold requests at all"
    hosts = {urlsplit(address).netloc for address in asked if not address.startswith(("data:", "chrome://"))}
    assert hosts == {urlsplit(url).netloc}
    # `recommendation` is the browser's own advice on forms; messages of the page's script have another source.
    told = [entry for entry in browser.get_log("browser") if entry["source"] not in ("network", "recommendation")]
    assert told == []


def until(page: webdriver.Chrome, condition: Callable[[], bool]) -> None:
    WebDriverWait(page, WAIT_S, poll_frequency=0.05).until(lambda _: condition())


def texts(page: webdriver.Chrome, selector: str) -> list[str]:
    return [str(one.get_property("textContent")) for one in page.find_elements(By.CSS_SELECTOR, selector)]


def press(page: webdriver.Chrome, selector: str) -> None:
    page.find_element(By.CSS_SELECTOR, selector).click()


def error(page: webdriver.Chrome) -> str:
    until(page, lambda: page.find_element(By.CSS_SELECTOR, "#rewrite .error").is_displayed())
    return texts(page, "#rewrite .error")[0]


def test_attempts_appear_while_the_server_works_then_the_result(page, served) -> None:
    page.execute_script("document.querySelector('#key').value = 'k1'")
    press(page, "#ask .go")
    until(page, lambda: texts(page, ".attempt .text") == [HOSTILE])
    assert not page.find_element(By.ID, "result").is_displayed(), "the server still holds the rest back"
    served[1].gate.set()
    until(page, lambda: page.find_element(By.ID, "result").is_displayed())
    assert texts(page, ".stage > .badge") == ["self", "guided"]
    assert texts(page, ".attempt .badge") == ["wrong", "correct"]
    assert texts(page, "#response .token") == [HOSTILE, " 12"]
    tokens = page.find_elements(By.CSS_SELECTOR, "#response .token, #expert .token")
    assert [token.get_attribute("class") for token in tokens] == ["token n0", "token n3", "token n4", "token n1"]
    assert tokens[1].get_attribute("title") == "−2.500 nats"
    assert texts(page, ".tile dd") == ["−1.260", "−2.650", "1.390"]
    key, body = served[1].asked[0]
    assert (key, body["problem"], body["stream"]) == ("Bearer k1", EXAMPLE["problem"], True)


@pytest.mark.parametrize("status", [401, 413, 422, 429, 503])
def test_refusals_are_one_line_of_text(page, served, status: int) -> None:
    served[1].status = status
    press(page, "#ask .go")
    said = error(page)
    assert said.startswith(f"{status}: {HOSTILE}")
    assert "Try again in 7 s." in said


def test_a_stream_cut_off_is_told(page, served) -> None:
    served[1].cut = True
    press(page, "#ask .go")
    assert error(page) == "The stream was cut off before its end. Try again."


def test_no_network_is_told(page) -> None:
    page.execute_script("window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    press(page, "#ask .go")
    assert error(page).startswith("The server cannot be reached.")


def test_stop_ends_the_request_at_the_server(page, served) -> None:
    press(page, "#ask .go")
    until(page, lambda: len(texts(page, ".attempt")) == 1)
    press(page, "#ask .stop")
    until(page, lambda: texts(page, "#rewrite .status") == ["Stopped."])
    assert served[1].gone.wait(WAIT_S)


def test_two_models_answer_side_by_side(page) -> None:
    press(page, "#tab-chat")
    page.find_element(By.ID, "message").send_keys("Hello")
    press(page, "#say .go")
    until(page, lambda: texts(page, "#chat .status") == ["Done."])
    assert texts(page, ".turn:not(.user)") == [f"base says {HOSTILE}", f"new says {HOSTILE}"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_wide_and_narrow_in_both_schemes(page, served, width: int, scheme: str) -> None:
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 1500, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})  # fmt: skip
    served[1].gate.set()
    press(page, "#ask .go")
    until(page, lambda: page.find_element(By.ID, "result").is_displayed())
    assert page.execute_script("return document.documentElement.scrollWidth") <= width, "nothing sticks out"
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 254)", "dark": "rgb(22, 25, 30)"}[scheme]
    if folder := os.environ.get("PAGE_SHOTS"):
        page.save_screenshot(f"{folder}/{scheme}-{width}.png")
