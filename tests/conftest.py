"""What tests of several folders share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rltrain.report.png import FLAGS, find_browser

Show = Callable[[Path], Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium that keeps its console and its requests."""
    driver = shutil.which("chromedriver")
    if find_browser() is None or driver is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (rltrain[test])")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = find_browser()
    for flag in (*FLAGS, "--window-size=1280,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def show(browser: Any) -> Show:
    """Open a page and return the browser once all its charts are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    drawn = "return document.documentElement.dataset.drawn === 'yes'"

    def shown(page: Path) -> Any:
        browser.get(page.as_uri())
        WebDriverWait(browser, 30).until(lambda driver: driver.execute_script(drawn))
        return browser

    return shown
