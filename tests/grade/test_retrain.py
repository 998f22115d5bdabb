"""A run repeated by the grader: from what settings, in what copy."""

import pytest

from common.config import LevelConfig
from common.grade import retrain
from common.grade.submission import Grade, Grader
from common.reports.restore import read_settings
from common.utils.errors import UserError

LEVEL = "level7_mine"
# stands for a level that trains: it looks at what is beside it, and at its settings
SCRIPT = """
import sys
from pathlib import Path
import yaml
here = Path(__file__).parent
for beside in ("weights/own.txt", "data/own.txt", "../helper.py", "../common/levels.py", "../data"):
    assert (here / beside).exists(), beside
assert not (here.parent / ".git").exists() and not (here.parent / "runs").exists()
config = yaml.safe_load((here / "config.yaml").read_text())
if config["log"] == "tensorboard":
    sys.exit("error: log: tensorboard is not installed")
assert not any(config[key] for key in ("resume", "anew", "audit", "summary", "seeds", "reports"))
best = here.parent / "runs/pets" / f"{here.name}-seed{config['seed']}" / "best.pt"
best.parent.mkdir(parents=True)
best.touch()
"""


@pytest.fixture
def grade(tmp_path):
    """Of a project whose level has folders and files of its own, and was run with every option."""
    project = tmp_path / "handed_in"
    own = ("weights/own.txt", "data/own.txt", "config.yaml", "run.py")
    for file in (*(f"{LEVEL}/{name}" for name in own), "helper.py", ".git/HEAD", "runs/a/b/c"):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).touch()
    (project / "gone").symlink_to(project / "nowhere")
    (project / LEVEL / "gone").symlink_to(project / "nowhere")
    (project / LEVEL / "run.py").write_text(SCRIPT)
    asked = LevelConfig(seed=3, seeds=[1, 3], reports="elsewhere", log="tensorboard")
    asked.anew = asked.resume = asked.audit = asked.summary = True
    config = read_settings(asked.settings(), project, None, None)
    grader = Grader(copy=tmp_path / "copy")
    return Grade(project=project, level=LEVEL, config=config, grader=grader)


def test_how_a_run_was_asked_for_does_not_fail_its_repetition(grade):
    best = retrain.run_again(grade, 60)
    assert best == grade.grader.copy / f"runs/pets/{LEVEL}-seed3/best.pt"


def test_a_repetition_that_fails_says_why(grade):
    for code, words in (
        ("import sys; sys.exit('error: no')", "it ended with status 1: error: no"),
        ("import time; time.sleep(600)", "it took more than 1 s"),
        ("", "it ended without a checkpoint"),
    ):
        (grade.project / LEVEL / "run.py").write_text(code)
        grade.grader.copy = grade.grader.copy.with_name(words)
        with pytest.raises(UserError, match=words):
            retrain.run_again(grade, 1 if "sleep" in code else 60)
