"""The charts of a run's health: staleness, mismatch, entropy, lengths, optimizer, time."""

from __future__ import annotations

from typing import Any, NamedTuple

from rltrain.report.data import Run
from rltrain.report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SHARE,
    TEAL,
    Curves,
    Figure,
    funnel,
    hack_rates,
    layout,
    reward_truth,
    tiers,
)
from rltrain.report.interruptions import timeline


class _Line(NamedTuple):
    metric: str
    label: str
    color: str


class _Chart(NamedTuple):
    id: str
    title: str
    lines: tuple[_Line, ...]
    caption: str
    yaxis: dict[str, Any]
    smooth: bool = True


_CHARTS = (
    _Chart(
        "staleness", "Staleness",
        (_Line("lag/mean", "mean", BLUE), _Line("lag/max", "largest", RED)),
        "Policy versions between sampling and training. Good: the largest stays within "
        "rollout.max_lag.", {"title": {"text": "versions"}}, False,
    ),
    _Chart(
        "mismatch", "Trainer against engine",
        (_Line("mismatch/mean_abs_logprob", "mean |Δ log-probability|", PURPLE),
         _Line("mismatch/p99_abs_logprob", "99th percentile", RED),
         _Line("mismatch/k3", "k3 (KL estimate)", ORANGE)),
        "How far the engine's log-probabilities are from the trainer's, in nats. "
        "Good: small and flat.",
        {"title": {"text": "nats (log scale)"}, "type": "log", "exponentformat": "power",
         "dtick": 1},
    ),
    _Chart(
        "scaling", "Loss scale of fp16",
        (_Line("precision/loss_scale", "loss scale", BLUE),
         _Line("precision/overflows", "updates skipped so far", RED)),
        "Halves when a gradient overflows, and that update is skipped. Good: settles; the events "
        "name the layers.",
        {"title": {"text": "log scale"}, "type": "log", "exponentformat": "power"}, False,
    ),
    _Chart(
        "entropy", "Policy entropy", (_Line("policy/entropy", "entropy", TEAL),),
        "Nats per token. Good: falls slowly; a sudden drop to zero is a collapse.",
        {"title": {"text": "nats per token"}},
    ),
    _Chart(
        "lengths", "Answer length", (_Line("length/mean", "mean tokens", BLUE),),
        "Sampled tokens per rollout. Good: settles; steady growth is often padding.",
        {"title": {"text": "tokens"}},
    ),
    _Chart(
        "shares", "Valid, truncated, without signal",
        (_Line("valid/rate", "valid", GREEN), _Line("length/truncated", "truncated", RED),
         _Line("group/zero_variance", "groups without signal", GREY)),
        "Good: valid near 100 %, truncated near 0 %. Groups in which all rewards are equal teach "
        "nothing.", SHARE | {"range": [0, 1.02]},
    ),
    _Chart(
        "optimizer", "Gradient norm and loss",
        (_Line("grad_norm", "gradient norm", PURPLE), _Line("loss", "loss", GREY)),
        "Good: no spikes. The loss of a policy gradient is no measure of progress.",
        {"rangemode": "normal"},
    ),
    _Chart(
        "critic", "What the critic foresees",
        (_Line("value/explained_variance", "explained variance", GREEN),),
        "Share of the variance of the rewards to come. Good: rises; below 0 a constant would be "
        "the better critic.",
        {"rangemode": "normal"},
    ),
    _Chart(
        "preference", "Chosen above rejected",
        (
            _Line("trl/rewards/accuracies", "share of pairs", GREEN),
            _Line("trl/accuracy", "share of pairs", GREEN),
        ),
        "Share of training pairs whose chosen answer the model prefers. Good: rises; near 100 % "
        "there is little left to learn from these pairs.",
        SHARE | {"range": [0, 1.02]},
    ),
    _Chart(
        "margins", "Margin between chosen and rejected",
        (_Line("trl/rewards/margins", "margin", BLUE), _Line("trl/margin", "margin", BLUE)),
        "Difference of TRL's implicit rewards (DPO) or of the model's values (reward model).",
        {"rangemode": "normal"},
    ),
    _Chart(
        "throughput", "Throughput", (_Line("tokens_per_s", "sampled tokens per second", TEAL),),
        "Good: flat. A falling line means longer waits or shorter answers.",
        {"title": {"text": "tokens/s"}},
    ),
)


def timing(curves: Curves) -> Figure | None:
    """Seconds of each step, stacked: waiting for rollouts, learning, syncing weights, the rest."""
    if not curves.has("time/step_s"):
        return None
    parts = (("wait", ORANGE), ("learn", BLUE), ("sync", PURPLE))
    series = {name: curves.values(f"time/{name}_s", 0.0) for name, _ in parts}
    known = [sum(value or 0.0 for value in values) for values in zip(*series.values(), strict=True)]
    steps = curves.values("time/step_s")
    rest = [max(0.0, (step or 0.0) - some) for step, some in zip(steps, known, strict=True)]
    data = [
        {
            "type": "scatter", "mode": "lines", "stackgroup": "time", "x": curves.steps,
            "y": values, "name": name, "line": {"width": 0.5, "color": color},
            "hovertemplate": "%{y:.2f} s",
        }
        for (name, color), values in zip((*parts, ("other", GREY)), (*series.values(), rest),
                                         strict=True)
    ]
    return Figure(
        id="timing", title="Where the seconds of a step went", data=data, height=260,
        layout=layout(yaxis={"title": {"text": "seconds"}}),
        caption="Good: learning dominates. Much waiting means that rollouts are the bottleneck: "
        "more workers or a larger max_lag.",
    )


def health(curves: Curves) -> list[Figure]:
    """All small charts whose metrics were logged."""
    figures = []
    for chart in _CHARTS:
        data = [
            trace for line in chart.lines
            for trace in curves.line(line.metric, line.label, line.color, smooth=chart.smooth)
        ]
        if data:
            figures.append(Figure(
                id=chart.id, title=chart.title, caption=chart.caption, data=data,
                layout=layout(yaxis=chart.yaxis, showlegend=len(chart.lines) > 1), height=260,
            ))
    return figures


def all_figures(run: Run) -> dict[str, Figure]:
    """Every chart that the run has the numbers for, by id."""
    if not run.rows:
        found = [tiers(run), timeline(run)]
    else:
        curves = Curves(run.rows)
        found = [
            reward_truth(run, curves), funnel(run), hack_rates(run, curves), tiers(run),
            *health(curves), timing(curves), timeline(run),
        ]
    return {figure.id: figure for figure in found if figure is not None}
