"""When a level's answers are to be doubted: measured on val, kept beside the run, and acted on."""

import shutil
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from common.data import Batches, InputSpec
from common.data.loader import as_pixels
from common.evaluation import views
from common.predict import answers as of_answers
from common.predict import doubts
from common.predict.answers import Answer, Answers, verdict
from common.reports.page import own_runs
from common.reports.restore import CPU, pictures_of, splits_of
from common.reports.store import Reports
from helpers.projects import NAMES, inside
from helpers.serving import measured

pytestmark = pytest.mark.xdist_group("predict")


@pytest.fixture
def project(coursed, server):
    with inside(coursed):
        yield coursed


@pytest.fixture
def runs(coursed, server, tmp_path):
    """A copy of level 1's run, with what was measured of it."""
    shutil.copytree(coursed / "runs/digits" / NAMES[0], tmp_path / "copy" / NAMES[0])
    return tmp_path / "copy"


def file_of(folder, pixels):
    """A picture's file: uint8 (3, h, w)."""
    place = folder / "asked.png"
    Image.fromarray(pixels.transpose(1, 2, 0)).save(place)
    return place


def test_the_thresholds_come_from_val_as_the_levels_answer_for_it(project, server, tmp_path):
    for trained in server.answers.trained:
        content, found = trained.content, trained.doubts
        side = trained.network.weights.image_size
        data, _ = splits_of(content["settings"], side, content["fingerprint"])
        assert found.pictures == len(data.val) == 24
        with torch.no_grad():
            logits = [
                torch.cat(
                    [
                        trained.network(x)
                        for x, _ in Batches(data.val, trained.network.weights, 24, CPU, v).epoch()
                    ]
                )
                for v in views(content["tta"])
            ]
        shares = torch.stack(logits).mean(0).softmax(1).max(1)
        right = (shares.indices == data.val.labels).numpy()
        kept = shares.values.numpy() >= (found.sure.threshold or 2) - 1e-6
        assert found.sure.share == kept.mean()
        if kept.any():
            assert (
                found.sure.accuracy == pytest.approx(right[kept].mean())
                and right[kept].mean() >= 0.95
            )
        # one of 24 is above the threshold that 5 % of 25 leave: none but the farthest is as far
        assert found.alarms == 0 and found.far > 0


def test_pictures_far_from_the_training_set_are_told_from_those_of_val(project, server, tmp_path):
    trained = server.answers.trained[0]
    data, _ = splits_of(trained.content["settings"], 32, trained.content["fingerprint"])
    val = [server.answers(file_of(tmp_path, data.val.images[i].numpy()))[1] for i in range(24)]
    assert not any(answer.far for found in val for answer in found)
    noise = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), np.uint8)
    far = [server.answers(file_of(tmp_path, pixels))[1] for pixels in noise]
    assert all(answer.far for found in far for answer in found), "coloured noise is no digit"


def test_what_was_measured_is_kept_and_taken_again(project, runs, monkeypatch):
    monkeypatch.setattr(of_answers, "splits_of", lambda *_: pytest.fail("measured again"))
    again = Answers(runs)
    again.measure()
    (trained,) = again.trained
    place = runs / NAMES[0] / doubts.FILE
    with np.load(place, allow_pickle=False) as saved:
        assert saved["confidence"].shape == saved["distance"].shape == (24,)
        expected = np.sort(saved["distance"])[-1]
    assert trained.doubts.far == expected and place.stat().st_size < 3_000_000


@pytest.mark.parametrize("spoiled", ["cut", "other", "shape", "nan", "gone"])
def test_what_was_kept_of_another_checkpoint_or_is_damaged_is_measured_anew(project, runs, spoiled):
    place = runs / NAMES[0] / doubts.FILE
    with np.load(place, allow_pickle=False) as saved:
        arrays = dict(saved)
    before = doubts.kept(runs / NAMES[0] / "best.pt")
    if spoiled == "other":
        arrays["checkpoint"] = np.array("0" * 64)
    elif spoiled == "shape":
        arrays["distance"] = arrays["distance"][:5]
    elif spoiled == "nan":
        arrays["precision"] = arrays["precision"] * np.nan
    np.savez_compressed(place, **arrays)
    if spoiled == "cut":
        place.write_bytes(place.read_bytes()[:200])
    elif spoiled == "gone":
        place.unlink()
    assert doubts.kept(runs / NAMES[0] / "best.pt") is None
    answers = Answers(runs)
    assert answers.trained[0].pending
    answers.measure()
    assert answers.trained[0].doubts.far == pytest.approx(before.far, rel=1e-4)
    assert doubts.kept(runs / NAMES[0] / "best.pt").sure == answers.trained[0].doubts.sure


def test_where_the_pictures_are_not_the_rule_is_left_out(project, runs, digit, monkeypatch):
    (runs / NAMES[0] / doubts.FILE).unlink()
    answers = Answers(runs)
    monkeypatch.setattr(of_answers, "splits_of", lambda *_: (None, "they are not here."))
    answers.measure()
    (trained,) = answers.trained
    assert not trained.pending and trained.doubts is None and trained.why == "they are not here."
    (answer,) = answers(digit)[1]
    assert answer.sure is None and answer.far is None and verdict([answer]) == ""
    assert not (runs / NAMES[0] / doubts.FILE).exists()


def test_pictures_split_otherwise_are_not_measured_on(project, runs):
    (runs / NAMES[0] / doubts.FILE).unlink()
    answers = Answers(runs)
    answers.trained[0].content["split"] = "0" * 64
    answers.measure()
    assert "split in another way" in answers.trained[0].why


def test_of_large_pictures_the_command_line_measures_nothing(project, runs, monkeypatch):
    (runs / NAMES[0] / doubts.FILE).unlink()
    monkeypatch.setattr(of_answers, "QUICK", 31)
    answers = Answers(runs)
    answers.measure(quick=True)
    assert "--serve" in answers.trained[0].why and answers.trained[0].doubts is None


def test_an_answer_goes_before_the_measurement(project, runs, digit, monkeypatch):
    """Somebody who asks while it is at work waits for one step of it, no more."""
    (runs / NAMES[0] / doubts.FILE).unlink()
    answers = Answers(runs)
    monkeypatch.setattr(doubts, "PIXELS", 32 * 32)
    asked = []
    look = doubts.logits_and_penultimate

    def looking(network, images):
        if not asked:
            asked.append(answers._asking)
            answers._asking += 1  # as a question does that waits for its turn
            timer = threading.Timer(0.2, lambda: setattr(answers, "_asking", 0))
            timer.start()
            asked.append(timer)
        elif len(asked) == 2:
            asked.append(answers._asking)
        return look(network, images)

    monkeypatch.setattr(doubts, "logits_and_penultimate", looking)
    answers.measure()
    assert asked[0] == 0 and asked[2] == 0, "the second step has waited for the question"
    assert answers.trained[0].doubts is not None


def test_a_measurement_that_nobody_needs_stops(project, runs):
    (runs / NAMES[0] / doubts.FILE).unlink()
    answers = Answers(runs)
    answers.leave()
    answers.measure()
    assert answers.trained[0].pending and not (runs / NAMES[0] / doubts.FILE).exists()


def said(level, sure, far):
    return Answer(level, [("a", 1.0)], None, np.zeros((3, 2, 2), np.uint8), sure, far)


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        ([(True, False), (False, False)], ""),
        ([(None, None), (None, None)], ""),
        ([(False, False), (False, False)], "No level is sure."),
        ([(False, None), (None, None)], "No level is sure."),
        (
            [(True, True), (True, False), (True, None)],
            "Not one of these classes, perhaps: so say 1 of 2 levels.",
        ),
        (
            [(False, True), (False, True)],
            "Not one of these classes, perhaps: so say 2 of 2 levels. No level is sure.",
        ),
    ],
)
def test_the_verdict_of_all_levels(answers, text):
    assert verdict([said(f"level{i}", *pair) for i, pair in enumerate(answers)]) == text


def test_a_level_is_sure_from_its_threshold_on(project, runs, digit):
    answers = Answers(runs)
    (trained,) = answers.trained
    share = answers(digit)[1][0].shares[0][1]
    for threshold, expected in ((share - 1e-4, True), (share + 1e-4, False), (None, False)):
        sure = trained.doubts.sure._replace(threshold=threshold)
        trained.doubts = doubts.Doubts(**{**vars(trained.doubts), "sure": sure})
        assert answers(digit)[1][0].sure is expected


def test_what_the_network_sees_is_shown_as_pixels(project, server, tmp_path):
    spec = InputSpec(image_size=2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.1))
    shown = as_pixels(torch.tensor([-1.0, 0, 1, 3]).view(1, 1, 2, 2).repeat(1, 3, 1, 1), spec)
    assert shown.dtype == torch.uint8
    assert shown[0].flatten(1).tolist() == [[0, 128, 255, 255], [0, 64, 128, 255], [0, 0, 26, 76]]
    run = own_runs(Reports.read(project.reports))[0]
    pixels = pictures_of(run)[0].images[0].numpy()
    _, found = server.answers(file_of(tmp_path, pixels))
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(pixels)[None].float(), (32, 32), mode="bilinear"
        )[0]
    for answer in found:
        assert answer.input.shape == (3, 32, 32)
        assert np.abs(answer.input - expected.numpy()).max() <= 1


def test_all_classes_are_answered_for(project, server, digit):
    for answer in measured(server.choices, "digits")(digit)[1]:
        shares = [share for _, share in answer.shares]
        assert sorted(name for name, _ in answer.shares) == list("0123456789")
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=1e-5)
        assert answer.top == answer.shares[:3]
