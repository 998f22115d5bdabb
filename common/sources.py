"""Data sets by name: what reports call them, and where their archives lie."""

import os
from pathlib import Path

from common.archives import KINDS, TITLES
from common.config import DataConfig
from common.utils import paths
from common.utils.errors import UserError
from common.utils.paths import expanded, is_text


def title_of(config: DataConfig) -> str:
    """What reports call the data, after which the folder of its runs is named.

    Raises:
        UserError: a folder of pictures that is not named, or in no text.
    """
    if config.name == "folder" and config.root is None:
        raise UserError("data.root is missing: name the folder of pictures with --data.root")
    if config.title:
        return config.title
    if config.name != "folder":
        return TITLES.get(config.name, config.name)
    name = Path(os.path.realpath(expanded(config.root))).name
    if not is_text(name):
        raise UserError(f"data.root: the folder {name!a} is not named in UTF-8; use --data.title")
    return name


def archive_place(config: DataConfig) -> Path | None:
    """Where a data set's archive lies or goes; None for data that come without one."""
    kind = KINDS.get(config.name)
    return archive_root(config) / kind.filename if kind else None


def archive_root(config: DataConfig) -> Path:
    """The folder of a data set's archive."""
    return expanded(config.root) if config.root else paths.PROJECT / "data"
