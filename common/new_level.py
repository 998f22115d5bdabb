"""Makes a level of your own from a copy of another: what it needs to run, and none of its claims.

    python -m common.new_level mine --like 3               # level5_mine/, where there are four
    python -m common.new_level mine --like 3 --number 7

Of the level named by --like it takes run.py, the modules of its own that this imports, the recipe
and the lesson's headings. Ablations and other configs stay behind.
"""

import ast
import io
import logging
import os
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import yaml

from common import cli, levels
from common.config import load_config
from common.utils import paths
from common.utils.errors import UserError, line
from common.utils.files import drafted_folder, write_whole

log = logging.getLogger("rungs")

NAME = re.compile(r"[A-Za-z0-9_]{1,60}")
UNMEASURED = "not measured yet"
PROMPTS = {  # by a word of the heading
    "objective": "what this level is to find out, in one sentence",
    "unsolved": "what the level below still gets wrong, and where its report shows it",
    "idea": "what is new here; one thing, so that the gain is its own",
    "recipe": "what trains, on what, at which rate and how long, and what of it val chose",
    "report": "which figures and pictures show whether the idea works",
    "exercises": "what a reader may change, and what to ask of the result",
}
HEADINGS = ["**Objective.**", "**The one idea.**", "**The recipe.**"]  # of one without a README


def main() -> None:
    """Make the level, and say what was made and what to type next."""
    parser = cli.Parser("new_level", __doc__)
    parser.add_argument("name", metavar="NAME", help="letters, digits and underscores")
    parser.add_argument("--like", metavar="LEVEL", required=True, help="path, name or number")
    parser.add_argument("--number", type=int, metavar="N", help="default: one above the highest")
    own = parser.parse_args()
    source = levels.find_level(own.like)
    folder = _place(own.name, own.number)
    start = load_config(source / "config.yaml").network.start_from
    contents = _contents(source, folder, own.name.replace("_", " "))
    with drafted_folder(folder) as draft:
        for name, text in contents.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(draft / name, text)
    made = "\n".join(f"  {folder.name}/{name}" for name in contents)
    log.info("made from %s:\n%s", source.name, made)
    log.info("next%s:", f", after a run of {start}, whose best it starts from" if start else "")
    script = f"python {folder.name}/run.py"
    log.info("  %s --offline   # train it on the bundled digits", script)
    log.info("  %s --summary   # its network; --help: its options", script)
    log.info("  python -m common.course --offline   # the whole ladder")


def _place(name: str, number: int | None) -> Path:
    """The new level's folder, which is not there yet."""
    if not NAME.fullmatch(name):
        raise UserError(f"NAME: 1 to 60 letters, digits and underscores (ASCII), not '{name}'")
    taken = {levels.number(level.name): level.name for level in levels.find_levels()}
    if number is None:
        number = max(taken) + 1
    if number < 1:
        raise UserError(f"--number: levels count from 1, so {number} is none")
    folder = paths.PROJECT / f"level{number}_{name}"
    if number in taken:
        raise UserError(f"--number: {taken[number]} has the number {number}; choose another")
    if os.path.lexists(folder):
        raise UserError(f"{folder} is there already; choose another name, or move it away")
    return folder


def _contents(source: Path, folder: Path, title: str) -> dict[str, str]:
    """The new level's files, by path within its folder."""
    number, old = levels.number(folder.name), levels.number(source.name)
    below = [n for level in levels.find_levels() if (n := levels.number(level.name)) < number]
    contents = {
        file.relative_to(source).as_posix(): renamed(text, source.name, folder.name)
        for file, text in own_modules(source).items()
    }
    words = f"Level {number}: {title}. It is level {old}'s; say here what is new."
    contents["run.py"] = _with_docstring(contents["run.py"], words)
    config, lesson = source / "config.yaml", source / "README.md"
    header = f"# Level {number}: {title}. The recipe is level {old}'s.\n"
    header += f"#   python {folder.name}/run.py\n"
    header += f"# Test accuracy: {UNMEASURED}\n# Time: {UNMEASURED}\n\n"
    contents["config.yaml"] = header + without_claims(config.read_text(encoding="utf-8"))
    text = lesson.read_text(encoding="utf-8", errors="replace") if lesson.is_file() else ""
    head = f"# Level {number}: {title}\n\n    python {folder.name}/run.py\n"
    head += f"    python {folder.name}/run.py --offline\n"
    contents["README.md"] = head + skeleton(text, max(below, default=None))
    return contents


def own_modules(level: Path) -> dict[Path, str]:
    """The Python files of a level's folder that its run.py needs, run.py first, and their texts.

    Raises:
        UserError: one that is no Python.
    """
    found, waiting = {}, [level / "run.py"]
    while waiting:
        file = waiting.pop()
        if file not in found:
            try:
                found[file] = file.read_text(encoding="utf-8")
                waiting += _imported(ast.parse(found[file]), file, level)
            except (SyntaxError, ValueError) as error:
                raise UserError(f"{file}: is no Python ({line(error)}); mend it first") from error
    return found


def _imported(tree: ast.Module, file: Path, level: Path) -> Iterator[Path]:
    """The files of the level that a module imports: by the level's name, as a script's neighbours,
    or relatively; a package's __init__.py goes with what is in it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names, place = [alias.name for alias in node.names], level
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}".strip(".") for alias in node.names]
            place = file.parents[node.level - 1] if node.level else level
        else:
            continue
        for name in names:
            parts = name.removeprefix(f"{level.name}.").split(".")
            for count in range(len(parts) + 1):
                path = place.joinpath(*parts[:count])
                for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
                    if candidate.is_relative_to(level) and candidate.is_file():
                        yield candidate


def renamed(source: str, old: str, new: str) -> str:
    """Python source in which a module has another name; comments and texts stay as they are."""
    lines = source.split("\n")
    for token in reversed(list(tokenize.generate_tokens(io.StringIO(source).readline))):
        if token.type == tokenize.NAME and token.string == old:
            row, (start, end) = token.start[0] - 1, (token.start[1], token.end[1])
            lines[row] = lines[row][:start] + new + lines[row][end:]
    return "\n".join(lines)


def _with_docstring(source: str, words: str) -> str:
    """A module with another docstring."""
    tree = ast.parse(source)
    if ast.get_docstring(tree) is None:
        return f'"""{words}"""\n\n{source}'
    old = ast.get_source_segment(source, tree.body[0])
    return source.replace(old, f'"""{words}"""', 1)


def without_claims(config: str) -> str:
    """A config's YAML without the comment at its head, and held to no accuracy."""
    mapping = yaml.compose(config, Loader=yaml.SafeLoader)
    for key, value in mapping.value:
        if key.value == "benchmarks":
            start, end = key.end_mark.index, value.end_mark.index
            newline = "\n" if config[start:end].endswith("\n") else ""  # a block's end is a line's
            config = f"{config[:start]}: []{newline}{config[end:]}"
    return re.sub(r"\A([ \t]*(#.*)?\n)+", "", config)


def skeleton(lesson: str, below: int | None) -> str:
    """A lesson's headings, each with what is to be written under it.

    Args:
        below: the number of the level below the new one.
    """
    heading = r"(?<=\n\n)(?:#{2,6} .+|\*\*[^*\n]+\*\*(?: \(`[^`\n]+`\)\.)?)"
    level, text = f"level {below}" if below else "the level below", ""
    for words in re.findall(heading, lesson) or HEADINGS:
        topic = next((PROMPTS[word] for word in PROMPTS if word in words.lower()), "")
        gap = "\n\n" if words.startswith("#") else " "
        prompt = f"(To be written: {topic}.)" if topic else "(To be written.)"
        text += "\n" + re.sub(r"level \d+", level, words) + gap + prompt + "\n"
    return text


if __name__ == "__main__":
    cli.command(main)
