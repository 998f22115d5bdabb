"""How fast: each level against the plain pipeline, which way of ours brings what, how cost grows.

    python -m common.bench --quick                 # 2,000 pictures, some minutes
    python -m common.bench                         # half an hour on two cores
                                                   # (on a GPU: all of the data at 224 px)
    python -m common.bench --startup               # what --help takes, and a run beside its work
    python -m common.bench --network.weights tiny-imagenet --network.image_size 64 ...

Further options are those of a level's run.py, and go to every level. Each run is a process of its
own. Writes reports/bench.json, bench.md and bench.svg, on a GPU bench_gpu.*. Keep the machine quiet
meanwhile.
"""

from common import cli, levels
from common.config import load_config
from common.utils.errors import UserError


def main() -> None:
    """Run the benchmark that the command line asks for."""
    parser = cli.Parser("bench", __doc__, "[options] [options of a level]")
    parser.add_argument("--quick", action="store_true", help="2,000 pictures, one size")
    parser.add_argument(
        "--startup", action="store_true", help="time what a command takes beside its work, alone"
    )
    named, own, options = parser.parse_before_levels()
    if named:
        raise UserError(f"command line: the benchmark takes options, not '{named[0]}'")

    for level in levels.find_levels():  # a mistake is said now
        load_config(level / "config.yaml", options, parser.prog)
    if own.startup:
        from common.bench import startup

        print(startup.measure(options))
    else:
        from common.bench import suite

        suite.measure(options, own.quick)


if __name__ == "__main__":
    cli.command(main)
