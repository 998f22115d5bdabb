"""A run's log.txt, which is written once the run has begun: one that is refused leaves none."""

import logging
from logging.handlers import MemoryHandler
from pathlib import Path


class Logbook(MemoryHandler):
    """Keeps what is said until `begin`, then writes that and all that follows into log.txt.

    Args:
        resume: add to a log that is there, instead of replacing it.
    """

    def __init__(self, folder: Path, resume: bool):
        file = logging.FileHandler(folder / "log.txt", "a" if resume else "w", "utf-8", delay=True)
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        super().__init__(100_000, logging.CRITICAL + 1, file)
        self.begun = False

    def begin(self) -> None:
        """Write from now on."""
        self.begun, self.capacity = True, 1
        self.flush()

    def flush(self) -> None:
        """Write what was said, if the run has begun; also called where the process ends."""
        if self.begun:
            super().flush()

    def close(self) -> None:
        """Close log.txt; what has not begun is dropped."""
        if self.target:
            self.target.close()
        super().close()
