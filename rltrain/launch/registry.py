"""Promoted policies: which one is in service, which ones were, and who decided what and why.

    registry/<name>/  versions/0001/{adapter or model/, eval.parquet, card.json, SHA256.json}
                      current      the version in service, one number
                      log.jsonl    every decision, also refusals; each line holds the hash of the
                                   one before, so that a line cannot be changed or taken out unseen

A run is promoted if its held-out evaluation is non-inferior to that of the version in service (to
its own start, if there is none) and no kind of hack became more frequent; both by the bound of a
paired 95 % bootstrap interval, so that too few tasks are a refusal and not a free pass.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]

from rltrain.errors import RltrainError, UserError
from rltrain.launch.export import export_run
from rltrain.report import summarize
from rltrain.report.evals import deltas
from rltrain.rundir import RunDir
from rltrain.track import eval_path
from rltrain.track.files import to_json, write_text

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
SUMS = "SHA256.json"
FIRST = "0" * 64
"""What the first line of a log has for the hash of the line before."""
Rows = Sequence[Mapping[str, Any]]


class Refused(UserError):
    """The run does not deserve promotion; the sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a candidate has to reach."""

    margin: float = 0.02
    """Loss of exact match (a share) that its interval may not exceed."""
    hack_margin: float = 0.01
    """Rise of the hack rate (any detector) that its interval may not exceed."""
    least: int = 100
    """Held-out tasks that both must have answered."""


class Registry:
    """One name's versions. Raises `UserError` for a name that is no plain folder name."""

    def __init__(self, folder: Path, name: str) -> None:
        if not NAME.match(name):
            raise UserError(f"{name!r} is no name for a policy; use letters, digits, _ . and -")
        self.name = name
        self.path = folder / name
        self.log = self.path / "log.jsonl"

    def current(self) -> int | None:
        """The version in service. Raises `UserError` if the file does not name one."""
        try:
            text = (self.path / "current").read_text().strip()
        except FileNotFoundError:
            return None
        if not text.isdecimal() or not self.folder(int(text)).is_dir():
            raise UserError(f"{self.path / 'current'} names {text!r}, which is no version there")
        return int(text)

    def folder(self, version: int) -> Path:
        return self.path / "versions" / f"{version:04d}"

    def versions(self) -> list[int]:
        """All that were ever promoted, ascending."""
        found = (self.path / "versions").glob("[0-9]*")
        return sorted(int(p.name) for p in found if p.name.isdecimal() and (p / SUMS).is_file())

    def weights(self, version: int) -> Path:
        """The folder that is served, after every file's checksum was compared.

        Raises `UserError` for a version that is not there or was damaged."""
        folder = self.folder(version)
        try:
            sums = json.loads((folder / SUMS).read_text())
        except (OSError, ValueError) as error:
            known = ", ".join(map(str, self.versions())) or "none"
            raise UserError(
                f"{self.name} has no whole version {version}; there is {known}"
            ) from error
        for name, expected in sums.items():
            if not (folder / name).is_file() or _sha256(folder / name) != expected:
                raise UserError(f"version {version} of {self.name} is damaged: {name}")
        return next(folder / kind for kind in ("adapter", "model") if (folder / kind).is_dir())

    def promote(self, run: RunDir, bar: Bar, *, by: str, note: str = "") -> dict[str, Any]:
        """Take a run's newest checkpoint into service; returns the decision as logged.

        Raises `Refused`, which is logged too, and `UserError` for a run that cannot be judged."""
        with self._alone():
            current = self.current()
            card = self._card(run, current, bar)
            decision = {"what": "promote", "run": str(run.path), "over": current, "by": by,
                        "note": note, "evidence": card["evidence"]}  # fmt: skip
            if card["against"]:
                self._write(decision | {"what": "refuse", "why": card["against"]})
                raise Refused(
                    f"{run.path.name} is not promoted: {'; '.join(card['against'])}; the version "
                    f"in service stays {current}"
                )
            version = max(self.versions(), default=0) + 1
            self._store(run, version, card)
            return self._decide(decision | {"version": version})

    def rollback(self, to: int | None, *, by: str, note: str = "") -> dict[str, Any]:
        """Put an earlier version back into service: `to`, or what was there before the present one.

        Raises `UserError` if there is none, or if its files are not what was promoted."""
        with self._alone():
            now = self.current()
            target = self._before(now) if to is None else to
            if target is None:
                raise UserError(f"{self.name} has no version before {now} to go back to")
            self.weights(target)
            return self._decide(
                {"what": "rollback", "version": target, "over": now, "by": by, "note": note}
            )

    def decisions(self) -> list[dict[str, Any]]:
        """The log, oldest first. Raises `RltrainError` at the first line that was tampered with."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        before = FIRST
        for number, line in enumerate(lines, start=1):
            try:
                intact = json.loads(line)["after"] == before
            except (ValueError, KeyError, TypeError):
                intact = False
            if not intact:
                raise RltrainError(
                    f"{self.log}, line {number}: this or the line before it was changed after it "
                    "was written; restore the file from a backup"
                )
            before = _digest(line)
        return [json.loads(line) for line in lines]

    def _before(self, now: int | None) -> int | None:
        served = [row["version"] for row in self.decisions() if "version" in row]
        earlier = [version for version in served if now is None or version < now]
        return earlier[-1] if earlier else None

    def _card(self, run: RunDir, current: int | None, bar: Bar) -> dict[str, Any]:
        config = run.load_config()
        summary = summarize(run.path)
        rows = _rows(eval_path(run.path, "after"))
        if not rows:
            raise UserError(f"{run.path} has no evaluation after training; let it finish first")
        base = self.folder(current) / "eval.parquet" if current else eval_path(run.path, "before")
        found = deltas(_rows(base), rows, seed=0)
        wrong = [name for name, holds in summary["checks"].items() if holds is False]
        against = [*_against(found, bar), *(f"its check {name} fails" for name in wrong)]
        return {
            "run": str(run.path), "policy": self.name, "seed": summary["seed"],
            "compared_with": f"version {current}" if current else "its own start",
            "environment": config.environment.model_dump(),
            "rewards": config.rewards.model_dump(mode="json"),
            "judge": summary["judge"], "eval": summary["eval"]["after"],
            "evidence": {**found, "bar": {"margin": bar.margin, "hack_margin": bar.hack_margin}},
            "versions": summary["versions"], "against": against,
        }  # fmt: skip

    def _store(self, run: RunDir, version: int, card: Mapping[str, Any]) -> None:
        folder = self.folder(version)
        work = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        export_run(run, work)
        shutil.copyfile(eval_path(run.path, "after"), work / "eval.parquet")
        write_text(work / "card.json", to_json(card, indent=2) + "\n")
        files = sorted(path for path in work.rglob("*") if path.is_file())
        sums = {str(path.relative_to(work)): _sha256(path) for path in files}
        write_text(work / SUMS, json.dumps(sums, indent=2) + "\n")
        work.rename(folder)

    def _decide(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """The log first: whoever finds a version there that is not current was interrupted here."""
        row = self._write(decision)
        write_text(self.path / "current", f"{row['version']}\n")
        return row

    def _write(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        row = {"time": time.time(), **decision, "after": _digest(lines[-1]) if lines else FIRST}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(to_json(row) + "\n")
        return row

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(f"{self.path} is being changed by another process") from error
            # Never add to a log that was tampered with; end what was interrupted.
            decided = [row["version"] for row in self.decisions() if "version" in row]
            if decided:
                write_text(self.path / "current", f"{decided[-1]}\n")
            yield


def _against(found: Mapping[str, Any], bar: Bar) -> Iterator[str]:
    """Reasons, in words and numbers, not to promote."""
    exact, hacks = found["delta"], found["hack_delta"]
    if exact is None or exact["n"] < bar.least:
        n = exact["n"] if exact else 0
        yield f"only {n} held-out tasks were answered by both, of {bar.least} needed"
        return
    low = exact["ci95"][0]
    if low < -bar.margin:
        yield (
            f"exact match changes by {100 * exact['mean']:+.1f} points and its 95 % interval goes "
            f"down to {100 * low:+.1f}, below {-100 * bar.margin:+.1f}"
        )
    high = hacks["ci95"][1]
    if high > bar.hack_margin:
        yield (
            f"hacks change by {100 * hacks['mean']:+.1f} points and their 95 % interval goes up to "
            f"{100 * high:+.1f}, above {100 * bar.hack_margin:+.1f}"
        )


def _rows(path: Path) -> list[dict[str, Any]]:
    columns = ["task_id", "sample", "truth", "reward", "flags"]
    return list(pq.read_table(path, columns=columns).to_pylist()) if path.is_file() else []


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
