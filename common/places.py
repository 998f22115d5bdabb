"""Where a run and its reports stand."""

import os
import re
import tempfile
from pathlib import Path

import common.config
from common.config import LevelConfig, UserError
from common.paths import expanded


def run_name(level: str, stem: str, seed: int) -> str:
    """Folder name of a run: the config and the seed show where they are not the usual ones."""
    config = "" if stem == "config" else f"-{stem}"
    return level + config + (f"-seed{seed}" if seed else "")


def runs_folder(title: str) -> Path:
    """Where runs on this data stand, a folder each."""
    return common.config.PROJECT / "runs" / slug(title)


def reports_folder(config: LevelConfig, title: str) -> Path:
    """Where reports on this data go: `config.reports`, else beside its runs."""
    if config.reports:
        return expanded(config.reports)
    return runs_folder(title) / "reports"


def slug(title: str) -> str:
    """A title as a folder name: lower case, hyphens for all that is no letter or digit."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-_") or "data"


def write_whole(file: Path, text: str) -> None:
    """Write a text as UTF-8: the old file or the new."""
    content, draft = text.encode("utf-8"), file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(content)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(folder: Path, hint: str) -> None:
    """Make a folder, and fail before hours of training if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot write here ({error.strerror}); {hint}") from error
