"""Pictures of a report, taken by a real browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from rltrain.errors import RltrainError, UserError
from rltrain.report.build import write_poster
from rltrain.track.files import replacing

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)
"""No sandbox: it does not start as root, in containers and CI; the pages are our own files."""
_DRAW_MS = 8_000
_TIMEOUT_S = 90


def find_browser() -> str | None:
    """Path of the first Chromium-like browser on PATH."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def screenshot(html: Path, png: Path, width: int, height: int) -> Path:
    """Draw a local page at a window size in CSS pixels; returns `png`.

    Raises `UserError` if there is no browser, `RltrainError` if it drew nothing."""
    browser = find_browser()
    if browser is None:
        raise UserError(
            "no Chromium or Chrome found for the picture; install one "
            "(Debian: apt-get install chromium) or open the HTML file instead"
        )
    with tempfile.TemporaryDirectory() as profile, replacing(png) as temporary:
        # Chromium chooses the format by the suffix, which the temporary name does not have.
        drawn = Path(profile) / "drawn.png"
        command = [
            browser, *FLAGS, f"--user-data-dir={profile}/profile",
            f"--window-size={width},{height}", f"--virtual-time-budget={_DRAW_MS}",
            f"--screenshot={drawn}", html.resolve().as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise RltrainError(f"{browser} did not draw {html} in {_TIMEOUT_S} s") from error
        if not drawn.exists():
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise RltrainError(f"{browser} drew nothing of {html}: {last}")
        shutil.copyfile(drawn, temporary)
    return png


def write_headline_png(run_dir: Path, png: Path, width: int = 1280, height: int = 560) -> Path:
    """Reward and truth, the gates and the hacks of a run in one picture, for a README."""
    with tempfile.TemporaryDirectory() as folder:
        page = write_poster(run_dir, Path(folder) / "poster.html")
        return screenshot(page, png, width, height)
