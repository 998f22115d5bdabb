"""The whole course: every level in order, then the ladder.

    python -m common.course --offline
    python -m common.course --reports reports --seeds 0 1 2
    python -m common.course --reports reports --ablate      # after the levels: each less one thing
    python -m common.course --verify-resume 3 --offline     # kill a level's run, resume it, compare

Options are those of a level's run.py, and go to every level.
"""

import logging
import sys

from common import cli, levels
from common.config import load_config
from common.utils.errors import UserError

log = logging.getLogger("rungs")


def main() -> None:
    """Run the levels that the project has, or their ablations, each with the given options."""
    parser = cli.Parser("course", __doc__, "[options] [options of a level]")
    parser.add_argument("--ablate", action="store_true", help="run the levels' ablations instead")
    parser.add_argument("--verify-resume", metavar="LEVEL", help="prove that a kill loses nothing")
    named, own, options = parser.parse_before_levels()
    if named:
        raise UserError(f"command line: the course takes no '{named[0]}'; it runs every level")
    if own.verify_resume:
        level = levels.find_level(own.verify_resume)
        config = load_config(level / "config.yaml", options, parser.prog)
        if config.seeds or config.resume or config.summary or own.ablate:
            raise UserError(
                "command line: --verify-resume takes one --seed, no --resume, --summary or --ablate"
            )

        from common import verify_resume

        return verify_resume.verify(level, config, options)
    found = levels.find_levels()
    if not found:
        raise UserError("no level<N>_<name> directory with run.py and config.yaml here")
    files = [(level, level / "config.yaml") for level in found]
    if own.ablate:
        files = [
            (level, file) for level in found for file in sorted(level.glob("ablations/*.yaml"))
        ]
        if not files:
            raise UserError("--ablate: no level<N>_<name>/ablations/*.yaml here")
    configs = [(level, load_config(file, options, parser.prog)) for level, file in files]
    if configs[0][1].name is not None and len(configs) > len({level for level, _ in configs}):
        raise UserError("--name: it would be that of several configs of a level; leave it out")

    log.info("%d levels: starting", len(configs))  # a sign of life: torch takes seconds

    from common import commands
    from common.runtime import distributed

    # before the first run, as a mistake in a config is
    mains = [levels.load_function(level, "main") for level, _ in configs]
    for level, _ in configs:
        levels.code_at_start(level)
    commands.check_unfinished_runs(configs)
    for main_of_level, (level, config) in zip(mains, configs, strict=True):
        metrics = commands.run_seeds(main_of_level, level, config)
    if distributed.place().first:
        table, page = commands.write_pages(config, metrics)
        print("\n" + cli.painted(table))
        log.info("page: %s", page)
        cli.show(page)


if __name__ == "__main__":
    trains = not any(argument.startswith("--verify-resume") for argument in sys.argv)
    cli.command(main, several=trains, resumes=trains)
