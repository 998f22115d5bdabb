"""The data sets that one may ask about, each loaded beside whoever asks for it.

Nothing here imports torch before a data set is loaded: the page is there by then.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.predict.places import checkpoints
from common.utils.errors import UserError, line

if TYPE_CHECKING:
    from common.predict.answers import Answers

KEPT = 3  # data sets, whose networks are in memory


class Choices:
    """The levels of several data sets.

    Args:
        runs: a folder of runs each; the first is the one that is asked unless another is named.
    Raises:
        UserError: the first one has no levels.
    Attributes:
        failed: data set -> why its levels cannot be used.
    """

    def __init__(self, runs: Sequence[Path]):
        self.runs = {folder.name: folder for folder in runs}
        self.first = next(iter(self.runs))
        checkpoints(self.runs[self.first])
        self.failed: dict[str, BaseException] = {}
        self._loaded: dict[str, Answers] = {}
        self._begun: set[str] = set()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self.runs)

    def levels(self, name: str) -> list[str]:
        """A data set's levels, loaded or not."""
        return [level.name for level, _ in checkpoints(self.runs[name])]

    def ready(self, name: str) -> "Answers | None":
        """A data set's levels, if they are loaded."""
        return self._loaded.get(name)

    def begin(self, name: str, failing: Callable[[], None] = lambda: None) -> None:
        """Load a data set beside this thread, unless that was begun; call `failing` if it fails."""

        def load() -> None:
            try:
                self[name]
            except BaseException:
                failing()

        if name not in self._begun:
            self._begun.add(name)
            threading.Thread(target=load, daemon=True).start()

    def __getitem__(self, name: str) -> "Answers":
        """A data set's levels, ready to answer; what is still to be measured is begun beside it.

        Raises:
            UserError: its levels cannot be used.
        """
        with self._lock:
            if name in self.failed:
                raise UserError(line(self.failed[name]))
            answers = self._loaded.pop(name, None)
            if answers is None:
                answers = self._load(name)
            self._loaded[name] = answers
            for oldest in list(self._loaded)[:-KEPT]:
                self._loaded.pop(oldest).leave()
                self._begun.discard(oldest)
            return answers

    def _load(self, name: str) -> "Answers":
        from common.predict.answers import Answers

        try:
            answers = Answers(self.runs[name])
            answers.warm_up()
        except BaseException as error:
            self.failed[name] = error
            raise
        threading.Thread(target=answers.measure, daemon=True).start()
        return answers

    def leave(self) -> None:
        """Let what is being measured stop."""
        for answers in self._loaded.values():
            answers.leave()
