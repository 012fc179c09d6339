"""The rollouts of a recorded run once more: the same groups at the same steps, without engines.

With the same config the learner then takes the same steps, bit for bit where its arithmetic is
deterministic, so that what happened at a step can be looked at as often as one likes.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rltrain.errors import UserError
from rltrain.rollout.journal import unpack
from rltrain.rollout.ledger import VERSION, Ledger
from rltrain.rollout.plan import DispatchPlan
from rltrain.types import Group


class Replay:
    """Implements `protocols.GroupSource` over another run's ledger; its own keeps the books."""

    def __init__(
        self, recorded: Path, ledger: Ledger, plan: DispatchPlan, *, step: int = 0
    ) -> None:
        """`recorded`: a run directory, which is only read. `step`: as for the dispatcher.

        Raises `UserError` if that run did not keep the groups of all steps that are to come."""
        self.ledger = ledger
        self.plan = plan
        self.counters: dict[str, dict[str, float]] = {}
        self.sampling: dict[str, float] = {}
        self._db = _open(recorded)
        self._step = step
        self._check(recorded)
        rewound = ledger.rewind(step)
        self._known = {*rewound.back, *(lease for lease, _ in rewound.pending)}

    def _check(self, recorded: Path) -> None:
        """Now, rather than after hours of training."""
        kept = dict(
            self._db.execute(
                "SELECT step, COUNT(body) FROM leases LEFT JOIN groups USING (lease) "
                "WHERE step IS NOT NULL GROUP BY step"
            )
        )
        wanted = self.plan.groups_per_step
        for step in range(self._step + 1, self.plan.max_steps + 1):
            if (found := kept.get(step, 0)) != wanted:
                raise UserError(
                    f"rollout.replay={recorded} holds {found} groups of step {step}, and this run "
                    f"needs {wanted}; replay a run with rollout.record=true and the same "
                    "rollout.groups_per_step, up to its own last step"
                )

    def start(self) -> None:
        """Nothing runs beside the loop."""

    def advance(self, version: int) -> None:
        """Nothing is sampled, so no engine's version matters."""

    def take(self, count: int) -> list[Group]:
        """The groups that the recorded run consumed at the next step, in their order."""
        assert count == self.plan.groups_per_step
        self._step += 1
        rows = self._db.execute(
            "SELECT samples, leased_version, body FROM leases JOIN groups USING (lease) "
            "WHERE step=? ORDER BY lease",
            (self._step,),
        ).fetchall()
        groups = []
        for samples, version, body in rows:
            group = unpack(body)
            if group.lease not in self._known:
                self.ledger.lease(group.lease, group.task.id, samples, version, "replay")
            self.ledger.receive(group)
            groups.append(group)
        return groups

    def close(self) -> None:
        self._db.close()


def _open(recorded: Path) -> sqlite3.Connection:
    path = recorded / "ledger.sqlite"
    if not path.is_file():
        raise UserError(f"rollout.replay={recorded} has no ledger.sqlite; name a run directory")
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        db = sqlite3.connect(uri, uri=True, check_same_thread=False)
        version = db.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise UserError(f"rollout.replay: {path} cannot be read: {error}") from error
    if version != VERSION:
        raise UserError(
            f"rollout.replay: {path} was written by another version of rltrain (ledger version "
            f"{version}, this one reads {VERSION})"
        )
    return db
