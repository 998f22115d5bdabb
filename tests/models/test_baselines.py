"""The baseline networks: each trains, is exact in the fast way, and passes the audit."""

import dataclasses
import json
import shutil

import pytest
import torch
from torchvision import models

from common import levels
from common.audit import runner
from common.audit.context import AuditContext
from common.config import LevelConfig, NetworkConfig, load_config
from common.data import load_splits
from common.models import Classifier, StagedNetwork, Trunk, build_backbone
from common.models.backbones import ARCHITECTURES
from common.models.staged import average
from common.models.weights import weights_file
from common.utils.errors import UserError
from common.utils.files import file_hash
from helpers.networks import CPU, built, quick
from helpers.projects import NAMES, PROJECT, copy_project, python

BASELINES = sorted((PROJECT / NAMES[0] / "baselines").glob("*.yaml"))
IDS = [file.stem for file in BASELINES]
LIGHT = ("mlp", "cnn_small")  # the others' audits are slow proofs
LIGHT_FIRST = [
    file if file.stem in LIGHT else pytest.param(file, marks=pytest.mark.slow) for file in BASELINES
]
PUBLISHED = {
    "resnet18": models.resnet18,
    "efficientnet_v2_s": models.efficientnet_v2_s,
    "densenet121": models.densenet121,
    "vit_b_16": models.vit_b_16,
}


def settings(file, *options):
    """A baseline on digits, small, from random weights."""
    small = ["--data.name=digits", "--data.limit=120", "--network.weights=none"]
    more = ["--network.image_size=32", "--train.batch_size=8", "--train.precision=float32"]
    return load_config(file, [*small, *more, *options])


def lively(network):
    """Batch norm that is not the identity, as after training."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def test_the_table_of_the_course_is_there():
    expected = "mlp cnn_small cnn alexnet vgg13 resnet18 efficientnet_v2_s_features"
    expected += " efficientnet_v2_s_top vit_b_16 densenet121"
    assert set(IDS) == set(expected.split())
    for file in BASELINES:
        config = load_config(file)
        scratch = config.network.weights == "none"
        assert config.network.image_size == (32 if scratch else 224)


@pytest.mark.parametrize("file", BASELINES, ids=IDS)
def test_each_trains_two_steps(file):
    config = settings(file)
    data = load_splits(config.data, 32)
    torch.manual_seed(0)
    network = levels.load_module(PROJECT / NAMES[0]).build_network(config, len(data.classes))
    trainer = built(network, data, config)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batches = trainer.train.epoch(1)
    network.train()
    for step in range(2):
        loss, logits = trainer.step(step + 1, *next(batches))
        assert loss.isfinite() and logits.shape == (8, 10)
    moved = {
        k.split(".")[0 if k.startswith("head") else 1]
        for k, v in network.state_dict().items()
        if not torch.equal(v, before[k])
    }
    assert moved == set(config.network.trainable)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stages_give_the_channels_they_say_and_the_trunk_is_exact(name):
    backbone = build_backbone(NetworkConfig(name, "none", image_size=32))
    last = list(backbone.stages)[-1]
    images = torch.randn(5, 3, 32, 32)
    lively(torch.nn.ModuleDict(backbone.stages)).eval()
    with torch.no_grad():
        x = images
        for stage, module in backbone.stages.items():
            x = module(x)
            assert average(x).shape == (5, backbone.channels[stage])
        for trainable in (["head"], [last, "head"]):
            head = Classifier([backbone.channels[last]], 10)
            network = StagedNetwork(backbone, head, trainable, [last]).eval()
            plain = network(images)
            fast = network.forward_suffix(Trunk(network, CPU)(images))
            assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("file", LIGHT_FIRST, ids=lambda file: file.stem)
def test_the_audit_passes(file):
    config = settings(file)
    data = load_splits(config.data, 32)
    build = levels.load_module(PROJECT / NAMES[0]).build_network

    def awake(config, classes):
        return lively(build(config, classes))

    context = AuditContext(config, awake, data, CPU)
    names = [check.check for check in runner.CHECKS]
    if file.stem == "efficientnet_v2_s_features":
        # its frozen stages, with random weights, make nearly the same of every picture
        names.remove("one batch can be overfitted")
    assert [f.line() for f in runner.find_bugs(context, names) if not f.passed] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_are_found_and_are_torchvisions_network(name, tmp_path, monkeypatch):
    """A file of random weights in its shapes, under the name that the download has."""
    torch.manual_seed(0)
    size = {"image_size": 224} if name == "vit_b_16" else {}
    reference = lively(PUBLISHED[name](**size)).eval()
    if name == "vit_b_16":
        torch.nn.init.normal_(reference.heads.head.weight)  # zero otherwise
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = NetworkConfig(name, "imagenet", image_size=64 if name != "vit_b_16" else 224)
    place = weights_file(config)
    place.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), place)
    backbone = build_backbone(config)
    images = torch.randn(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        x = images
        for stage in torch.nn.ModuleDict(backbone.stages).eval().values():
            x = stage(x)
        classify = list(reference.children())[-1]
        logits = classify(average(x))
        expected = reference(images)
    assert expected.std() > 0
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_transformers_positions_are_interpolated_to_other_sizes(tmp_path):
    torch.manual_seed(0)
    torch.save(models.vit_b_16(image_size=224).state_dict(), tmp_path / "vit.pth")
    backbone = build_backbone(NetworkConfig("vit_b_16", str(tmp_path / "vit.pth"), image_size=64))
    assert backbone.stages["patches"].pos_embedding.shape == (1, 17, 768)


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"arch": "resnet"}, "network.arch: unknown 'resnet'; did you mean 'resnet18'"),
        ({"arch": {"cnn": {"dept": 5}}}, "cnn has no option 'dept'; did you mean 'depth'"),
        ({"arch": {"mlp": {"image_size": 5}}}, "mlp has no option 'image_size'"),
        ({"arch": {"cnn": {"depth": 9}}}, "cnn: depth must be one of 4, 5, 6, not '9'"),
        ({"arch": {"cnn": {"kernel": 4}}}, "cnn: kernel must be one of 1, 3, 5, 7, not '4'"),
        ({"arch": {"vgg13": {"dropout": "much"}}}, "vgg13: dropout must be in [0, 1), not 'much'"),
        ({"arch": {"efficientnet_v2_s": {"dropout": 0.5}}}, "no option 'dropout'; it has none"),
        ({"arch": "vit_b_16", "image_size": 40}, "a multiple of 16, not 40"),
        ({"arch": "mlp", "weights": "imagenet"}, "no ImageNet weights for mlp; choose none"),
        ({"arch": "alexnet", "weights": "tiny-imagenet"}, "choose weights of the same"),
    ],
)
def test_wrong_networks(network, says):
    with pytest.raises(UserError) as caught:
        build_backbone(NetworkConfig(**{"weights": "none", **network}))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_depth_kernel_and_dropout_are_options():
    def convolutions(**options):
        stages = build_backbone(NetworkConfig({"cnn": options}, "none")).stages
        modules = list(torch.nn.ModuleDict(stages).modules())
        found = [m for m in modules if isinstance(m, torch.nn.Conv2d)]
        dropout = [m.p for m in modules if isinstance(m, torch.nn.Dropout)]
        return len(found), found[0].kernel_size[0], dropout

    assert convolutions() == (6, 3, [0.5])
    assert convolutions(depth=4, kernel=5, dropout=0.1) == (4, 5, [0.1])
    assert convolutions(depth=5) == (5, 3, [0.5])


def test_settings_survive_json():
    """An architecture with options is plain data in a report and a checkpoint."""
    config = dataclasses.replace(LevelConfig(train=quick()))
    config.network.arch = {"cnn": {"depth": 5}}
    assert json.loads(json.dumps(config.settings()))["network"]["arch"] == {"cnn": {"depth": 5}}


def test_a_level_of_another_network_is_run_and_graded(tmp_path):
    """The grader rebuilds the network from the report's settings, options and all."""
    project = copy_project(tmp_path / "project")
    shutil.copy(project / NAMES[0] / "baselines/cnn.yaml", project / NAMES[0] / "config.yaml")
    for name in NAMES[1:]:
        shutil.rmtree(project / name)
    options = ["--data.name=digits", "--data.limit=60", "--train.epochs=2", "--audit=false"]
    options += ["--network.arch", "{cnn: {depth: 4, width: 8}}"]
    options += ["--network.trainable", "[block1, block2, dense, head]"]
    python(f"{NAMES[0]}/run.py", *options, cwd=project)
    (grade,) = json.loads(python("-m", "common.grade", "--format=json", cwd=project))["levels"]
    assert grade["level"] == NAMES[0] and grade["passed"]


@pytest.mark.parametrize(
    "file",
    [
        f if f.stem == "densenet121" else pytest.param(f, marks=pytest.mark.slow)
        for f in BASELINES
        if load_config(f).network.weights != "none"
    ],
    ids=lambda f: f.stem,
)
def test_what_needs_downloaded_weights_runs_end_to_end_with_random_ones(file, tmp_path):
    config = load_config(file)
    name = config.network.arch
    torch.manual_seed(0)
    place = tmp_path / "hub/checkpoints" / weights_file(config.network).name
    place.parent.mkdir(parents=True)
    torch.save(PUBLISHED[name]().state_dict(), place)
    project = copy_project(tmp_path / "project")
    options = ["--config", f"{NAMES[0]}/baselines/{file.name}", "--data.name=digits"]
    options += ["--data.limit=60", "--network.image_size=32", "--train.epochs=1"]
    options += ["--train.batch_size=8", "--audit=false", f"--name={file.stem}"]
    python(f"{NAMES[0]}/run.py", *options, cwd=project, TORCH_HOME=str(tmp_path))
    report = project / "runs/digits-limit-60-32px-imagenet/reports" / f"{NAMES[0]}-{file.stem}"
    m = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert m["weights"] == {"name": "imagenet", "sha256": file_hash(place)}
    assert m["trainable"] == config.network.trainable and m["test"]["total"] == 60
    assert m["frozen"]["before"] == m["frozen"]["after"]
