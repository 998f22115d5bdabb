"""Errors that are the user's to mend: one line, and never a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: one line that says what, where and what to do.

    It stays one line, without control characters, whatever files' names and contents bring in.
    """

    status = 2  # the command's exit status

    def __init__(self, text: str):
        line = " ".join(text.splitlines())
        super().__init__("".join(c if c.isprintable() or c.isspace() else "?" for c in line))


class NoNetwork(UserError):
    """A download that failed."""


class SharedError(UserError):
    """One that every process of a run meets by itself: the first one says it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the nearest of the known words, else the list of them.

    The nearest of dotted words is one that ends in the word: train.lr, for lr.
    """
    known = list(known)
    close = [name for name in known if name.rpartition(".")[2] == word]
    close = close or difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def line(error: BaseException) -> str:
    """An error's text in one line of 200 characters at most; its kind where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__
