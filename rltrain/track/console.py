"""What a person watches while a run is on: phases before training, then one line of numbers.

On a terminal it is redrawn in place; anywhere else (CI, a log file) it is a plain line now and
then. It is fed from metrics.jsonl, so it can also watch a run that another process started.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rltrain.track.jsonl import Tail

_RECENT = 20
"""Steps from which the ETA is taken."""
_PLAIN_EVERY_S = 15.0
"""Least time between two plain lines of one phase."""


class ProgressView:
    """Use as a context manager; safe to feed from one thread."""

    def __init__(self, total: int, *, console: Console | None = None, every: int = 0) -> None:
        """total: steps of the run. every: steps between plain lines; 0 takes a twentieth."""
        self.total = total
        self._console = console or Console(stderr=True)
        self._every = every or max(1, total // 20)
        self._live: Live | None = None
        self._row: Mapping[str, float] = {}
        self._ends: deque[tuple[float, float]] = deque(maxlen=_RECENT + 1)
        self._alarm = ""
        self._phase: tuple[str, float, float, str] | None = None
        self._phase_start = 0.0
        self._last_plain = float("-inf")
        self._start = time.monotonic()

    def __enter__(self) -> ProgressView:
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def phase(self, name: str, done: float = 0, total: float = 0, note: str = "") -> None:
        """A stretch before or after training: `building policy`. total 0: no end is known."""
        fresh = self._phase is None or self._phase[0] != name
        if fresh:
            self._phase_start = time.monotonic()
        self._phase = (name, done, total, note)
        due = time.monotonic() - self._last_plain >= _PLAIN_EVERY_S
        if self._live is None and (fresh or due or (total and done >= total)):
            self._plain(self._phase_line())

    def update(self, row: Mapping[str, float]) -> None:
        """One row of metrics.jsonl."""
        self._phase = None
        self._row = row
        self._ends.append((row["step"], row.get("time", time.time())))
        raised = sorted(name for name in row if name.startswith("alarm/") and row[name] > 0)
        if raised:
            names = ", ".join(name.removeprefix("alarm/") for name in raised)
            self._alarm = f"{names} at step {row['step']:.0f}"
        step = int(row["step"])
        if self._live is None and (raised or step % self._every == 0 or step in (1, self.total)):
            self._plain(self._step_line())

    def message(self, text: str) -> None:
        """A line that stays: a warning, a path."""
        self._plain(text)

    def _plain(self, text: str) -> None:
        self._last_plain = time.monotonic()
        self._console.print(Text(text), soft_wrap=True)

    def eta_s(self) -> float | None:
        """Seconds left at the pace of the recent steps; None before the second step."""
        if len(self._ends) < 2:
            return None
        (first, began), (last, ended) = self._ends[0], self._ends[-1]
        if last <= first:
            return None
        return max(0.0, self.total - last) * (ended - began) / (last - first)

    def _phase_line(self) -> str:
        assert self._phase is not None
        name, done, total, note = self._phase
        elapsed = time.monotonic() - self._phase_start
        parts = [name]
        if total:
            parts.append(f"{100 * done / total:.0f} %")
            if 0 < done < total:
                parts.append(f"ETA {clock(elapsed * (total - done) / done)}")
        parts.append(f"{clock(elapsed)} elapsed")
        return " · ".join(parts + [note] * bool(note))

    def _step_line(self) -> str:
        numbers = " · ".join(f"{name} {value}" for name, value in self._numbers())
        line = f"step {self._row['step']:.0f}/{self.total} · {numbers} · {self._clocks()}"
        return f"{line} · ALARM {self._alarm}" if self._alarm else line

    def _clocks(self) -> str:
        eta = self.eta_s()
        elapsed = clock(time.monotonic() - self._start)
        return f"{elapsed} elapsed" + ("" if eta is None else f" · ETA {clock(eta)}")

    def _numbers(self) -> list[tuple[str, str]]:
        row = self._row
        if "reward/mean" not in row and "loss" in row:  # an offline method: nothing is sampled
            return _offline_numbers(row)
        shown = [
            ("reward", _number(row.get("reward/mean"), "{:.3f}")),
            ("truth", _number(row.get("truth/mean"), "{:.3f}")),
            ("valid", _number(row.get("valid/rate"), "{:.0%}")),
            ("hacks", _number(row.get("flag/any"), "{:.1%}")),
            ("lag", f"{_number(row.get('lag/mean'), '{:.1f}')}"
                    f"/{_number(row.get('lag/max'), '{:.0f}')}"),
            ("tok/s", _number(_tokens_per_s(row), "{:,.0f}")),
        ]
        if row.get("time/step_s"):
            learn, wait = (row.get(f"time/{part}_s", 0.0) for part in ("learn", "wait"))
            step_s = row["time/step_s"]
            shown.append(("learn/wait", f"{learn / step_s:.0%}/{wait / step_s:.0%}"))
        return shown

    def _render(self) -> RenderableType:
        if self._phase is not None:
            _, done, total, _ = self._phase
            bar = ProgressBar(total=total or None, completed=done, width=40, pulse=not total)
            return Group(Text(self._phase_line(), style="bold"), bar)
        if not self._row:
            return Text("waiting for the first step …", style="dim")
        head = Table.grid(padding=(0, 2))
        step = self._row["step"]
        head.add_row(
            Text(f"step {step:.0f}/{self.total}", style="bold"),
            ProgressBar(total=self.total, completed=step, width=30),
            Text(self._clocks()),
        )
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name, _ in self._numbers():
            table.add_column(name, justify="right", no_wrap=True)
        table.add_row(*(Text(value) for _, value in self._numbers()))
        alarm = Text(f"ALARM {self._alarm}", style="bold red") if self._alarm else Text("")
        return Group(head, table, alarm)


def _offline_numbers(row: Mapping[str, float]) -> list[tuple[str, str]]:
    """What TRL logged of a step, where it did."""
    found = [
        ("loss", row["loss"], "{:.4f}"),
        ("chosen first", row.get("trl/rewards/accuracies", row.get("trl/accuracy")), "{:.0%}"),
        ("grad norm", row.get("grad_norm"), "{:.2f}"),
        ("lr", row.get("lr"), "{:.1e}"),
        ("s/step", row.get("time/step_s"), "{:.2f}"),
    ]
    return [(name, form.format(value)) for name, value, form in found if value is not None]


def _tokens_per_s(row: Mapping[str, float]) -> float | None:
    if "tokens_per_s" in row:
        return row["tokens_per_s"]
    if "tokens/generated" in row and row.get("time/step_s"):
        return row["tokens/generated"] / row["time/step_s"]
    return None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def clock(seconds: float) -> str:
    """`42 s`, `3:05`, `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    tail = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours}:{tail}" if hours else tail.lstrip("0").rjust(4, "0")


def follow(
    path: Path, view: ProgressView, *, done: Callable[[], bool], poll_s: float = 0.5
) -> None:
    """Feed `view` from a growing metrics.jsonl until `done()`; what was written by then is shown.

    Blocks: run it in the foreground while another process trains, or in a thread."""
    tail = Tail(path)
    while True:
        last = done()  # asked before reading, so that the final rows are never missed
        for row in tail.poll():
            if "step" in row:
                view.update(row)
        if last:
            return
        time.sleep(poll_s)
