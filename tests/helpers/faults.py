"""A run that is stopped at one of the points at which it writes; started as a script.

    faults.py MARKS HOW NUMBER run.py [its options]

Its points are counted where files are written, in common/utils/files.py, by what that asks of the
system: so files that are yet to be thought of are stopped at, too. HOW is `count` (each point is
noted in the file MARKS, a line each, and whatever writes a file in another way), `kill` (at the
point of this NUMBER), `full` (from there on the disk has no room), or `gone` (somebody deletes the
file's folder there).
"""

import errno
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

# The log is added to line by line; TensorBoard's files, where they are asked for, are its own.
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NEEDS_ROOM = "begun", "half"


class Points:
    """Counts the points, and acts at one of them.

    Args:
        project: what is in its folders runs and data is watched.
        marks, how, number: see above.
    """

    def __init__(self, project, marks, how, number):
        self.project, self.how, self.number, self.count = str(project), how, number, 0
        self.process = os.getpid()  # not those that it starts
        self.marks = os.open(marks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        names = "fsync", "replace", "rename", "link", "unlink"
        self.system = {name: getattr(os, name) for name in names}
        for name in self.system:
            setattr(os, name, getattr(self, name))
        sys.addaudithook(self.opened)

    def point(self, what, file):
        """One at which the run may be stopped; `file` is the one that is written in the end."""
        self.count += 1
        if self.how == "count":
            self.note(what, file)
        elif self.how == "kill" and self.count == self.number:
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "gone" and self.count == self.number:
            shutil.rmtree(os.path.dirname(file))
        elif self.how == "full" and self.count >= self.number and what in NEEDS_ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    def note(self, what, file):
        os.write(self.marks, f"{what}: {os.path.relpath(file, self.project)}\n".encode())

    def watched(self, file):
        top, _, inside = os.path.relpath(os.fsdecode(file), self.project).partition(os.sep)
        return top in ("runs", "data") and inside != "" and os.getpid() == self.process

    def opened(self, event, arguments):
        """Python is about to open a file, for instance to write to it."""
        if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        file, flags = os.fsdecode(arguments[0]), arguments[2]
        if not flags & WRITES or not self.watched(file) or os.path.isdir(file):
            return  # a folder: of a file without a name
        if drafted(file) and flags & os.O_CREAT:
            self.point("begun", meant(file))
        elif not drafted(file) and not beside(file) and self.how == "count":
            self.note("another way", file)

    def fsync(self, number):
        file = os.readlink(f"/proc/self/fd/{number}")
        if not self.watched(file):
            return self.system["fsync"](number)
        if self.count + 1 == self.number or self.how == "full" and self.count + 1 > self.number:
            os.truncate(file, os.path.getsize(file) // 2)
        self.point("half", meant(file))
        self.point("whole", meant(file))
        self.system["fsync"](number)

    def replace(self, draft, file):
        if not self.watched(file):
            return self.system["replace"](draft, file)
        self.point("synced", file)
        self.system["replace"](draft, file)
        self.point("in place", file)

    def rename(self, old, new):
        if not self.watched(new):
            return self.system["rename"](old, new)
        self.point("to be renamed", meant(os.fspath(new)))
        self.system["rename"](old, new)
        self.point("renamed", meant(os.fspath(new)))

    def link(self, file, other):
        if self.watched(other):
            self.point("to be kept", other)
        self.system["link"](file, other)

    def unlink(self, file, *, dir_fd=None):
        folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        place = os.path.join(folder, os.fspath(file))  # as rmtree removes: by folder and name
        if self.watched(place) and os.path.lexists(place):
            self.point("to be removed", meant(place))
        self.system["unlink"](file, dir_fd=dir_fd)


def drafted(file):
    """Whether a file is a draft, or in the draft of a folder."""
    return any(is_draft(part) for part in Path(file).parts)


def is_draft(name):
    return name.startswith(".") and name.endswith(".part")


def beside(file):
    """Whether a file is the log, or a lock, which holds a process's number."""
    folder, name = os.path.split(file)
    return name == "log.txt" or os.path.basename(folder) == ".locks"


def meant(file):
    """The file that a draft is of; any other as it is."""
    parts = Path(file).parts
    return os.path.join(*(p[1:].rsplit(".", 2)[0] if is_draft(p) else p for p in parts))


if __name__ == "__main__":
    _, marks, how, number, *sys.argv = sys.argv
    Points(Path.cwd(), marks, how, int(number))
    runpy.run_path(sys.argv[0], run_name="__main__")
