"""What a policy might write to get out, hang, flood or kill: an outcome, and nothing remains."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rltrain.config.sandbox import SandboxConfig
from rltrain.errors import EnvironmentFault, UserError
from rltrain.sandbox import Outcome, protections, run

FORK_BOMB = """
import os, time
made = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
    except OSError:
        print(made, flush=True)
        time.sleep(60)
"""
ESCAPE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(0); os.close(1); os.close(2)
        while True:
            time.sleep(60)
    os._exit(0)
print("gone")
"""
LOWERED = """
import ctypes, os, sys
sys.path[:0] = [sys.argv[1]]
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
from rltrain.sandbox import run
"""


def need(*walls: str) -> None:
    missing = set(walls) - protections()
    if missing:
        pytest.skip(f"this machine's kernel allows no wall(s) {sorted(missing)}")


def ours() -> set[int]:
    """Processes below this one, and those of the sandbox's user that nobody else would start."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if b"main.py" in line or b"sandbox/cell.py" in line or (
                int(fields[1]) == os.getpid() and fields[0] == "Z"
            ):
                found.add(int(entry.name))
    return found


@pytest.fixture(autouse=True)
def nothing_remains() -> object:
    before = ours()
    yield
    end = time.monotonic() + 5
    while ours() - before and time.monotonic() < end:
        time.sleep(0.02)
    assert ours() - before == set()


def test_python_and_commands_run_and_say_what_they_said() -> None:
    done = run("import sys; print(6 * 7); print('x', file=sys.stderr); sys.exit(3)")
    assert (done.stdout, done.stderr, done.exit, done.reason) == ("42\n", "x\n", 3, "exited")
    done = run(["sh", "-c", "tr a-z A-Z"], stdin="grüße\n")
    assert (done.exit, done.stdout[:2]) == (0, "GR")


def test_an_endless_loop_is_ended_when_its_time_is_up() -> None:
    done = run("while True: pass", time_s=0.5)
    assert (done.reason, done.exit) == ("time", None)


def test_ignoring_signals_does_not_help() -> None:
    code = """
import signal, time
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
time.sleep(60)
"""
    assert run(code, time_s=0.7).reason == "time"


def test_a_fork_bomb_stays_small_and_ends() -> None:
    need("processes")
    done = run(FORK_BOMB, time_s=2)
    assert done.reason == "time"
    assert 0 < int(done.stdout.split()[0]) <= 8


def test_what_hides_from_its_parent_ends_with_the_program() -> None:
    assert run(ESCAPE).stdout == "gone\n"  # `nothing_remains` looks for the rest


def test_a_memory_bomb_gets_no_more_than_its_share() -> None:
    done = run("x = bytearray(1 << 33)", memory_mb=200)
    assert "MemoryError" in done.stderr and done.exit == 1


def test_too_much_output_is_cut_and_ends_the_program() -> None:
    done = run("while True: print('spam' * 1000)", time_s=20)
    assert done.reason == "output"
    assert len(done.stdout) <= 64 << 10
    assert done.wall_s < 15


def test_files_cannot_fill_the_disk() -> None:
    code = """
import os
total = 0
try:
    for n in range(50):
        with open(f"f{n}", "wb") as f:
            for _ in range(20):
                total += f.write(os.urandom(1 << 20))
except OSError as error:
    print(type(error).__name__)
print(total >> 20)
"""
    done = run(code, files_mb=4, time_s=20)
    if "files" in done.protections:
        assert int(done.stdout.split()[-1]) <= 4
    else:
        assert done.reason == "killed by SIGXFSZ"


def test_nothing_outside_can_be_written_or_read(tmp_path: Path) -> None:
    need("files")
    secret = tmp_path / "gold.txt"
    secret.write_text("the answer")
    code = f"""
for path in ({str(secret)!r}, {str(Path(__file__).resolve())!r}, "/etc/passwd", "/etc/shadow"):
    try: print(open(path).read())
    except OSError as error: print(type(error).__name__)
for path in ({str(tmp_path / "new")!r}, "/usr/bin/new", "/new", "/dev/shm/new", "/etc/new"):
    try: open(path, "w").write("x"); print("WROTE", path)
    except OSError as error: print(type(error).__name__)
"""
    done = run(code)
    assert "the answer" not in done.stdout and "WROTE" not in done.stdout, done.stdout
    assert len(done.stdout.split()) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["gold.txt"]


def test_the_environment_of_the_caller_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLTRAIN_JUDGE_API_KEY", "planted-key-1234")
    code = f"""
import os, glob
print(dict(os.environ))
for path in ["/proc/{os.getpid()}/environ", *glob.glob("/proc/[0-9]*/environ")]:
    try: print(open(path, "rb").read())
    except OSError: pass
"""
    done = run(code)
    assert "PATH" in done.stdout
    if done.protections & {"files", "user"}:
        assert "planted-key" not in done.stdout


def test_there_is_no_network_not_even_to_this_machine() -> None:
    need("network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = (
            "import socket\ntry:\n"
            f"  socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2)\n"
            "  print('through')\nexcept OSError: print('refused')"
        )
        assert run(code).stdout == "refused\n"
        assert run(code, network=True).stdout == "through\n"  # so the wall is what stopped it


def test_an_abstract_socket_of_the_caller_is_out_of_reach() -> None:
    need("network")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0rltrain-test-sandbox")
        server.listen()
        code = (
            "import socket\ntry:\n  s = socket.socket(socket.AF_UNIX)\n"
            "  s.connect('\\0rltrain-test-sandbox'); print('through')\n"
            "except OSError: print('refused')"
        )
        assert run(code).stdout == "refused\n"


def test_the_caller_cannot_be_killed() -> None:
    need("processes")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as victim:
        code = f"""
import os, signal
for pid in ({victim.pid}, {os.getpid()}, os.getppid(), 1, -1):
    try: os.kill(pid, signal.SIGKILL); print("sent", pid)
    except OSError as error: print(type(error).__name__)
"""
        done = run(code)
        assert victim.poll() is None
        victim.kill()
    assert done.reason in ("exited", "killed by SIGKILL")  # -1 may reach itself


def test_descriptors_of_the_caller_do_not_leak(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        code = """
import os
for number in range(3, 64):
    try: os.fstat(number); print(number)
    except OSError: pass
"""
        assert run(code).stdout == ""


def test_privileged_calls_fail() -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None)
print(libc.mount(b"none", b"/work", b"tmpfs", 0, None), libc.chroot(b"/work"),
      libc.sethostname(b"x", 1), libc.setuid(0))
"""
    assert set(run(code).stdout.split()) == {"-1"}


def test_a_program_that_does_not_exist_is_the_systems_fault() -> None:
    for argv in (["/no/such/program"], [], ["a\0b"]):
        with pytest.raises(EnvironmentFault):
            run(argv)


def test_text_that_is_no_unicode_runs_or_fails_as_a_program() -> None:
    assert run("print('\ud800')").reason == "exited"
    assert run("print(1)\0").exit == 1
    done = run(["printf", "\\377\\376"])
    assert done.stdout == "\ufffd\ufffd"


def test_many_at_a_time_do_not_disturb_each_other() -> None:
    with ThreadPoolExecutor(4) as pool:
        found: list[Outcome] = list(
            pool.map(lambda n: run(f"open('f','w').write('{n}'); print({n}**2)"), range(8))
        )
    assert [int(done.stdout) for done in found] == [n * n for n in range(8)]


def test_a_missing_wall_that_is_required_stops_and_says_so() -> None:
    """With user namespaces switched off, as some containers have it: limits still hold."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Ur", "true"], check=False).returncode:
        pytest.skip("needs user namespaces, to switch them off inside of one")
    code = LOWERED + """
from rltrain.errors import UserError
done = run("while True: pass", time_s=0.5)
print(sorted(done.protections), done.reason)
print(run(sys.argv[2]).stdout.strip())
try: run("", require=("network",))
except UserError as error: print(error)
"""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [unshare, "-Ur", sys.executable, "-c", code, root, ESCAPE],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith("[") and lines[0].endswith("] time"), (lines, done.stderr[-1500:])
    assert "network" not in lines[0]
    assert lines[1] == "gone"
    assert "cannot have the wall(s) network" in lines[2]


def test_an_unknown_wall_is_refused() -> None:
    with pytest.raises(UserError, match="moat"):
        run("", require=("moat",))


def test_the_section_of_a_config_is_what_run_takes() -> None:
    limits = SandboxConfig(time_s=3, require=("processes",) if "processes" in protections() else ())
    assert run("print(1)", **limits.model_dump()).stdout == "1\n"
