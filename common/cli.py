"""How every command starts and ends. Nothing here imports torch: `--help` and a mistyped option are
answered before that takes its seconds.
"""

import argparse
import errno
import logging
import os
import re
import signal
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from common.config import LevelConfig, load_config
from common.utils.errors import SharedError, UserError, nearest
from common.utils.paths import is_text
from common.utils.processes import place_in_run

log = logging.getLogger("rungs")
Answer = TypeVar("Answer")
STOPS = signal.SIGINT, signal.SIGTERM
ONCE = {"once": True}  # as a log line's `extra`: a command says it once, however many runs do


class _Once(logging.Filter):
    """Shows what is said with `extra=ONCE` the first time alone, as when levels share it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be shown."""
        text = record.getMessage()
        again = hasattr(record, "once") and text in self.said
        self.said.add(text)
        return not again


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody or a batch system wants the process to end."""


class Parser(argparse.ArgumentParser):
    """A command's own options.

    Args:
        name: of `python -m common.<name>`.
        description: the module's docstring.
        takes: what may follow it, where that is more than the options here.
    Raises:
        UserError: of whatever is wrong on the command line, in one line.
    """

    def __init__(self, name: str, description: str, takes: str | None = None):
        prog = f"python -m common.{name}"
        super().__init__(
            prog=prog,
            usage=takes and f"{prog} {takes}",
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """One line, with the nearest option where one is unknown."""
        unknown = next((word for word in message.split() if word.startswith("--")), "")
        known = [option for action in self._actions for option in action.option_strings]
        hint = nearest(unknown, known) if message.startswith("unrecognized") and unknown else ""
        raise UserError(f"command line: {message}{hint}")

    def parse_before_levels(self) -> tuple[list[str], argparse.Namespace, list[str]]:
        """For a command whose other options are a level's: what it is given before any option, its
        own options, and the rest, which `load_config` reads.
        """
        arguments = sys.argv[1:]
        count = next((i for i, a in enumerate(arguments) if a.startswith("-")), len(arguments))
        own, rest = self.parse_known_args(arguments[count:])
        return arguments[:count], own, rest


def command(action: Callable[[], Answer], several: bool = False, resumes: bool = False) -> Answer:
    """Run a command, and return what it returns: a user's error is one line and status 2.

    Ctrl-C and SIGTERM are one line, and status 130 and 143.

    Args:
        action: the command.
        several: several processes may run it, of which the first one speaks; the others say only
            what ends them.
        resumes: it goes on with --resume.
    """
    rank, world, local_rank = place_in_run()
    who = f"process {rank}: " if rank else ""
    if not any(type(h) is logging.StreamHandler for h in log.handlers):
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(_Once())
        log.addHandler(handler)
    logging.raiseExceptions = False  # a log that cannot be written is no reason to stop
    log.setLevel(logging.ERROR if rank else logging.INFO)
    if signal.getsignal(signal.SIGINT) is _stopped:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        if world > 1 and not several:
            raise SharedError("this command is for one process; torchrun is for a level's run.py")
        _check_arguments()
        answer = action()
        _other_processes("leave")
        signal.signal(signal.SIGTERM, before)  # another command, or an import, may come after it
        return answer
    except UserError as error:
        met = _other_processes("joined") and not isinstance(error, SharedError)
        if met or local_rank == 0:  # before they have met, all of a machine see the same
            print(f"{who}error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt as stop:
        for again in STOPS:  # torchrun sends what the terminal has sent
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
        if not _other_processes("lost", error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        line = "error: another process of this run has ended, or cannot be reached; the same "
        line += f"command with --resume goes on after the last whole epoch ({reason})"
        print(who + line, file=sys.stderr)
        sys.exit(1)


def level_config(script: str) -> LevelConfig:
    """The configuration of a level's run.py: its config.yaml, then the command line."""
    level = Path(script).resolve().parent

    def read() -> LevelConfig:
        prog = f"python {level.name}/run.py"
        config = load_config(level / "config.yaml", sys.argv[1:], prog=prog)
        if not config.summary:  # a sign of life: torch takes seconds
            log.info("%s: starting", level.name)
        return config

    config = command(read, several=True)
    # what follows imports torch, for seconds, before `command` is at work again
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stopped)
    return config


def painted(text: str) -> str:
    """A table with its verdicts in colour: on a terminal, unless NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    colours = {"gain": 32, "loss": 31}  # green and red
    words = re.compile(r"(?<=\s)(gain|loss)(?=\s|$)", re.MULTILINE)
    return words.sub(lambda found: f"\x1b[{colours[found[1]]}m{found[1]}\x1b[0m", text)


def show(path: Path) -> None:
    """Open a page in the browser, where there is a desktop and someone who looks at it."""
    screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if screen and sys.stdout.isatty():
        webbrowser.open(path.resolve().as_uri())


def _other_processes(question: str, *arguments: object) -> bool:
    """What runtime/distributed.py says; nothing is so before it is imported."""
    distributed = sys.modules.get("common.runtime.distributed")
    return distributed is not None and getattr(distributed, question)(*arguments)


def _check_arguments() -> None:
    """Raise SharedError for one that no report could be written with."""
    for argument in sys.argv[1:]:
        if not is_text(argument):
            raise SharedError(f"command line: {argument!a} is not UTF-8; give it another name")


def _terminate(*_: object) -> None:
    raise Terminated


def _stopped(number: int, _: object) -> None:
    print("\nstopped", file=sys.stderr, flush=True)
    os._exit(128 + number)  # no import unwinds cleanly
