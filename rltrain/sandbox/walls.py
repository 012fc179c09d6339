"""The walls of the sandbox: another user, namespaces, and a root with little in it.

Standard library only: `cell.py` imports this beside itself, in a Python without packages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import stat
from typing import Any

NOBODY = 65534
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, SYS_MOUNT_SETATTR = 2, -100, 0x8000, 442
ATTR_RDONLY, ATTR_NOSUID = 1, 2
SEEN = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache",
        "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")  # fmt: skip
STAGE, WORK = "/tmp", "/work"
"""Where the new root is put together, out of sight of everybody else; the program's own folder."""

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: Any) -> None:
    """A libc function that returns 0 on success. Raises `OSError` naming it."""
    wrapped = [a.encode() if isinstance(a, str) else a for a in args]
    if getattr(libc, name)(*wrapped) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def die_with(parent: int) -> None:
    """Let the kernel end this process with its parent, which must not be gone already."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def may_become_nobody(command: str) -> bool:
    """Whether this is a root that may change users, and nobody may walk to the command."""
    parts = command.split("/")
    above = ["/".join(parts[:count]) or "/" for count in range(1, len(parts) + 1)]
    if os.geteuid() != 0 or not all(os.stat(part).st_mode & 0o001 for part in above):
        return False
    trial = os.fork()
    if trial == 0:
        try:
            become_nobody()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(trial, 0)[1] == 0


def clone(network: bool) -> int | None:
    """Fork into namespaces of its own: users, processes, mounts, IPC, name and, unless `network`,
    network. 0 in the child, its pid here, None if the kernel does not allow it."""
    kinds = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
    flags = kinds | (0 if network else CLONE_NEWNET) | signal.SIGCHLD
    number = SYS_CLONE.get(os.uname().machine)
    pid = -1 if number is None else int(libc.syscall(number, flags, None, None, None, None))
    return None if pid < 0 else pid


def map_users(child: int) -> bool:
    """Say who the users of the child's namespace are: this one and, for root, nobody beside it.
    Whether nobody is there to become."""
    uid, gid = os.geteuid(), os.getegid()
    wanted = [[(uid, NOBODY), (gid, NOBODY)]] if uid == 0 else []
    for users, groups in (*wanted, ((uid,), (gid,))):
        try:
            if uid:  # an ordinary user may map groups only after giving up setgroups
                _write(f"/proc/{child}/setgroups", "deny")
            _write(f"/proc/{child}/uid_map", "".join(f"{x} {x} 1\n" for x in users))
            _write(f"/proc/{child}/gid_map", "".join(f"{x} {x} 1\n" for x in groups))
            return len(users) == 2
        except PermissionError:  # root of a container that may not change users
            continue
    raise OSError("the users of the namespace cannot be named")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def build_root(prefix: str, files: int, owner: int) -> bool:
    """A root of its own: system folders read-only, an empty folder to work in, nothing else.

    prefix: folder of Python. files: bytes of the working folder, which belongs to user `owner`.
    False if the kernel does not allow it; then everything is as it was."""
    mounted = False
    seen = [*SEEN, *([] if prefix.startswith("/usr/") else [prefix])]
    os.umask(0o022)
    try:
        # Held open, since the stage may cover where they are.
        held = {path: os.open(path, os.O_PATH | os.O_NOFOLLOW) for path in filter(_there, seen)}
        call("mount", "none", "/", None, MS_REC | MS_PRIVATE, None)
        call("mount", "tmpfs", STAGE, "tmpfs", MS_NOSUID, "size=1m,mode=755")
        mounted = True
        for path, descriptor in held.items():
            bring_in(descriptor, STAGE + path)
            os.close(descriptor)
        os.symlink(WORK, STAGE + "/tmp")
        os.mkdir(STAGE + WORK)
        sealed = (ctypes.c_uint64 * 4)(ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)
        call("syscall", SYS_MOUNT_SETATTR, AT_FDCWD, STAGE, AT_RECURSIVE, sealed, 32)
        room = f"size={files},nr_inodes=1024,mode=700,uid={owner},gid={owner}"
        call("mount", "tmpfs", STAGE + WORK, "tmpfs", MS_NOSUID | MS_NODEV, room)
        os.chdir(STAGE)
        call("pivot_root", ".", ".")
        call("umount2", ".", MNT_DETACH)
        os.chdir("/")
    except OSError:
        if mounted:
            libc.umount2(STAGE.encode(), MNT_DETACH)
        return False
    return True


def _there(path: str) -> bool:
    return os.path.lexists(path)


def bring_in(held: int, target: str) -> None:
    """A link as a link, a folder or file by a mount."""
    source = f"/proc/self/fd/{held}"
    os.makedirs(os.path.dirname(target), exist_ok=True)
    kind = os.fstat(held).st_mode
    if stat.S_ISLNK(kind):
        os.symlink(os.readlink("", dir_fd=held), target)
        return
    if stat.S_ISDIR(kind):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    call("mount", source, target, None, MS_BIND | MS_REC, None)
