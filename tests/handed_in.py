"""What is handed in to the grader, and what the tests do to it."""

import json

import torch

MINE = "level5_mine"
TOTAL = 100  # test pictures


def write(file, content):
    """Replace a file, and leave the one it was linked to."""
    file.unlink()
    if isinstance(content, str):
        file.write_text(content, encoding="utf-8")
    else:
        torch.save(content, file)


def change_metrics(project, name, change):
    file = project / "runs/pets/reports" / name / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    change(metrics)
    write(file, json.dumps(metrics))


def best(project, name):
    return project / "runs/pets" / name / "best.pt"
