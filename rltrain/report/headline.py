"""The first thing that is read: one sentence, the alarms, and the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rltrain.report import text
from rltrain.report.data import Run

Summary = Mapping[str, Any]


class Tile(NamedTuple):
    """One number with its name, what it is compared with, and whether it is `good` or `bad`."""

    label: str
    value: str
    note: str
    mood: str = ""


def headline(summary: Summary, wall_s: float | None) -> str:
    """What happened, in one sentence that claims no more than was measured."""
    ranking = (summary["offline"] or {}).get("ranking")
    parts = [_ranking(ranking)] if ranking else [_exact(summary), _hacks(summary)]
    took = f" The run took {text.duration(wall_s)}." if wall_s is not None else ""
    return " ".join(part for part in parts if part) + took


def _exact(summary: Summary) -> str:
    before, after = summary["eval"]["before"], summary["eval"]["after"]
    delta = summary["eval"]["delta"]
    if after["exact"] is None or before["exact"] is None:
        done, planned = summary["steps"]["done"], summary["steps"]["planned"]
        known = "" if before["exact"] is None else (
            f" Before training, {text.percent(before['exact'])} of answers were exact."
        )
        return f"The run is not complete: {done} of {planned or '?'} steps, no evaluation " \
            f"at both ends.{known}"
    numbers = f"{text.percent(before['exact'])} to {text.percent(after['exact'])}"
    if delta is None:
        return f"Exact answers went from {numbers}; the answers themselves were not recorded."
    low, high = delta["ci95"]
    interval = (
        f"{text.points(delta['mean'])} points, 95 % interval "
        f"{text.points(low)} to {text.points(high)}"
    )
    tasks = f"on the same {text.integer(delta['n'])} held-out tasks ({interval})."
    if low > 0:
        return f"Exact answers rose from {numbers} {tasks}"
    if high < 0:
        return f"Exact answers fell from {numbers} {tasks}"
    return f"Exact answers did not change measurably: {numbers} {tasks}"


def _ranking(ranking: Mapping[str, Any]) -> str:
    before, after = ranking["before"], ranking["after"]
    if not after["n"]:
        return "The reward model's ranking was not measured: too few tasks to hold any out."
    low, high = (text.percent(end) for end in after["ci95"])
    return (
        f"The reward model ranks {text.percent(after['accuracy'])} of {text.integer(after['n'])} "
        f"held-out pairs right (95 % interval {low} to {high}); "
        f"{text.percent(before['accuracy'])} before training."
    )


def _hacks(summary: Summary) -> str:
    first, last = summary["flags_any"]["first"], summary["flags_any"]["last"]
    if first is None or last is None:
        return ""
    size = summary["window"]["steps"]
    steps = f"{size} step{'s' * (size > 1)}"
    return (
        f"Rollouts flagged as hacks: {text.percent(first)} in the first {steps} of training, "
        f"{text.percent(last)} in the last."
    )


def alarms(summary: Summary) -> list[str]:
    """One line per alarm, and per self-check that failed."""
    lines = []
    for name, raised in summary["alarms"].items():
        count = raised["steps"]
        span = (
            f"at step {raised['first']}" if count == 1
            else f"in {count} steps between {raised['first']} and {raised['last']}"
        )
        lines.append(f"Alarm: {text.words(name)} {span}.")
    failed = [text.words(name) for name, passed in summary["checks"].items() if passed is False]
    lines += [f"Self-check failed: {name}." for name in failed]
    return lines


def wall_s(run: Run) -> float | None:
    """Seconds of the whole run: as recorded, or from its start to the last thing that it logged."""
    recorded = text.number(run.facts["timing"].get("wall_s"))
    if recorded is not None:
        return recorded
    start = text.seconds_since_epoch(run.facts["run"].get("started_at"))
    times = [row["time"] for row in run.rows if "time" in row]
    times += [stamp for event in run.events if (stamp := text.number(event.get("time")))]
    if not times:
        return None
    length = max(times) - (min(times) if start is None else start)
    return length if length >= 0 else None


def tiles(run: Run, summary: Summary, took_s: float | None) -> list[Tile]:
    after, before = summary["eval"]["after"], summary["eval"]["before"]
    delta = summary["eval"]["delta"]
    return [
        Tile("exact on held-out tasks", text.percent(after["exact"]), _from(before["exact"]),
             _mood(delta)),
        _hack_tile(summary),
        Tile("reward, last window", text.decimal(summary["reward"]["last"]),
             _was(summary["reward"]["first"], text.decimal)),
        Tile("truth, last window", text.decimal(summary["truth"]["last"]),
             _was(summary["truth"]["first"], text.decimal)),
        Tile("valid, last window", text.percent(summary["valid"]["last"]),
             _was(summary["valid"]["first"], text.percent)),
        _judge_tile(summary),
        _ledger_tile(summary["ledger"]),
        Tile("staleness, mean", text.decimal(summary["staleness"]["mean"], 2),
             f"largest {text.decimal(summary['staleness']['max'], 0)} policy versions"),
        Tile("sampled tokens", text.integer(summary["tokens"]["generated"]),
             f"{text.integer(summary['tokens']['trained'])} trained"),
        Tile("wall time", text.duration(took_s), _steps(run)),
    ]


def _from(value: Any) -> str:
    return _was(value, text.percent)


def _was(value: Any, form: Any) -> str:
    return "not measured before" if value is None else f"from {form(value)}"


def _mood(delta: Mapping[str, Any] | None, better: int = 1) -> str:
    """Good or bad only if the interval excludes no change."""
    if delta is None:
        return ""
    low, high = sorted(better * bound for bound in delta["ci95"])
    return "good" if low > 0 else "bad" if high < 0 else ""


def _hack_tile(summary: Summary) -> Tile:
    before = summary["eval"]["before"]["hack_rate"]
    after = summary["eval"]["after"]["hack_rate"]
    mood = _mood(summary["eval"]["hack_delta"], better=-1)
    return Tile("flagged on held-out tasks", text.percent(after), _from(before), mood)


def _judge_tile(summary: Summary) -> Tile:
    judge = summary["judge"]
    if judge["kappa"] is None:
        return Tile("judge, kappa", text.NONE, "not calibrated")
    return Tile("judge, kappa", text.decimal(judge["kappa"], 2),
                f"on {text.integer(judge['n'])} labelled pairs")


def _ledger_tile(ledger: Mapping[str, Any]) -> Tile:
    value = {True: "adds up", False: "does not add up", None: text.NONE}[ledger["conserved"]]
    mood = {True: "good", False: "bad", None: ""}[ledger["conserved"]]
    return Tile("rollout ledger", value, f"{text.integer(ledger['issued'])} issued", mood)


def _steps(run: Run) -> str:
    planned = f" of {run.planned}" if run.planned not in (None, len(run.rows)) else ""
    return f"{len(run.rows):,}{planned} steps"
