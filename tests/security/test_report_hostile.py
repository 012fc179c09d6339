"""A run whose every text attacks the report, in a real browser: nothing of it runs or is loaded.

Every string of every file is replaced: requests, answers, verdicts, names of gates, detectors,
metrics, tiers and alarms, what a judge or an error said, config keys and values, the run's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rltrain.report import write_report
from rltrain.report.build import write_poster
from tests.report.synthetic import write_run

pytestmark = pytest.mark.browser

ATTACK = (
    "x</script></style></title><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    "<svg onload=window.hacked=1><a href=\"javascript:window.hacked=1\" id=stolen>y</a>"
    "<iframe srcdoc='<script>parent.hacked=1</script>'></iframe><base href=//evil.example/>"
    "\" onmouseover=\"window.hacked=1\" ' {{ 7*7 }} {% raw %} ${7*7} --><!-- ]]> &lt;b&gt; \u202e"
)
KEPT = {"judge", "format", "keep", "zero", "drop", "train", "test"}
"""Words that the report asks for; replaced, those rows would only vanish."""


def attack(value: Any, keys: bool = True) -> Any:
    """The same shape with the attack behind every text, and behind every key if asked."""
    if isinstance(value, dict):
        return {
            (f"{key}{ATTACK}" if keys else key): attack(item, keys) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [attack(item, keys) for item in value]
    return f"{value}{ATTACK}" if isinstance(value, str) and value not in KEPT else value


def attack_run(run: Path) -> None:
    for path in (*run.glob("rollouts/*.parquet"), *run.glob("eval/*.parquet")):
        table = pq.read_table(path)
        rows = [attack(row, keys=False) for row in table.to_pylist()]
        pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    for path in run.glob("facts/*.json"):
        values = json.loads(path.read_text())
        hostile = attack(values, keys=False)
        for name in ("by_tier", "flags", "dropped", "versions", "machine"):
            if name in values:
                hostile[name] = attack(values[name])
        path.write_text(json.dumps(hostile))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for name in [n for n in row if n.startswith(("gate/", "flag/", "alarm/", "faults/"))]:
            kind, middle, *rest = name.split("/")
            row["/".join([kind, middle + ATTACK.replace("/", "\u2215"), *rest])] = row[name]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["detectors"]["rollout"] = attack(config["detectors"]["rollout"])
    config["environment"] = attack(config["environment"])
    config["name"] += ATTACK
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with (run / "events.jsonl").open("a") as file:
        for kind in ("restart", "resume", "outage", "outage_over", "stopped", ATTACK):
            event = {"time": rows[3]["time"], "process": ATTACK, "kind": kind, "text": ATTACK}
            if kind.startswith("outage"):
                event["text"] = f"{ATTACK} cannot be reached: {ATTACK}"
            file.write(json.dumps(event) + "\n")
        file.write(json.dumps({"time": ATTACK, "kind": ["no", {"text": ATTACK}]}) + "\n")
    (run / "ledger.sqlite").write_bytes(b"<script>window.hacked=1</script>" * 200)
    (run / "rollouts" / "step-00002.parquet").write_text(ATTACK)
    checkpoint = run / "checkpoints" / "step-00001<img src=x onerror=window.hacked=1>"
    checkpoint.mkdir(parents=True)
    sums = {"sha256": {ATTACK.replace("/", "\u2215"): "0"}, "step": 1}
    (checkpoint / "COMPLETE.json").write_text(json.dumps(sums))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = write_run(tmp_path_factory.mktemp("hostile") / "run", hostile=True)
    attack_run(made)
    return made


@pytest.mark.parametrize("kind", ["report", "poster"])
def test_no_text_of_a_run_becomes_part_of_the_page(show: Any, run: Path, kind: str) -> None:
    page = write_report(run) if kind == "report" else write_poster(run, run / "poster.html")
    assert page.read_text().count("window.hacked=1") > (300 if kind == "report" else 0)
    browser = show(page)
    browser.execute_script(
        "for (const e of document.querySelectorAll('*'))"
        " for (const name of ['mouseover', 'mouseenter', 'focus', 'click'])"
        "  if (e.tagName !== 'A' && !e.closest('.chart'))"
        "   e.dispatchEvent(new MouseEvent(name, {bubbles: true}));"
        "for (const chart of document.querySelectorAll('.chart'))"
        " chart.data.forEach((trace, n) =>"
        "  trace.x?.length && Plotly.Fx.hover(chart, [{curveNumber: n, pointNumber: 0}]))"
    )
    assert browser.execute_script("return window.hacked === undefined")
    strange = (
        "return [...document.querySelectorAll('img, iframe, base, object, embed, #stolen,"
        " [onerror], [onload], [onmouseover], main script, a')]"
        ".filter(e => !(e.tagName === 'A' && e.getAttribute('href')?.startsWith('#')))"
        ".map(e => e.outerHTML.slice(0, 200))"
    )
    assert browser.execute_script(strange) == []
    scripts = "return document.querySelectorAll('script').length"
    assert browser.execute_script(scripts) == 3
    # A refused script or picture is an error of the content security policy on the console.
    assert [line for line in browser.get_log("browser") if line["level"] == "SEVERE"] == []
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].split(":")[0]
        for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {"file", "data", "blob"}


def test_nothing_was_written_outside_of_the_run(run: Path) -> None:
    assert [path.name for path in run.parent.iterdir()] == [run.name]
