"""How far a judge can be trusted: agreement of its verdicts with executed truth.

Faulted items have no verdict; they are left out of every rate and reported beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import numpy as np

from rltrain.agreement import RESAMPLES, FloatArray, interval, kappas
from rltrain.errors import JudgeFault
from rltrain.protocols import Check
from rltrain.types import Task, Verdict


def agreement(labels: Sequence[bool], verdicts: Sequence[bool], seed: int) -> dict[str, float]:
    """Compare verdicts with executed truth.

    Args:
        labels: [N] executed truth: is the answer right?
        verdicts: [N] did the judge accept it?
        seed: of the bootstrap (1,000 resamples of the N pairs, percentile interval, 95 %).

    Returns `n`, `true_positive`, `false_positive`, `true_negative`, `false_negative` (counts),
    `accuracy`, `false_positive_rate`, `false_negative_rate`, `kappa`, `kappa_low`, `kappa_high`.
    A rate without a denominator is NaN; so is kappa when both sides are one and the same constant.

    Raises `ValueError` if the lengths differ or there is nothing to compare.
    """
    truth, said = np.asarray(labels, dtype=bool), np.asarray(verdicts, dtype=bool)
    if truth.shape != said.shape or truth.ndim != 1 or truth.size == 0:
        raise ValueError("agreement needs two equally long, non-empty sequences of booleans.")
    cells = np.array(
        [(truth & said).sum(), (~truth & said).sum(), (~truth & ~said).sum(),
         (truth & ~said).sum()],
        dtype=np.float64,
    )  # fmt: skip
    tp, fp, tn, fn = (float(cell) for cell in cells)
    low, high = _bootstrap_kappa(cells, seed)
    return {
        "n": float(truth.size),
        "true_positive": tp,
        "false_positive": fp,
        "true_negative": tn,
        "false_negative": fn,
        "accuracy": (tp + tn) / truth.size,
        "false_positive_rate": fp / (fp + tn) if fp + tn else float("nan"),
        "false_negative_rate": fn / (fn + tp) if fn + tp else float("nan"),
        "kappa": float(_kappas(cells[None])[0]),
        "kappa_low": low,
        "kappa_high": high,
    }


async def calibrate(
    judge: Check, labelled: Iterable[tuple[Task, str, bool]], seed: int = 0
) -> dict[str, float]:
    """Ask the judge about labelled pairs and measure its agreement.

    Args:
        judge: asked concurrently; it limits itself.
        labelled: (task, canonical answer, executed truth), held out from whatever the judge saw.
        seed: of the bootstrap.

    Returns what `agreement` returns plus `faults`, the pairs without a verdict, which count in no
    rate. Raises `JudgeFault` if no pair got a verdict, and whatever else the judge raises.
    """
    pairs = list(labelled)
    if not pairs:
        raise ValueError("calibrate needs at least one labelled pair.")
    decided = await ask_all(judge, [(task, answer) for task, answer, _ in pairs])
    kept = [
        (label, said.passed)
        for (_, _, label), said in zip(pairs, decided, strict=True)
        if not isinstance(said, JudgeFault)
    ]
    if not kept:
        raise JudgeFault(f"The judge gave no verdict on any of {len(pairs)} labelled pairs.")
    result = agreement([label for label, _ in kept], [said for _, said in kept], seed)
    return {**result, "faults": float(len(pairs) - len(kept))}


async def ask_all(
    judge: Check, pairs: Sequence[tuple[Task, str]]
) -> list[Verdict | JudgeFault]:
    """The verdict on each (task, canonical answer), or the fault that came instead of it.

    Asked concurrently; raises whatever else the judge raises, with nothing left in flight."""
    tasks = [asyncio.ensure_future(_ask(judge, task, answer)) for task, answer in pairs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for pending in tasks:
            pending.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _ask(judge: Check, task: Task, answer: str) -> Verdict | JudgeFault:
    try:
        return await judge(task, answer)
    except JudgeFault as fault:
        return fault


def _bootstrap_kappa(cells: FloatArray, seed: int) -> tuple[float, float]:
    """95 % percentile interval of kappa.

    Resampling N pairs that fall into four kinds is one multinomial draw of the four counts, so
    the 1,000 resamples are one vectorised call. Undefined resamples are left out.
    """
    rng = np.random.default_rng(seed)
    n = int(cells.sum())
    resampled = rng.multinomial(n, cells / n, size=RESAMPLES).astype(np.float64)
    return interval(_kappas(resampled))


def _kappas(cells: FloatArray) -> FloatArray:
    """cells: [R, 4] counts of true and false positives, true and false negatives -> [R]."""
    return kappas(cells[:, [0, 3, 1, 2]])
