"""Watches the processes of a run and starts again what died or stands still.

    worker    started again alone: its leases are leased again
    learner   workers are ended too, then all start again: it goes on from checkpoint and journal
    server    started again on the same port; its clients wait, the learner pushes to it anew

A process that shows no sign of life for `supervise.stall_s` is killed and counts as dead. An error
that another start would only meet again (`child.LASTING`), or a spent budget, stops the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rltrain.config.supervise import SuperviseConfig
from rltrain.errors import ChildDied, UserError
from rltrain.launch.budget import Budget
from rltrain.launch.child import LASTING, USER_CODE
from rltrain.launch.heartbeat import Watch
from rltrain.launch.members import End, Member

TICK_S = 0.2
FINISH_S = 15.0
"""What workers get to end by themselves after the learner did."""
JOIN_S = 120.0
"""Bound on ending everything; what is left then dies with this process."""

Tell = Callable[[str, str], None]
"""Called with (process, text) for every restart."""


@dataclass(slots=True)
class _Seat:
    """What the supervisor knows of a member."""

    member: Member
    budget: Budget
    watch: Watch
    started: float
    leader: str | None = None
    due: float | None = None
    """When it is started again; None while it runs, or is done."""
    parked: bool = False
    """Ended with its leader, to be started with it."""
    done: bool = False
    why: str = ""

    @property
    def running(self) -> bool:
        return not (self.done or self.parked or self.due is not None)


class Supervisor:
    """Use as a context manager: leaving it ends the watching, then every child.

    All starts but the first happen in its own thread, which outlives what it starts (the kernel
    ends a child with the thread that started it)."""

    def __init__(self, config: SuperviseConfig, tell: Tell) -> None:
        self.config = config
        self.failure: BaseException | None = None
        """What stopped the run; nothing is started after that."""
        self._tell = tell
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._thread.join(timeout=JOIN_S)

    def watch(self, member: Member) -> None:
        """Take over a member that runs already."""
        with self._lock:
            self._seats[member.name] = self._seat(member)

    def start(self, leader: Member, followers: Sequence[Member]) -> None:
        """Start a leader, and the followers that end and start again with it."""
        with self._lock:
            for member in (leader, *followers):
                member.start()
                self._seats[member.name] = self._seat(member)
            for member in followers:
                self._seats[member.name].leader = leader.name

    def wait(self, name: str, *, poll_s: float = TICK_S) -> None:
        """Until a member has ended well, and its followers too. Raises what stopped the run."""
        while not self._seats[name].done:
            self.check()
            time.sleep(poll_s)
        deadline = time.monotonic() + FINISH_S
        followers = [seat.member for seat in self._followers(name)]
        while time.monotonic() < deadline and any(m.ended() is None for m in followers):
            time.sleep(poll_s)
        self.release(name, *(member.name for member in followers))

    def release(self, *names: str) -> None:
        """Stop members and forget them."""
        with self._lock:
            for name in names:
                seat = self._seats.pop(name, None)
                if seat:
                    seat.member.stop()

    def check(self) -> None:
        """Raise what stopped the run, if anything did."""
        if self.failure:
            raise self.failure

    def _seat(self, member: Member) -> _Seat:
        now = time.monotonic()
        return _Seat(member, Budget(self.config), Watch(member.mark(), now), now)

    def _followers(self, name: str) -> list[_Seat]:
        return [seat for seat in self._seats.values() if seat.leader == name]

    def _serve(self) -> None:
        try:
            while not self._closing.wait(TICK_S):
                with self._lock:
                    if self.failure is None:
                        self._tick(time.monotonic())
        finally:
            self.release(*self._seats)

    def _tick(self, now: float) -> None:
        try:
            seats = list(self._seats.values())
            ends = {seat.member.name: seat.member.ended() for seat in seats if seat.running}
            for seat in seats:  # first what no restart cures: it may have ended the others
                end = ends.get(seat.member.name)
                if end and end.code in LASTING and not self._is_over(seat):
                    kind = UserError if end.code == USER_CODE else ChildDied
                    raise kind(f"{seat.member.name} {end}")
            for seat in seats:
                if seat.running:
                    self._look(seat, ends.get(seat.member.name), now)
                elif seat.due is not None and now >= seat.due:
                    self._start(seat, now)
        except BaseException as error:  # raised by `check`, in the thread that waits
            self.failure = error

    def _is_over(self, seat: _Seat) -> bool:
        leader = self._seats.get(seat.leader or "")
        return leader is not None and leader.done

    def _look(self, seat: _Seat, end: End | None, now: float) -> None:
        member = seat.member
        if end is None:
            silent_s = seat.watch.look(member.mark(), now)
            limit_s = self.config.stall_s if seat.watch.beats else member.start_s
            if silent_s <= max(limit_s, self.config.stall_s):
                return
            end = End(text=f"gave no sign of life for {silent_s:.0f} s and was killed", code=-9)
        if self._is_over(seat) or (end.code == 0 and member.finishes):
            seat.done = True
            return
        self._died(seat, end, now)

    def _died(self, seat: _Seat, end: End, now: float) -> None:
        member = seat.member
        member.kill()  # what is left of its group
        for follower in self._followers(member.name):
            follower.member.kill()
            follower.parked, follower.due = True, None
        delay_s = seat.budget.died(now, now - seat.started, end.words)
        if delay_s is None:
            raise ChildDied(
                f"{member.name} {end}; it is not started again ({seat.budget.spent}); "
                "resume=auto continues the run"
            )
        seat.due = now + delay_s
        count = f"{seat.budget.used} of {self.config.max_restarts}"
        seat.why = f"{end.text}; restarted ({count}) after {delay_s:.1f} s"

    def _start(self, seat: _Seat, now: float) -> None:
        try:
            for each in (seat, *self._followers(seat.member.name)):
                each.member.start()
                each.watch = Watch(each.member.mark(), now)
                each.started, each.due = now, None
                each.parked = each.done = False
        except (UserError, OSError) as error:  # its port was taken, no memory for a process
            words = f"could not be started: {error}"
            self._died(seat, End(text=words, code=1, words=words), now)
            return
        self._tell(seat.member.name, seat.why)
