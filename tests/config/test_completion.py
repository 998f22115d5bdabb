"""Tab completion, as a shell does it with what --print_shtab has printed."""

import importlib.util
import shlex
import shutil
import subprocess
import sys

import pytest

from common.config import load_config
from common.utils.errors import UserError
from helpers.projects import PROJECT, fresh_python
from helpers.shipped import options_of

LEVEL = PROJECT / "level2_augmentation"
SCRIPT = f"{LEVEL.name}/run.py"
needs_shtab = pytest.mark.skipif(
    importlib.util.find_spec("shtab") is None, reason="shtab is not installed"
)
IN_PYTHON = """
import runpy, sys
sys.argv = ["{script}", "--print_shtab", "bash"]
try:
    runpy.run_path("{script}", run_name="__main__")
except SystemExit as stopped:
    print(stopped.code, "torch" in sys.modules)
"""


def printed(shell, capsys, *arguments):
    """What `run.py --print_shtab SHELL` prints."""
    with pytest.raises(SystemExit) as stopped:
        load_config(LEVEL / "config.yaml", ["--print_shtab", shell, *arguments])
    assert not stopped.value.code
    return capsys.readouterr().out


@pytest.fixture
def complete(capsys, tmp_path):
    """A function: a line up to the cursor -> the words that bash offers there."""
    (tmp_path / "script").write_text(printed("bash", capsys), encoding="utf-8")

    def complete(line, before=""):
        words = line.split(" ")
        code = f"""{before}
            source {tmp_path}/script
            COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
            _rungs {words[0]}
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(
            ["bash", "--norc", "-c", code], cwd=PROJECT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.split()

    return complete


@needs_shtab
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (f"python {SCRIPT} --train.opt", ["--train.optimizer"]),
        (f"python3 ./{SCRIPT} --offline --train.optimizer ", ["adam", "adamw", "sgd"]),
        (f"python -u {PROJECT}/{SCRIPT} --test.tta flip_", ["flip_shifts"]),
        (f"torchrun --nproc-per-node 2 {SCRIPT} --au", ["--audit", "--augment"]),
        ("python level5_mine/run.py --data.mirror ", ["true", "false", "null"]),
        (f"python {SCRIPT} --resume --an", ["--anew"]),
        (f"python {SCRIPT} --augment flip crop --see", ["--seed", "--seeds"]),
        (f"python {SCRIPT} --config level1_baseline/conf", ["level1_baseline/config.yaml"]),
        (f"python {SCRIPT} --runs commo", ["common"]),
        (f"python {SCRIPT} --network.taps ", []),
        ("python other/run.py --train.opt", []),
        ("python level2", []),
    ],
)
def test_bash_completes_a_levels_options_wherever_its_script_stands(line, offered, complete):
    assert sorted(complete(line)) == sorted(offered)


@needs_shtab
def test_bash_completes_python_as_before_where_no_level_is_run(complete):
    before = "_other() { COMPREPLY=(other); }\ncomplete -F _other python"
    assert complete("python -m com", before) == ["other"]
    assert complete(f"python {SCRIPT} --offl", before) == ["--offline"]


@needs_shtab
def test_all_options_are_offered_and_none_that_is_refused(complete):
    own = {"--help", "--offline", "--config", "--print_config"}
    assert set(complete(f"python {SCRIPT} --")) == {*options_of(), *own} - {"--benchmarks"}


@needs_shtab
def test_zsh_is_told_what_each_option_means(capsys):
    text = printed("zsh", capsys)
    assert '  "--test.tta[test-time augmentation\\: none, flip' in text
    assert ":train.optimizer:(adam adamw sgd)" in text and ":config:_files" in text
    assert "compdef _rungs python python3 torchrun" in text
    assert "0x" not in text and "Rule(" not in text


@needs_shtab
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_the_script(capsys):
    code = f"compdef() {{ print -r -- $@ }}\ntypeset -A _comps\n{printed('zsh', capsys)}"
    done = subprocess.run(
        ["zsh", "-f", "-c", 'eval "$0"', code], capture_output=True, text=True, cwd=PROJECT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "_rungs python python3 torchrun"


@needs_shtab
def test_it_is_the_same_for_all_levels_and_imports_no_torch(capsys):
    text = fresh_python("-c", IN_PYTHON.format(script=SCRIPT), cwd=PROJECT)
    script, _, last = text.rstrip().rpartition("\n")
    assert last == "None False" and script.strip() == printed("bash", capsys, "--seed", "1").strip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fsh"], "--print_shtab: no completion for 'fsh'; did you mean 'zsh'?"),
        (["fish"], "--print_shtab: no completion for 'fish'"),
        ([], "--print_shtab: no completion for ''; known: bash, zsh"),
        (["bash", "--lr", "1"], "unknown option '--lr'; did you mean 'train.lr'?"),
    ],
)
def test_another_shell_is_refused(arguments, says):
    with pytest.raises(UserError) as caught:
        load_config(LEVEL / "config.yaml", ["--print_shtab", *arguments])
    assert says in str(caught.value)


def test_shtab_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(UserError) as caught:
        load_config(LEVEL / "config.yaml", ["--print_shtab", "bash"])
    assert "needs shtab: pip install -r requirements-extras.txt" in str(caught.value)
