"""The whole course: every level in order, then the ladder.

    python -m common.course --offline
    python -m common.course --reports reports --seeds 0 1 2

Options are those of a level's run.py, and go to every level.
"""

import sys

from common import levels, report
from common.config import UserError
from common.experiment import reports_folder
from common.options import load_config


def main() -> None:
    """Run the levels that the project has, each with the command line's options."""
    found = levels.find_levels()
    if not found:
        raise UserError("no level<N>_<name> directory with run.py and config.yaml here")
    for level in found:
        config = load_config(level / "config.yaml", sys.argv[1:], prog="python -m common.course")
        run = levels.load_module(level).main
        metrics = levels.run_seeds(run, config)
    title = metrics[0]["data"]["title"]
    print("\n" + report.write_ladder(reports_folder(config, title)))


if __name__ == "__main__":
    levels.command(main)
