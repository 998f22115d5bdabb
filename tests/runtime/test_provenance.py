"""How to run it again: the command as it was typed, for whoever has another home folder."""

import shlex
import sys

import pytest

from common.runtime import command
from helpers.projects import PROJECT


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("/home/a/pets", "~/pets"),
        ("/home/a", "~"),
        ("--data.root=/home/a/pets", "--data.root=~/pets"),
        ("--data.root=/home/a/my pets", "'--data.root=~/my pets'"),
        ("/home/a/my pets", "'~/my pets'"),
        ("/mnt/home/a/pets", "/mnt/home/a/pets"),
        ("--data.root=/mnt/home/a/pets", "--data.root=/mnt/home/a/pets"),
        ("/home/ab/pets", "/home/ab/pets"),
        ("--data.title=of /home/a", "'--data.title=of /home/a'"),
        ("--augment=[flip, crop]", "'--augment=[flip, crop]'"),
    ],
)
def test_a_path_in_the_home_folder_is_shown_from_there(typed, shown, monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setattr(sys, "argv", [str(PROJECT / "level1_baseline/run.py"), typed])
    assert command() == f"python level1_baseline/run.py {shown}"
    again = [word.replace("~", "/home/a", 1) for word in shlex.split(shown)]
    assert again == [typed], "what it stands for"


@pytest.mark.parametrize(
    ("script", "start"),
    [
        ("common/course.py", "-m common.course"),
        ("common/grade/__main__.py", "-m common.grade"),
        ("level3_fusion/run.py", "level3_fusion/run.py"),
        ("/elsewhere/level9_mine/run.py", "/elsewhere/level9_mine/run.py"),
    ],
)
def test_a_command_is_called_as_one_calls_it(script, start, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(PROJECT / script), "--seed", "1"])
    assert command() == f"python {start} --seed 1"
