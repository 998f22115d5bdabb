"""The whole course: every level in order, then the ladder.

    python -m common.course --offline
    python -m common.course --reports reports --seeds 0 1 2
    python -m common.course --reports reports --ablate      # after the levels: each less one thing

Options are those of a level's run.py, and go to every level.
"""

import sys
from pathlib import Path

from common import levels, running, site
from common.config import UserError
from common.experiment import reports_folder
from common.ladder import write_ladder
from common.options import load_config


def main() -> None:
    """Run the levels that the project has, or their ablations, each with the given options."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--ablate"]
    found = levels.find_levels()
    if not found:
        raise UserError("no level<N>_<name> directory with run.py and config.yaml here")
    if "--ablate" in sys.argv[1:]:
        configs = [(level, file) for level in found for file in ablations(level)]
        if not configs:
            raise UserError("--ablate: no level<N>_<name>/ablations/*.yaml here")
    else:
        configs = [(level, level / "config.yaml") for level in found]
    for level, file in configs:
        config = load_config(file, arguments, prog="python -m common.course [--ablate]")
        metrics = running.run_seeds(levels.load_module(level).main, config)
    title = metrics[0]["data"]["title"]
    print("\n" + write_ladder(reports_folder(config, title)))
    site.show(running.write_page(config, metrics))


def ablations(level: Path) -> list[Path]:
    """The configs of a level that leave out one ingredient each."""
    return sorted((level / "ablations").glob("*.yaml"))


if __name__ == "__main__":
    levels.command(main)
