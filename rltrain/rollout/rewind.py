"""Back to a checkpoint in the ledger: what is done stays done, the rest is open again.

Groups are consumed in the order of leases, so one number, the last lease that a step consumed,
separates the two. A group that is still kept is used again: as long as nothing before it is missing
the same groups lead to the same policy, so it is as old as it says. Where one that had come back is
no longer kept (its checkpoint is damaged, and an older one needs it) history takes another course:
what was sampled after it comes from policies that will never be, and is sampled anew.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from rltrain.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewound:
    """What a run that goes on from a checkpoint finds in its ledger."""

    back: tuple[int, ...]
    """Leases whose groups are kept and not consumed by the checkpoint's step, in order."""
    pending: tuple[tuple[int, str], ...]
    """Leases and task ids that never came back, to be given out again."""
    next_lease: int
    replaced: int
    """Leases before the first of those that were dropped whole, others having taken their place."""


def cursor(db: sqlite3.Connection, step: int) -> int:
    """The last lease that steps up to `step` consumed; -1 if none."""
    last = db.execute("SELECT MAX(lease) FROM leases WHERE step <= ?", (step,)).fetchone()[0]
    return -1 if last is None else int(last)


def rewind(db: sqlite3.Connection, step: int) -> Rewound:
    """Open every lease after what `step` consumed, within the caller's transaction. A lease whose
    group is still kept is back already; any other has to go out again.

    Raises `UserError` if the ledger does not know all steps up to `step`."""
    known = db.execute("SELECT COUNT(DISTINCT step) FROM leases WHERE step <= ?", (step,))
    if (steps := known.fetchone()[0]) != step:
        raise UserError(
            f"ledger.sqlite knows {steps} of the {step} steps up to the checkpoint; restore it "
            "from a copy, or start a new run under another name"
        )
    after = (cursor(db, step),)
    rewound = _count(db, "lease > ? AND step IS NOT NULL", after)
    replaced = _count(db, "lease <= ? AND step IS NULL", after)
    kept = "lease IN (SELECT lease FROM groups)"
    db.execute(
        "DELETE FROM groups WHERE lease > (SELECT MIN(lease) FROM leases WHERE lease > ? "
        f"AND state != 'leased' AND NOT {kept})",
        after,
    )
    db.execute(
        f"UPDATE leases SET step=NULL, state=CASE WHEN {kept} THEN 'ready' ELSE 'leased' END "
        "WHERE lease > ?",
        after,
    )
    db.execute("UPDATE rollouts SET fate=NULL WHERE lease > ?", after)
    db.execute(f"UPDATE rollouts SET tokens=NULL WHERE lease > ? AND NOT {kept}", after)
    pending = db.execute(
        "SELECT lease, task_id FROM leases WHERE lease > ? AND state='leased' ORDER BY lease", after
    ).fetchall()
    last = db.execute("SELECT MAX(lease) FROM leases").fetchone()[0]
    if last is not None:
        db.execute(
            "INSERT INTO resumes (at, step, rewound, pending) VALUES (?, ?, ?, ?)",
            (time.time(), step, rewound, len(pending)),
        )
    back = db.execute("SELECT lease FROM groups WHERE lease > ? ORDER BY lease", after).fetchall()
    return Rewound(
        back=tuple(lease for (lease,) in back),
        pending=tuple(pending),
        next_lease=0 if last is None else last + 1,
        replaced=replaced,
    )


def _count(db: sqlite3.Connection, where: str, values: tuple[int]) -> int:
    return int(db.execute(f"SELECT COUNT(*) FROM leases WHERE {where}", values).fetchone()[0])
