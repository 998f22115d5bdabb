"""Tab completion of a level's options, for bash and zsh: shtab writes most of it.

A level is run as `python level3_fusion/run.py`, and a shell completes by the command's name, which
is python. So a function for python looks for a level's run.py on the line and completes what
follows it; where there is none it does what the shell did before. All levels have the same options:
one script serves them all.
"""

import argparse
import re
import types
import typing
from typing import Any, Literal

from common.utils.errors import UserError, nearest

FOLDERS = {"--data.root", "--runs", "--reports"}
FILES = {"--config", "--network.weights"}

HOW = """\
# Tab completion of the options of all levels, by shtab. Where it is wanted, or in ~/.{shell}rc:
#   eval "$(python level1_baseline/run.py --print_shtab {shell})"
"""
BASH = """
_rungs() {
  local i
  for (( i = 1; i < COMP_CWORD; i++ )); do
    if [[ ${COMP_WORDS[i]} =~ (^|/)level[0-9]+_[A-Za-z0-9_]+/run\\.py$ ]]; then
      COMP_WORDS=("${COMP_WORDS[@]:i}")
      COMP_CWORD=$(( COMP_CWORD - i ))
      _shtab_rungs
      return
    fi
  done
  COMPREPLY=()
  if [[ $1 == *python* && -n $_rungs_before ]]; then
    "$_rungs_before" "$@"
  fi
}
# what completes python without this, which bash-completion loads when it is first asked for
{ _comp_load python || _completion_loader python; } &> /dev/null
if [[ $(complete -p python 2> /dev/null) =~ -F[[:space:]]([^[:space:]]+) ]]; then
  [[ ${BASH_REMATCH[1]} == _rungs ]] || _rungs_before=${BASH_REMATCH[1]}
fi
complete -o bashdefault -o default -F _rungs python python3 torchrun
"""

ZSH = """
_rungs() {
  local i
  for (( i = 2; i < CURRENT; i++ )); do
    if [[ $words[i] =~ "(^|/)level[0-9]+_[A-Za-z0-9_]+/run\\.py$" ]]; then
      words=("${(@)words[i,-1]}")
      (( CURRENT -= i - 1 ))
      _shtab_rungs
      return
    fi
  done
  if [[ $service == python* ]]; then $_rungs_before "$@"; else _default "$@"; fi
}
if [[ ${_comps[python]:-_default} != _rungs ]]; then _rungs_before=${_comps[python]:-_default}; fi
compdef _rungs python python3 torchrun
"""

SHELLS = {"bash": BASH, "zsh": ZSH}


def completion_script(
    shell: str | None, options: dict[str, tuple[Any, str]], counts: dict[str, str]
) -> str:
    """What a shell evaluates to complete the options of all levels.

    Args:
        shell: bash or zsh.
        options: by name: the type, None where no value is taken, and what it means.
        counts: argparse's nargs of those that do not take one value.
    Raises:
        UserError: another shell, or shtab is not installed.
    """
    if shell not in SHELLS:
        known = nearest(shell or "", SHELLS)
        raise UserError(f"command line: --print_shtab: no completion for '{shell or ''}'{known}")
    try:
        import shtab
    except ImportError as error:
        hint = "pip install -r requirements-extras.txt"
        raise UserError(f"command line: --print_shtab needs shtab: {hint}") from error
    # argparse's own: jsonargparse's script offers what is refused, too, and types by their repr
    parser = argparse.ArgumentParser(prog="rungs")
    for name, (kind, words) in options.items():
        words = words.replace("%", "%%")
        if kind is None:
            parser.add_argument(name, action="store_true", help=words)
            continue
        values = choices(kind) or None
        action = parser.add_argument(name, nargs=counts.get(name), choices=values, help=words)
        if name in FOLDERS | FILES:
            action.complete = shtab.DIRECTORY if name in FOLDERS else shtab.FILE
    script = re.sub(r"\A(#.*\n)+", "", shtab.complete(parser, shell))  # less its own how-to
    return HOW.format(shell=shell) + script + SHELLS[shell]


def choices(kind: Any) -> list[str]:
    """The values of a type that has only some, and null beside them where that is one."""
    if kind is bool:
        return ["true", "false"]
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        parts = typing.get_args(kind)
        values = [value for part in parts for value in choices(part)]
        return values + ["null"] * (type(None) in parts and bool(values))
    return []
