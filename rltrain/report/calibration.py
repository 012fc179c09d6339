"""calibration.json and calibration.html: how far a judge can be trusted, on one page.

Raters that are noisy copies of executed truth are called synthetic wherever they are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rltrain.report import text
from rltrain.report.build import _render, json_block
from rltrain.report.figures import BLUE, GREEN, GREY, ORANGE, RED, Figure
from rltrain.track.files import nulled, to_json, write_text

Found = Mapping[str, Any]
Row = tuple[str, str, str]
PAGE, DATA = "calibration.html", "calibration.json"


def write_calibration(folder: Path, found: Found) -> Path:
    """Write both files, each whole or not at all; returns the page. found: what
    `rltrain judge calibrate` measured."""
    plain = nulled(found)
    write_text(folder / DATA, to_json(plain, indent=1) + "\n")
    drawn = {figure.id: figure for figure in figures(plain)}
    data = json_block({name: figure.spec() for name, figure in drawn.items()})
    context = {
        "found": plain, "rows": rows_of(plain), "raters": raters_are(plain),
        "figures": list(drawn.values()), "data": data, "judge": to_json(plain["judge"], indent=1),
    }  # fmt: skip
    write_text(folder / PAGE, _render("calibration.html.j2", context))
    return folder / PAGE


def raters_are(found: Found) -> str:
    """`synthetic raters` or `raters`."""
    return "synthetic raters" if found["ground_truth"]["synthetic"] else "raters"


def rows_of(found: Found) -> list[Row]:
    """The headline figures: what, value, interval or note."""
    who = raters_are(found)
    agreement, ceiling = found["agreement"], found["ceiling"]
    rows = [
        ("items", text.integer(agreement["n"]), _left_out(found)),
        (f"kappa with the label of {who}", *_with_interval(agreement["kappa"])),
    ]
    if found["truth"]:
        rows.append(("kappa with executed truth", *_with_interval(found["truth"]["kappa"])))
    names = (("kappa_linear", "kappa, linear weights"), ("kappa_quadratic", "kappa, quadratic"),
             ("tau_b", "Kendall tau-b"), ("pearson", "Pearson"))  # fmt: skip
    rows += [(label, *_with_interval(agreement[k])) for k, label in names if k in agreement]
    rows += [
        ("wrong answers accepted", text.percent(agreement["false_positive_rate"]), ""),
        ("right answers refused", text.percent(agreement["false_negative_rate"]), ""),
        (f"ceiling: kappa of {who} with one another", *_with_interval(ceiling["people"])),
        (f"judge: kappa with {who}", *_with_interval(ceiling["judge"])),
        ("share of the ceiling", *_with_interval(ceiling["share"])),
        *_alt_tests(found),
        *_probed(found),
    ]
    if found.get("on_policy"):
        policy = found["on_policy"]
        rows.append(
            (f"on policy, steps {policy['steps'][0]} to {policy['steps'][1]}: kappa with truth",
             *_with_interval(policy["kappa"]))
        )  # fmt: skip
    if found.get("drift"):
        for name, one in found["drift"]["features"].items():
            note = f"{'DRIFTED; ' if one['flagged'] else ''}chi-square p {text.decimal(one['p'])}"
            rows.append((f"drift of {name} (PSI)", text.decimal(one["psi"]), note))
    return rows


def _left_out(found: Found) -> str:
    truth, said = found["ground_truth"], found["verdicts"]
    parts = (
        (truth["disagreements"], f"{raters_are(found)} disagree on"),
        (truth["undecided"], "without majority"),
        (said["unreadable"], "without canonical form"),
        (said["faults"], "lost to faults of the judge"),
    )
    return "; ".join(f"{what}: {count}" for count, what in parts if count)


def _with_interval(value: Mapping[str, Any]) -> tuple[str, str]:
    low, high = (text.decimal(value[end]) for end in ("low", "high"))
    return text.decimal(value["value"]), f"{low} to {high}"


def _alt_tests(found: Found) -> Iterator[Row]:
    for test in found["alt_test"]:
        if test["raters"]:
            word = "passed" if test["passed"] else "not passed"
            note = f"omega {text.decimal(test['omega'], 2)}, rho {text.decimal(test['rho'], 2)}"
            yield f"alternative annotator test, epsilon {test['epsilon']:g}", word, note
        else:
            yield "alternative annotator test", text.NONE, "every rater has under 30 items"
            return


def _probed(found: Found) -> Iterator[Row]:
    keys = found.get("master_keys") or {}
    for side, label in (("through_gates", "through the gates"), ("judge_alone", "judge alone")):
        part = keys.get(side)
        if part and part["n"]:
            reached = ""
            if side == "through_gates":
                reached = f"; {text.percent(keys['reached'])} reach the judge"
            note = f"worst: {part['worst_key']} {text.percent(part['worst'])}{reached}"
            yield f"master keys accepted, {label}", text.percent(part["rate"]), note
    flips = found.get("position_flip")
    if flips:
        low, high = flips["ci95"]
        note = f"{text.percent(low)} to {text.percent(high)} of {flips['pairs']} pairs"
        yield "winner changes with the order", text.percent(flips["rate"]), note


def figures(found: Found) -> list[Figure]:
    """Kappas with intervals, agreement by kind, master keys, drift."""
    drawn = [_kappas(found), _kinds(found)]
    if found.get("master_keys"):
        drawn.append(_keys(found["master_keys"]))
    if found.get("drift"):
        drawn += [_drift(name, one) for name, one in found["drift"]["features"].items()]
    return drawn


def _kappas(found: Found) -> Figure:
    who, ceiling = raters_are(found), found["ceiling"]
    bars = [
        (f"{who} with one another", ceiling["people"], GREY),
        (f"judge with {who}", ceiling["judge"], BLUE),
        ("judge with the label", found["agreement"]["kappa"], BLUE),
    ]
    if found["truth"]:
        bars.append(("judge with executed truth", found["truth"]["kappa"], GREEN))
    if found.get("on_policy"):
        bars.append(("judge with truth, on policy", found["on_policy"]["kappa"], ORANGE))
    caption = f"95 % intervals over items. Good: the judge as high as the {who} among themselves."
    return _bars("kappas", "Kappa", caption, bars)


def _kinds(found: Found) -> Figure:
    bars = [
        (f"{kind} (n = {one['n']})", one["kappa"], BLUE) for kind, one in found["by_kind"].items()
    ]
    caption = "Kappa with the label. Good: no kind of task that the judge cannot judge."
    return _bars("kinds", "By kind of task", caption, bars)


def _bars(id_: str, title: str, caption: str, bars: list[tuple[str, Any, str]]) -> Figure:
    values = [one["value"] for _, one, _ in bars]
    spread = {"type": "data", "symmetric": False}
    for side, end, sign in (("array", "high", 1), ("arrayminus", "low", -1)):
        spread[side] = [
            sign * (one[end] - one["value"]) if None not in (one[end], one["value"]) else 0
            for _, one, _ in bars
        ]
    trace = {
        "type": "bar", "orientation": "h", "y": [name for name, _, _ in bars], "x": values,
        "error_x": spread, "marker": {"color": [color for _, _, color in bars]},
    }  # fmt: skip
    return Figure(id=id_, title=title, caption=caption, data=[trace], layout=_LAYOUT, height=280)


_LAYOUT = {
    "margin": {"l": 220, "r": 20, "t": 10, "b": 40}, "yaxis": {"autorange": "reversed"},
    "legend": {"orientation": "h"},
}  # fmt: skip


def _keys(keys: Mapping[str, Any]) -> Figure:
    traces = []
    sides = (("through_gates", "through the gates", RED), ("judge_alone", "judge alone", ORANGE))
    for side, name, color in sides:
        if keys.get(side):
            rows = keys[side]["keys"]
            shares = [row["accepted"] / row["n"] if row["n"] else None for row in rows.values()]
            traces.append({"type": "bar", "orientation": "h", "name": name, "y": list(rows),
                           "x": shares, "marker": {"color": color}})  # fmt: skip
    caption = "Share accepted of answers that say nothing. Good: 0 everywhere."
    layout = {**_LAYOUT, "barmode": "group"}
    return Figure(id="keys", title="Master keys", caption=caption, data=traces, layout=layout,
                  height=520, wide=True)  # fmt: skip


def _drift(name: str, one: Mapping[str, Any]) -> Figure:
    bins = [row["bin"] for row in one["bins"]]
    traces = [
        {"type": "bar", "name": label, "x": bins, "y": [row[side] for row in one["bins"]],
         "marker": {"color": color}}
        for side, label, color in (("reference", "ground truth", GREY),
                                   ("current", "rollouts", BLUE))
    ]  # fmt: skip
    word = "above 0.2: the judge was measured on other answers" if one["flagged"] else "at most 0.2"
    return Figure(id=f"drift-{name}", title=f"Drift: {name}", data=traces,
                  caption=f"PSI {text.decimal(one['psi'])}, {word}.",
                  layout={"barmode": "group", "legend": {"orientation": "h"}})  # fmt: skip
