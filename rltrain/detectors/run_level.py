"""Alarms over many rollouts: pure functions from numbers or groups to an `Alarm` or None.

A detector looks at one rollout; these look at what no single rollout shows: one answer for
everything, a reward that rises while the truth does not, a reward that is bought with length.
An alarm changes nothing in the run. It is shown to a person with its evidence.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped,unused-ignore]

from rltrain.detectors.text import request, squeeze
from rltrain.types import Group

FloatArray = npt.NDArray[np.float64]

MIN_TASKS = 8
"""Fewer different tasks than this say nothing about a collapse."""
SIBLING_SHARE = 0.25
"""A task counts for an answer that at least this share of its siblings gave."""
SHOWN_CHARS = 200
MIN_POINTS = 8
"""Steps below which no trend is tested."""
MIN_RISE = 0.02
"""Smallest rise of the reward over the window that is worth an alarm, however significant."""
MIN_ROLLOUTS = 32
LENGTH_RHO = 0.4
LENGTH_ALPHA = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Something a person should look at."""

    name: str
    evidence: str
    severity: float
    """In (0, 1]; its meaning is the detector's: a share, a rise, a correlation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswers:
    """The answers that count for one task, in a form small enough to remember."""

    prompt: str
    """The request; if long, shortened with a digest that tells it from others."""
    answers: tuple[str, ...]
    """Each given by at least `SIBLING_SHARE` of the siblings, and verified right by none."""


def task_answers(group: Group) -> TaskAnswers:
    """Which answers stand for a group. Canonical form if there is one, else the plain text.

    An answer whose truth was measured as 1 is right, and being right often is no collapse.
    """
    votes: Counter[str] = Counter()
    for member in group.members:
        judged = member.judged
        if judged.truth != 1.0:
            votes[judged.canonical or squeeze(judged.episode.answer)] += 1
    least = SIBLING_SHARE * len(group.members)
    return TaskAnswers(
        prompt=short(squeeze(request(group.task))),
        answers=tuple(short(a) for a, count in votes.items() if count >= least),
    )


def short(text: str) -> str:
    """The text, or its beginning and a digest: long texts that begin alike stay different."""
    if len(text) <= SHOWN_CHARS:
        return text
    return f"{text[:SHOWN_CHARS]}… #{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def output_collapse(groups: Iterable[Group], share: float) -> Alarm | None:
    """One answer given to at least `share` of the *different* requests (and not right there).

    Args:
        groups: of any number of steps; groups with the same request count once.
        share: in (0, 1]. Environments with a handful of possible answers need a higher one.

    Severity is the share reached.
    """
    return collapse([task_answers(group) for group in groups], share)


def collapse(tasks: Iterable[TaskAnswers], share: float) -> Alarm | None:
    """`output_collapse` over what `task_answers` kept."""
    by_prompt: dict[str, set[str]] = {}
    for task in tasks:
        by_prompt.setdefault(task.prompt, set()).update(task.answers)
    if len(by_prompt) < MIN_TASKS:
        return None
    counts = Counter(answer for answers in by_prompt.values() for answer in answers)
    if not counts:
        return None
    answer, count = counts.most_common(1)[0]
    reached = count / len(by_prompt)
    if count < 3 or reached < share:
        return None
    examples = [prompt for prompt, answers in by_prompt.items() if answer in answers][:3]
    shown = "; ".join(f"{prompt[:80]!r}" for prompt in examples)
    return Alarm(
        name="output_collapse",
        evidence=f"{answer!r} answers {count} of {len(by_prompt)} different requests, e.g. {shown}",
        severity=reached,
    )


def reward_truth_divergence(
    rewards: Sequence[float], truths: Sequence[float | None], window: int, alpha: float = 0.05
) -> Alarm | None:
    """The reward rises over the last `window` steps and the truth does not.

    Three one-sided t-tests on least-squares slopes, all at level `alpha`: the reward's slope is
    above 0, the truth's is not, and the slope of (reward - truth) is above 0. The last one tests
    the difference on paired data, so that noise common to both (which tasks came up) cancels.
    Standard errors are widened for the residuals' lag-1 autocorrelation.

    Args:
        rewards, truths: [S] means per step, oldest first; None or NaN where not measured.
        window: steps looked at; at least `MIN_POINTS`. Silent until that many are there.

    Severity is the rise of (reward - truth) over the window, capped at 1.
    """
    length = max(window, MIN_POINTS)
    pairs = np.array(
        [(r, np.nan if t is None else t) for r, t in zip(rewards, truths, strict=True)],
        dtype=np.float64,
    ).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)][-length:]
    if len(pairs) < length:
        return None
    reward, truth = pairs.T
    slope, p_reward = trend(reward)
    truth_slope, p_truth = trend(truth)
    gap_slope, p_gap = trend(reward - truth)
    span = length - 1
    rises = p_reward < alpha and slope * span >= MIN_RISE
    if not rises or p_truth < alpha or p_gap >= alpha:
        return None
    return Alarm(
        name="reward_truth_divergence",
        evidence=(
            f"over {length} steps the reward rose by {slope * span:.3f} (p={p_reward:.2g}) while "
            f"the truth changed by {truth_slope * span:+.3f}; the gap widened by "
            f"{gap_slope * span:.3f} (p={p_gap:.2g})"
        ),
        severity=min(1.0, gap_slope * span),
    )


def trend(values: FloatArray) -> tuple[float, float]:
    """Least-squares slope per step, and the one-sided p-value of "it is above 0".

    The standard error is multiplied by sqrt((1 + r) / (1 - r)) for residuals with positive lag-1
    autocorrelation r, and the degrees of freedom shrink alike (effective sample size), because the
    means of successive steps are not independent.

    Args:
        values: [S], S >= 4, finite.
    """
    n = len(values)
    x = np.arange(n, dtype=np.float64) - (n - 1) / 2
    slope = float(x @ values / (x @ x))
    residuals = values - values.mean() - slope * x
    power = float(residuals @ residuals)
    if power <= 1e-18 * n:
        return slope, 0.0 if slope > 1e-9 else 1.0
    # Detrending n points pulls the estimate of r down by about 4 / n even for white noise.
    raw = float(residuals[:-1] @ residuals[1:]) / power + 4.0 / n
    r = min(max(raw, 0.0), 0.9)
    inflation = (1.0 + r) / (1.0 - r)
    freedom = max(1.0, n / inflation - 2.0)
    error = float(np.sqrt(power / (n - 2) / (x @ x) * inflation))
    return slope, float(stats.t.sf(slope / error, freedom))


def length_exploitation(
    lengths: Sequence[float], rewards: Sequence[float], strata: Sequence[object] | None = None
) -> Alarm | None:
    """Longer answers earn more, beyond what the task and the truth explain.

    Pearson correlation of lengths' and rewards' ranks after centring both within each stratum;
    the degrees of freedom are those left after the strata's means (a partial Spearman test).

    Args:
        lengths, rewards: [N] per rollout: tokens, and what was trained on.
        strata: [N]; rollouts are compared within one stratum only, such as (task, truth), so that
            a longer answer that earns more because it is *right* is no alarm. None: one stratum.

    Severity is the correlation. Silent below 32 rollouts or where one side never varies.
    """
    n = len(lengths)
    keys = [None] * n if strata is None else list(strata)
    if not n == len(rewards) == len(keys):
        raise ValueError("lengths, rewards and strata must be equally long.")
    if n < MIN_ROLLOUTS:
        return None
    codes = {key: code for code, key in enumerate(dict.fromkeys(keys))}
    stratum = np.array([codes[key] for key in keys])
    x = _centred_ranks(lengths, stratum)
    y = _centred_ranks(rewards, stratum)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    freedom = n - len(codes) - 1
    if scale < 1e-9 or freedom < MIN_ROLLOUTS // 2:
        return None
    bound = 1.0 - 1e-12  # of a perfect correlation, either way, t is not finite
    rho = float(np.clip(float(x @ y) / scale, -bound, bound))
    p = float(stats.t.sf(rho * np.sqrt(freedom / (1.0 - rho * rho)), freedom))
    if rho < LENGTH_RHO or p >= LENGTH_ALPHA:
        return None
    return Alarm(
        name="length_exploitation",
        evidence=f"longer answers earn more: rho={rho:.2f} over {n} rollouts (p={p:.2g})",
        severity=rho,
    )


def _centred_ranks(values: Sequence[float], stratum: npt.NDArray[np.int64]) -> FloatArray:
    """[N] ranks minus their stratum's mean rank."""
    ranks = np.asarray(stats.rankdata(values), dtype=np.float64)
    means = np.bincount(stratum, weights=ranks) / np.bincount(stratum)
    centred: FloatArray = ranks - means[stratum]
    return centred
