"""What is told of an outage: its beginning once it matters, and its end, always both or neither."""

from __future__ import annotations

import pytest

from rltrain.outage import Outages

Log = list[tuple[str, str]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def outages(clock: Clock) -> tuple[Outages, Log]:
    log: Log = []
    return Outages(lambda kind, text: log.append((kind, text)), clock), log


def test_an_outage_is_told_once_and_with_its_length(clock: Clock) -> None:
    made, log = outages(clock)
    for clock.now in (0.0, 0.5, 1.5, 2.5):
        made.failed("engine A", "refused")
    clock.now = 7.25
    made.answered("engine A")
    made.answered("engine A")
    assert log == [
        ("outage", "engine A cannot be reached: refused"),
        ("outage_over", "engine A answers again after 7.2 s"),
    ]


def test_a_hiccup_and_a_service_that_never_failed_are_not_told(clock: Clock) -> None:
    made, log = outages(clock)
    made.failed("judge", "HTTP 503")
    clock.now = 0.9
    made.answered("judge")
    clock.now = 50.0
    made.failed("judge", "HTTP 503")
    made.close()
    assert log == []


def test_what_is_out_when_nobody_asks_any_more_gets_an_end(clock: Clock) -> None:
    made, log = outages(clock)
    made.failed("judge", "x")
    clock.now = 3.0
    made.failed("judge", "x")
    made.close()
    made.close()
    assert [kind for kind, _ in log] == ["outage", "outage_over"] and "3.0 s" in log[1][1]
