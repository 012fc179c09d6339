"""The inside of the sandbox: drops rights, builds walls, runs one program, and cleans up after it.

    cell (counts down, kills) -> init (first process of its own namespace) -> program

Runs as a script under `python -I -S`, so it imports the standard library alone. It reads one JSON
object from standard input and reports JSON lines to the file descriptor in argv[1]: `walls`, then
`reason` with `exit`, or `fault`. The program has neither descriptor. When `init` ends, the kernel
ends everything that the program started, whatever it did to hide; without a process namespace, the
cell adopts whatever loses its parent and kills until nothing is left.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from rltrain.sandbox import walls as w
else:  # run as a script
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import walls as w

PROCESSES = 8
"""Processes and threads that the program may have at a time."""
OPEN_FILES = 64
_OTHERS = 1
"""Init, which may count as well."""
_KILL_ROUNDS = 200

Spec = dict[str, Any]


def report(status: int, **values: Any) -> None:
    os.write(status, json.dumps(values).encode() + b"\n")


def limit(spec: Spec, own_count: bool) -> None:
    """Bounds that the program inherits and cannot raise. Without a user namespace, processes are
    counted over everything that the user runs, so that a bound would hit others' work."""
    cpu = int(spec["time_s"]) + 2
    bounds = {
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_AS: spec["memory"],
        resource.RLIMIT_FSIZE: spec["files"],
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if own_count:
        bounds[resource.RLIMIT_NPROC] = PROCESSES + _OTHERS
    for kind, most in bounds.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def start(spec: Spec, folder: str, walls: list[str], status: int) -> NoReturn:
    """Become the program."""
    try:
        if "user" in walls:
            w.become_nobody()
        os.chdir(folder)
        os.umask(0o077)
        argv = spec["argv"]
        if argv is None:
            with open("main.py", "w", encoding="utf-8") as file:
                file.write(spec["source"])
            argv = [spec["python"], "-I", "-S", "-X", "utf8", "main.py"]
        given = os.memfd_create("stdin")
        os.write(given, spec["stdin"].encode())
        os.lseek(given, 0, os.SEEK_SET)
        os.dup2(given, 0)
        os.close(given)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and that is inherited
        w.call("prctl", w.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        path = shutil.which(argv[0], path="/usr/local/bin:/usr/bin:/bin") or argv[0]
        limit(spec, "processes" in walls)
        os.execve(path, argv, {"PATH": "/usr/bin:/bin", "HOME": folder, "LANG": "C.UTF-8"})
    except BaseException as error:
        report(status, fault=f"the program cannot be started: {error}")
    os._exit(127)


def wait_for(program: int) -> dict[str, Any]:
    """Reap until the program ends; how it ended."""
    while True:
        pid, code = os.wait()
        if pid == program:
            number = os.waitstatus_to_exitcode(code)
            if number >= 0:
                return {"reason": "exited", "exit": number}
            name = signal.Signals(-number).name if -number < signal.SIGRTMIN else str(-number)
            return {"reason": "time" if name == "SIGXCPU" else f"killed by {name}", "exit": None}


def first_process(spec: Spec, mapped: int, status: int) -> NoReturn:
    """Process 1 of the namespace: build the root, start the program, report how it ended."""
    try:
        w.die_with(0)  # the parent is outside and has no number here
        walls = ["processes", *([] if spec["network"] else ["network"])]
        if os.read(mapped, 1) == b"2":
            walls.append("user")
        owner = w.NOBODY if "user" in walls else os.geteuid()
        if w.build_root(spec["prefix"], spec["files"], owner):
            walls.append("files")
        else:
            os.chown(spec["work"], owner, owner if owner == w.NOBODY else -1)
        report(status, walls=walls)
        program = os.fork()
        if program == 0:
            start(spec, w.WORK if "files" in walls else spec["work"], walls, status)
        report(status, **wait_for(program))
    except BaseException as error:
        report(status, fault=f"{type(error).__name__}: {error}")
    os._exit(0)


def kill_adopted() -> None:
    """Kill and reap whatever is below this process, until nothing is."""
    for _ in range(_KILL_ROUNDS):
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
                if parent == os.getpid():
                    os.kill(int(entry), signal.SIGKILL)
            except (OSError, ValueError, IndexError):
                continue
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def count_down(child: int, seconds: float) -> bool:
    """Wait until the child ends (True, and it is left to reap), the time is up or we are told to
    stop (False)."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        found = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, left)
        if found is None or found.si_signo == signal.SIGTERM:
            return False
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return True
    return False


def begin(spec: Spec, status: int) -> tuple[int, bool]:
    """Start the program; its process or that of its namespace, and whether it has one."""
    mapped_r, mapped_w = os.pipe()
    child = w.clone(spec["network"])
    if child == 0:
        os.close(mapped_w)
        first_process(spec, mapped_r, status)
    os.close(mapped_r)
    if child is not None:
        os.write(mapped_w, b"2" if w.map_users(child) else b"1")
        return child, True
    w.call("prctl", w.PR_SET_SUBREAPER, 1, 0, 0, 0)
    command = spec["argv"][0] if spec["argv"] else spec["python"]
    walls = ["user"] if w.may_become_nobody(shutil.which(command) or "/") else []
    if walls:
        os.chown(spec["work"], w.NOBODY, w.NOBODY)
    report(status, walls=walls)
    child = os.fork()
    if child == 0:
        os.setsid()
        start(spec, spec["work"], walls, status)
    return child, False


def main(status: int, parent: int) -> None:
    spec: Spec = json.loads(sys.stdin.buffer.read())
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    w.die_with(parent)
    child, apart = begin(spec, status)
    os.close(1)  # only the program's own copies stay open
    os.close(2)
    if not count_down(child, spec["time_s"]):
        report(status, reason="time", exit=None)
        os.kill(child, signal.SIGKILL)
    elif not apart:
        report(status, **wait_for(child))
    kill_adopted()


if __name__ == "__main__":
    channel = int(sys.argv[1])
    os.set_inheritable(channel, False)
    try:
        main(channel, int(sys.argv[2]))
    except BaseException as error:
        report(channel, fault=f"{type(error).__name__}: {error}")
        sys.exit(1)
