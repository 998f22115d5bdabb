"""The commands: `python -m common` lists them."""

COMMANDS = {
    "course": "every level in order, then the ladder",
    "grade": "recompute what a project's reports claim, and judge it",
    "audit": "look for the classic training bugs in a level",
    "compare": "configs beside the ladder, or one with and without its augmentation",
    "find_lr": "a learning rate for a level, from its loss while the rate grows",
    "predict": "ask the trained levels about your own pictures, or serve a page that does",
    "bench": "time every level against the plain pipeline",
    "site": "one page over a folder of reports",
}


def main() -> None:
    """Print a line a command."""
    print("A level is run by its script: python level3_fusion/run.py --help\n")
    for name, purpose in COMMANDS.items():
        print(f"python -m common.{name:8}  {purpose}")
    print("\nEach has --help.")


if __name__ == "__main__":
    main()
