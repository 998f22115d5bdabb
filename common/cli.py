"""How every command starts and ends."""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable

from common.runtime import SharedError, distributed
from common.utils.errors import UserError
from common.utils.paths import is_text

log = logging.getLogger("rungs")


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody or a batch system wants the process to end."""


def command(action: Callable[[], object], several: bool = False, resumes: bool = False) -> None:
    """Run a command: a user's error is one line and status 2.

    Ctrl-C and SIGTERM are one line, and status 130 and 143.

    Args:
        action: the command.
        several: several processes may run it, of which the first one speaks; the others say only
            what ends them.
        resumes: it goes on with --resume.
    """
    here = distributed.place()
    who = "" if here.first else f"process {here.rank}: "
    if not any(type(h) is logging.StreamHandler for h in log.handlers):
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    logging.raiseExceptions = False  # a log that cannot be written is no reason to stop
    log.setLevel(logging.INFO if here.first else logging.ERROR)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if here.world > 1 and not several:
            raise SharedError("this command is for one process; torchrun is for a level's run.py")
        _check_arguments()
        action()
        distributed.leave()
    except UserError as error:
        met = distributed.joined() and not isinstance(error, SharedError)
        if met or here.local_rank == 0:  # before they have met, all of a machine see the same
            print(f"{who}error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt as stop:
        for again in (signal.SIGINT, signal.SIGTERM):  # torchrun sends what the terminal has sent
            signal.signal(again, signal.SIG_IGN)
        hint = "; the same command with --resume goes on" if resumes else ""
        print(f"\n{who}stopped{hint}", file=sys.stderr)
        sys.exit(143 if isinstance(stop, Terminated) else 130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" for {error.filename}" if error.filename else ""
            line = f"no room left on the disk{where}; make some, and run it again; a level's run "
            line += "goes on with --resume"
        elif isinstance(error.filename, str | os.PathLike):
            line = f"{error.filename}: {error.strerror}; see what is there, and who may use it"
        else:
            raise
        print(f"{who}error: {UserError(line)}", file=sys.stderr)
        sys.exit(2)
    except RuntimeError as error:
        if not distributed.lost(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        line = "error: another process of this run has ended, or cannot be reached; the same "
        line += f"command with --resume goes on after the last whole epoch ({reason})"
        print(who + line, file=sys.stderr)
        sys.exit(1)


def _check_arguments() -> None:
    """Raise SharedError for one that no report could be written with."""
    for argument in sys.argv[1:]:
        if not is_text(argument):
            raise SharedError(f"command line: {argument!a} is not UTF-8; give it another name")


def _terminate(*_: object) -> None:
    raise Terminated
