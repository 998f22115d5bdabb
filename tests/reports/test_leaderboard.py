"""The leaderboard: seeds together, the best first, what others published apart."""

import pytest

from common.reports import leaderboard
from common.reports.store import Reports
from common.utils.errors import UserError
from helpers.reports import leave, titled_tables


def with_accuracy(accuracy, seconds=60.0):
    def change(metrics):
        metrics["test"]["accuracy"], metrics["seconds"] = accuracy, seconds
        return metrics

    return change


def written(place):
    folders = place, *sorted(p for p in place.iterdir() if p.is_dir())
    file = leaderboard.write(place, [Reports.read(folder) for folder in folders])
    return file.read_text(encoding="utf-8")


def test_seeds_are_one_row_and_the_best_is_first(tmp_path):
    for seed, accuracy in enumerate((0.70, 0.72, 0.77)):
        change = with_accuracy(accuracy, 60.0 * (seed + 1))
        leave(tmp_path, change=change, level="level1_baseline", seed=seed)
    leave(tmp_path, change=with_accuracy(0.9), level="level2_augmentation")
    text = written(tmp_path)
    tables = titled_tables(text)
    second, first = tables[""][1], tables[""][0]
    assert first["level"].startswith("[level2_augmentation](level2_augmentation-config-0/report.md")
    assert first["test accuracy, %"] == "90.00" and first["seeds"] == "0"
    assert second["test accuracy, %"] == "73.00 ± 3.61" and second["seeds"] == "0, 1, 2"
    assert second["time"] == "2 min 00 s", "the median"
    others = tables["Published by others, not measured here"]
    assert {row["data"] for row in others} == {"CIFAR-10", "CIFAR-100"}
    assert all(row["source"] for row in others)


def test_what_differs_in_more_than_the_seed_is_a_row_of_its_own(tmp_path):
    def other(metrics):
        metrics["settings"]["data"]["limit"] = 500
        return metrics

    def plain(metrics):
        metrics["settings"]["fast"] = False
        return metrics

    for seed, change in enumerate((plain, lambda m: m, other)):
        leave(tmp_path, change=change, level="level1_baseline", seed=seed)
    rows = titled_tables(written(tmp_path))[""]
    assert sorted(row["seeds"] for row in rows) == ["0, 1", "2"]


def test_folders_of_reports_in_the_folder_are_read_too(tmp_path):
    leave(tmp_path, change=with_accuracy(0.7), level="level1_baseline")
    leave(tmp_path / "other", change=with_accuracy(0.8), level="level1_baseline")
    rows = titled_tables(written(tmp_path))[""]
    assert [row["test accuracy, %"] for row in rows] == ["80.00", "70.00"], "not taken for seeds"
    assert "(other/level1_baseline-config-0/report.md)" in rows[0]["level"]


def test_no_reports_is_said(tmp_path):
    with pytest.raises(UserError, match="no reports here"):
        leaderboard.write(tmp_path, [Reports.read(tmp_path)])
