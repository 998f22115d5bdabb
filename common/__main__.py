"""The commands: `python -m common` lists them."""

import sys

from common.utils.errors import nearest

COMMANDS = {
    "course": "every level in order, then the ladder",
    "grade": "recompute what a project's reports claim, and judge it",
    "audit": "look for the classic training bugs in a level",
    "compare": "configs beside the ladder, or one with and without its augmentation",
    "find_lr": "a learning rate for a level, from its loss while the rate grows",
    "labels": "the pictures whose label is likely to be wrong",
    "new_level": "a level of your own, from a copy of another",
    "runs": "the runs that there are; and to be rid of some",
    "predict": "ask the trained levels about your own pictures, or serve a page that does",
    "bench": "time every level against the plain pipeline",
    "site": "one page over a folder of reports",
    "leaderboard": "what every level and config reached, over its seeds",
}


def main() -> None:
    """Print a line a command; status 2 where it is asked for one that is none."""
    if other := [word for word in sys.argv[1:] if word not in ("-h", "--help")]:
        sys.exit(_refused(other[0]))
    print("A level is run by its script: python level3_fusion/run.py --help\n")
    for name, purpose in COMMANDS.items():
        print(f"python -m common.{name:11}  {purpose}")
    print("\nEach has --help.")


def _refused(name: str) -> int:
    print(f"error: no command '{name}'{nearest(name, COMMANDS)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
