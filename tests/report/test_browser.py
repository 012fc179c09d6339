"""The report in a real Chromium: everything drawn, nothing fetched, nothing of the policy's run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rltrain.report import write_headline_png, write_report
from tests.conftest import Show

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(show: Show, finished: Path) -> Any:
    """The browser with the report open and drawn."""
    return show(write_report(finished))


def test_every_chart_is_drawn(page: Any) -> None:
    places, drawn = page.execute_script(
        "const charts = [...document.querySelectorAll('.chart')];"
        "const traces = '.scatterlayer path.js-line, .barlayer .point path';"
        "return [charts.length, charts.filter(chart => chart.querySelector(traces)).length]"
    )
    assert places == drawn == 12


def test_there_is_no_error_on_the_console_and_no_request_but_the_file_itself(page: Any) -> None:
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requests = {
        message["params"]["request"]["url"].split(":")[0]
        for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    assert requests <= {"file", "data", "blob"}


def test_nothing_that_the_policy_wrote_has_run(page: Any) -> None:
    assert page.execute_script("return window.hacked === undefined")
    assert page.execute_script("return document.querySelectorAll('td img, td b').length") == 0


def test_even_a_script_that_got_through_would_be_refused(page: Any) -> None:
    page.execute_script(
        "const late = document.createElement('script'); late.textContent = 'window.late = 1';"
        "document.body.append(late)"
    )
    assert page.execute_script("return window.late === undefined")


def test_a_table_can_be_searched(page: Any) -> None:
    field = page.find_element("css selector", "input[type=search]")
    rows = "return [...document.querySelectorAll('#hacks-table tbody tr')]"
    everything = page.execute_script(f"{rows}.length")
    field.send_keys("keyword_stuffing late")
    shown = page.execute_script(f"{rows}.filter(row => !row.hidden).map(row => row.textContent)")
    assert 0 < len(shown) < everything
    assert all("keyword_stuffing" in text for text in shown)
    field.clear()
    field.send_keys(" ")
    assert page.execute_script(f"{rows}.filter(row => !row.hidden).length") == everything


def test_a_table_can_be_sorted_by_number_both_ways(page: Any) -> None:
    head = page.find_element("css selector", "#hacks-table thead th")
    steps = (
        "return [...document.querySelectorAll('#hacks-table tbody tr')]"
        ".map(row => Number(row.cells[0].dataset.value))"
    )
    page.execute_script("arguments[0].click()", head)
    up = page.execute_script(steps)
    page.execute_script("arguments[0].click()", head)
    assert up == sorted(up)
    assert page.execute_script(steps) == sorted(up, reverse=True)


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (768, "light"), (1440, "dark")])
def test_the_page_is_never_wider_than_the_screen(page: Any, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    from selenium.webdriver.support.ui import WebDriverWait

    # Charts follow a change of the window a moment later.
    fits = (
        "return [...document.querySelectorAll('.chart svg')]"
        ".every(svg => svg.clientWidth < innerWidth)"
    )
    WebDriverWait(page, 10).until(lambda driver: driver.execute_script(fits))
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    spilling = page.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,p,.tile,figure,.card,nav')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert spilling == 0
    shade = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    red = int(shade.removeprefix("rgb(").split(",")[0])
    assert (red < 60) == (scheme == "dark")


def test_the_headline_picture_is_a_picture_of_that_size(finished: Path, tmp_path: Path) -> None:
    picture = write_headline_png(finished, tmp_path / "headline.png", width=1200, height=560)
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (1200, 560)
    assert len(data) > 30_000  # an empty page would be a few kilobytes
