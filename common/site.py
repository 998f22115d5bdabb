"""One page for a folder of reports: index.html, which needs no network.

    python -m common.site [REPORTS]        # reports/ if none is named
    python -m common.site reports --slim   # and drop what it does not use, to publish the folder
    python -m common.site reports --into README.md   # its story, between <!-- story --> marks there

Made from metrics.json, history.json and predictions.npz. Galleries of test pictures are made anew
where the pictures and the runs' weights are, kept where they still belong to the predictions, and
left out, which the page says, otherwise.
"""

import logging

from common import cli
from common.utils import paths
from common.utils.paths import expanded

log = logging.getLogger("rungs")


def main() -> None:
    """Write the page of the folder that is named, or of reports/."""
    parser = cli.Parser("site", __doc__)
    parser.add_argument("reports", nargs="?", metavar="REPORTS", help="the folder")
    parser.add_argument("--slim", action="store_true", help="and drop what the page does not use")
    parser.add_argument("--into", metavar="FILE", help="write its story into a Markdown file")
    own = parser.parse_args()

    from common.reports import story
    from common.reports.page import build_page, slim
    from common.reports.store import Reports

    reports = Reports.read(expanded(own.reports) if own.reports else paths.PROJECT / "reports")
    _, page = build_page(reports, redraw=True)
    if own.slim:
        slim(reports)
    if own.into:
        story.write_into(expanded(own.into), reports)
    log.info("%s", page)


if __name__ == "__main__":
    cli.command(main)
