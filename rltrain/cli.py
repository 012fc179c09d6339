"""The command line: `rltrain COMMAND`, one module of `rltrain.commands` each.

This file finds the command, turns errors into one sentence with the right exit code, and imports
nothing heavy. Exit codes: 0 done, 2 something the user can put right, 3 a part of the system
failed, 130 interrupted; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

COMMANDS = {
    "train": "train a policy and report what it learned and what it gamed",
    "build": "build the embedded policy and judge ahead of a run",
    "eval": "evaluate a finished run's policy, or any model folder, on held-out tasks",
    "export": "write a run's adapter or model, ready for PEFT, transformers and vLLM",
    "promote": "take a run into service, if its evaluation allows it",
    "rollback": "put an earlier promoted version back into service",
    "serve": "serve a policy with vLLM behind an OpenAI-compatible interface",
    "report": "write report.html and summary.json of a run again",
    "audit": "check from a run's files alone that nothing was lost, doubled or damaged",
    "audit-env": "attack an environment's reward with agents that know nothing",
    "flags": "look through a run's flags, and confirm or reject them",
    "detect-bench": "measure the detectors on labelled answers, ours or yours",
    "judge": "calibrate a judge against raters and executed truth",
    "mismatch": "measure how far learner and engine are apart, by precision",
    "pairs": "select preference pairs, or answers to imitate, from a run's rollouts",
    "tasks": "print an environment's tasks as JSON lines",
    "score": "score answers from a JSONL file: every gate, flag, reward and truth",
    "lint-rewards": "find what is wrong with a gated reward before a policy does",
}

HELP = """rltrain: reinforcement-learning training of language models, where every number is true.

usage: rltrain COMMAND [options] [key=value ...]

{commands}

Start here:   rltrain train experiment=segments_cpu
Then:         rltrain COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `rltrain` script."""
    args = list(sys.argv[1:] if argv is None else argv)
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP.format(commands=listing))
        sys.exit(0 if args else 2)
    if args[0] == "--version":
        from rltrain import __version__

        print(__version__)
        return
    if args[0] not in COMMANDS:
        sys.exit(_fail(f"unknown command {args[0]!r}; there are {', '.join(COMMANDS)}", 2))
    sys.exit(run(args[0], args[1:]))


def run(name: str, args: list[str]) -> int:
    """Run one command; returns its exit code."""
    from rltrain.errors import RltrainError, UserError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        importlib.import_module(f"rltrain.commands.{name.replace('-', '_')}").main(args)
    except UserError as error:
        return _fail(str(error), 2)
    except RltrainError as error:
        return _fail(str(error), 3)
    except KeyboardInterrupt:
        return _fail("interrupted; every process of the run was stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        where = error.filename or "the run directory"
        return _fail(f"cannot write {where}: {error.strerror}; free space or set runs_dir=…", 3)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # so that `finally` stops every child on SIGTERM as on Ctrl-C


def _fail(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code
