"""Runs what a policy wrote (code, tool calls) in a process of its own, behind walls that are named.

    run(code or argv) -> cell (drops rights, makes walls, counts down) -> the program -> Outcome

Always: a fresh process with an empty environment, a temporary working folder, no inherited file
descriptor, bounded time, memory, file size, open files and output, and nothing left behind.
Besides, as far as the kernel allows it, these walls, reported with every outcome:

    user        not the user (or not with the rights) of the one who runs the sandbox
    processes   sees, signals and outlives no process but its own; their number is bounded
    network     no interface, not even loopback
    files       sees the system's programs read-only and its own folder, nothing else

A program that fails, hangs or is killed is an `Outcome`, which is the policy's matter. A sandbox
that cannot be set up is an `EnvironmentFault`; walls that are required and cannot be had are a
`UserError`.
"""

from rltrain.sandbox.run import Outcome, protections, run

__all__ = ["Outcome", "protections", "run"]
