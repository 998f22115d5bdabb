"""The whole course: every level in order, then the ladder.

    python -m common.course --offline
    python -m common.course --reports reports --seeds 0 1 2
    python -m common.course --reports reports --ablate      # after the levels: each less one thing
    python -m common.course --verify-resume 3 --offline     # kill a level's run, resume it, compare

Options are those of a level's run.py, and go to every level.
"""

import sys
from pathlib import Path

from common import cli, experiment, levels, site, verify_resume
from common.config import load_config
from common.reports.ladder import write_ladder
from common.runtime import distributed
from common.utils.errors import UserError
from common.utils.paths import reports_folder


def main() -> None:
    """Run the levels that the project has, or their ablations, each with the given options."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--ablate"]
    if "--verify-resume" in arguments:
        return prove_resume(arguments)
    found = levels.find_levels()
    if not found:
        raise UserError("no level<N>_<name> directory with run.py and config.yaml here")
    if "--ablate" in sys.argv[1:]:
        configs = [(level, file) for level in found for file in ablations(level)]
        if not configs:
            raise UserError("--ablate: no level<N>_<name>/ablations/*.yaml here")
    else:
        configs = [(level, level / "config.yaml") for level in found]
    prog = "python -m common.course [--ablate]"
    loaded = [(level, load_config(file, arguments, prog)) for level, file in configs]
    experiment.check_unfinished_runs(loaded)  # as is a mistake in any config, before the first run
    for level, config in loaded:
        metrics = experiment.run_seeds(levels.load_module(level).main, config)
    if not distributed.place().first:
        return
    title = metrics[0]["data"]["title"]
    print("\n" + write_ladder(reports_folder(config.reports, title)))
    site.show(experiment.write_page(config, metrics))


def prove_resume(arguments: list[str]) -> None:
    """`--verify-resume LEVEL` and a run's options: prove that a killed run loses nothing."""
    place = arguments.index("--verify-resume")
    name, options = arguments[place + 1 : place + 2], arguments[:place] + arguments[place + 2 :]
    if not name or name[0].startswith("-"):
        raise UserError("command line: --verify-resume LEVEL, e.g. --verify-resume 3 --offline")
    level = levels.find_level(*name)
    config = load_config(level / "config.yaml", options, prog="python -m common.course")
    if config.seeds or config.resume or "--ablate" in sys.argv:
        raise UserError("command line: --verify-resume takes one --seed, no --resume or --ablate")
    verify_resume.verify(level, config, options)


def ablations(level: Path) -> list[Path]:
    """The configs of a level that leave out one ingredient each."""
    return sorted((level / "ablations").glob("*.yaml"))


if __name__ == "__main__":
    trains = "--verify-resume" not in sys.argv
    cli.command(main, several=trains, resumes=trains)
