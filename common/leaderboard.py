"""What every level and config reached, over its seeds: LEADERBOARD.md.

    python -m common.leaderboard [REPORTS]   # reports/ and the folders in it, if none is named

A row is a level's config on one data set, from one set of weights, at one size, with all its seeds.
"""

import logging

from common import cli
from common.utils import paths
from common.utils.paths import expanded

log = logging.getLogger("rungs")


def main() -> None:
    """Write the leaderboard of the folder that is named, or of reports/, and of those in it."""
    parser = cli.Parser("leaderboard", __doc__)
    parser.add_argument("reports", nargs="?", metavar="REPORTS", help="the folder")
    own = parser.parse_args()

    from common.reports import leaderboard
    from common.reports.store import Reports

    place = expanded(own.reports) if own.reports else paths.PROJECT / "reports"
    inner = sorted(folder for folder in place.glob("*") if folder.is_dir())
    several = [Reports.read(folder) for folder in (place, *inner)]
    log.info("%s", leaderboard.write(place, several))


if __name__ == "__main__":
    cli.command(main)
