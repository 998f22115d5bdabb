"""One page for a folder of reports: index.html, which needs no network.

    python -m common.site [REPORTS]        # reports/ if none is named
    python -m common.site reports --slim   # and drop what it does not use, to publish the folder

Made from metrics.json, history.json and predictions.npz. Galleries of test pictures are made anew
where the pictures and the runs' weights are, kept where they still belong to the predictions, and
left out, which the page says, otherwise.
"""

import logging
import os
import sys
import webbrowser
from pathlib import Path

from common import cli
from common.reports.page import build_page, slim
from common.utils import paths
from common.utils.errors import UserError
from common.utils.paths import expanded

log = logging.getLogger("rungs")


def main() -> None:
    """Write the page of the folder that is named, or of reports/."""
    named = [argument for argument in sys.argv[1:] if argument != "--slim"]
    if len(named) > 1 or named and named[0].startswith("-"):
        raise UserError("command line: python -m common.site [REPORTS] [--slim]")
    reports = expanded(*named) if named else paths.PROJECT / "reports"
    page = build_page(reports, redraw=True)
    if "--slim" in sys.argv[1:]:
        slim(reports)
    log.info("%s", page)


def show(path: Path) -> None:
    """Open a page in the browser, where there is a desktop and someone who looks at it."""
    screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if screen and sys.stdout.isatty():
        webbrowser.open(path.resolve().as_uri())


if __name__ == "__main__":
    cli.command(main)
