"""Evaluation: total correct over total seen, test-time views averaged, modes restored."""

import torch
from torch.nn import functional as F

from common.config import LevelConfig, TestConfig
from common.data import Batches
from common.evaluation import Predictions, evaluate, predict, predictions
from common.evaluation.predictions import clean_train, mirrored, shifted
from common.models import FeatureBatches, Trunk
from helpers.networks import CPU, noise, quick, small_network, small_splits


def test_score_is_total_over_total():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    score = Predictions(logits, torch.tensor([0, 1, 1])).score()
    assert (score["correct"], score["total"], score["accuracy"]) == (2, 3, 2 / 3)
    expected = -sum(F.log_softmax(logits, 1)[i, c] for i, c in enumerate((0, 1, 1))) / 3
    assert abs(score["loss"] - expected) < 1e-6


def test_a_short_last_batch_counts_by_its_pictures():
    """The mean of batch means would give the four pictures of a last batch twice their weight."""
    network, data = small_network().eval(), small_splits(count=40)
    stream = FeatureBatches(Batches(data.test, network.weights, 8, CPU), Trunk(network, CPU))
    predictions = predict(network, stream)
    images = Batches(data.test, network.weights, 20, CPU).batch(torch.arange(20))[0]
    with torch.no_grad():
        right = network(images).argmax(1) == data.test.labels
    halves = [r.float().mean() for r in right.split(8)]
    assert predictions.score()["accuracy"] == right.sum().item() / 20
    assert abs(sum(halves) / 3 - right.float().mean()) > 1e-3, "the case does not tell them apart"


def test_predict_restores_train_mode_and_keeps_buffers():
    network, data = small_network(["c", "head"]), small_splits()
    stream = FeatureBatches(Batches(data.val, network.weights, 8, CPU), Trunk(network, CPU))
    state = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    predict(network, stream)
    assert network.training and network.stages["c"].training and not network.stages["a"].training
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def run(tta, mirror=True):
    network, data = small_network().eval(), small_splits()
    object.__setattr__(data, "mirror", mirror)
    config = LevelConfig(train=quick(), test=TestConfig(tta=tta))
    return network, data, evaluate(network, data, config, Trunk(network, CPU))


def logits_of(network, data, transform=None):
    batch = Batches(data.test, network.weights, len(data.test), CPU, transform)
    with torch.no_grad():
        return network(batch.batch(torch.arange(len(data.test)))[0])


def test_flip_tta_is_the_mean_of_two_passes_logits():
    network, data, results = run("flip")
    plain = logits_of(network, data)
    mirror = logits_of(network, data, lambda images, _: images.flip(3))
    torch.testing.assert_close(results.test.logits, (plain + mirror) / 2, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results.test_single.logits, plain, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, mirror, atol=1e-3)
    assert results.tta == "flip"


def test_without_mirror_images_flip_becomes_shifts():
    network, data, results = run("flip", mirror=False)
    assert results.tta == "shifts"
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    passes = [logits_of(network, data, lambda i, _, m=m: shifted(i, *m)) for m in moves]
    mean = torch.stack(passes).mean(0)
    torch.testing.assert_close(results.test.logits, mean, atol=1e-5, rtol=1e-4)


def test_flips_and_shifts_are_ten_passes():
    network, data, results = run("flip_shifts")
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    passes = [logits_of(network, data, lambda i, _, m=m: shifted(i, *m)) for m in moves]
    passes += [logits_of(network, data, lambda i, _, m=m: shifted(mirrored(i), *m)) for m in moves]
    torch.testing.assert_close(
        results.test.logits, torch.stack(passes).mean(0), atol=1e-5, rtol=1e-4
    )
    assert run("flip_shifts", mirror=False)[2].tta == "shifts"


def test_no_tta_is_a_single_pass():
    _, _, results = run("none")
    assert torch.equal(results.test.logits, results.test_single.logits)


def test_views_move_pixels_where_they_say():
    images = noise(2, 6)
    assert torch.equal(mirrored(images)[..., 0], images[..., -1])
    down = shifted(images, 1, 0)
    assert torch.equal(down[:, :, 1:], images[:, :, :-1])
    assert torch.equal(down[:, :, 0], images[:, :, 1])  # reflected in
    right = shifted(images, 0, 1)
    assert torch.equal(right[..., 1:], images[..., :-1])


def test_clean_train_is_fixed_and_a_subset(monkeypatch):
    train = small_splits().train
    assert clean_train(train) is train
    monkeypatch.setattr(predictions, "CLEAN_TRAIN", 10)
    first, second = clean_train(train), clean_train(train)
    assert torch.equal(first.rows, second.rows) and len(first.rows.unique()) == 10
    assert torch.equal(first.labels, first.rows % 3)
