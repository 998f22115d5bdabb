"""The bugs that the audit must name: each a change to one line of the real code."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """In `file`, `old` becomes `new`; `check` is the audit's check that must fail."""

    name: str
    file: str
    old: str
    new: str
    check: str
    level: int = 2
    options: tuple[str, ...] = ()
    common: bool = False  # one of the nine found together in a real code base


TRAINING, EVALUATION = "common/training/loop.py", "common/evaluation/predictions.py"
PROGRESS, STAGED = "common/training/progress.py", "common/models/staged.py"
BATCHES, HEAD = "common/data/loader.py", "level3_fusion/fusion_head.py"
FUSED = "return self.classifier(average_and_maximum(x), average_and_maximum(deepest))"
STEP = "one step is the configured step"
MODES = "train and eval mode"
FROZEN = "frozen means frozen"
AUGMENTED = "augmentation on train only"
TURNS = "views differ, and come again"
CROSS_ENTROPY = (
    "loss = F.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)"
)
VAL = "Batches(data.val, *options)"
AS_IT_SAYS = "batch norm is adapted as it says"
POLICIES = "common/data/augment/policies.py"
STEPS, RUN = "common/data/augment/steps.py", "level2_augmentation/run.py"
SHARES = "each augmentation step as configured"
PICTURES = "--data.name", "folder", "--data.root", "{folder}"
BUNDLED = "--network.weights", "tiny-imagenet"
ADAPTED = "--network.adapt_batch_norm", "60"
DROPOUT = "--network.arch", "{cnn_small: {dropout: 0.5}}", "--network.weights", "none"
DROPOUT += "--network.trainable", "dense", "head"

BUGS = [
    Bug(
        "wrong normalisation constants", BATCHES,
        "= (0.485, 0.456, 0.406)", "= (0.5, 0.5, 0.5)", "pixels normalised", common=True,
    ),
    Bug(
        "wrong input size of the first linear layer", HEAD,
        "Classifier([2 * channels, 2 * channels]", "Classifier([2 * channels]", "shapes fit", 3,
        common=True,
    ),
    Bug(
        "wrong size after flattening", STAGED,
        "return x.mean((2, 3))", "return x.flatten(1)", "shapes fit",
        common=True,
    ),
    Bug(
        "ReLU on the logits", HEAD,
        FUSED, FUSED.replace("self.classifier(", "torch.relu(self.classifier(") + ")",
        "logits, not probabilities", 3, common=True,
    ),
    Bug(
        "two linear layers with nothing between", HEAD,
        "Classifier([2 * channels, 2 * channels], classes, normalised)",
        "Classifier([2 * channels, 2 * channels], 64); self.classifier.classify = nn.Sequential("
        "self.classifier.classify, nn.Linear(64, classes))",
        "no two linear layers in a row", 3, common=True,
    ),
    Bug(
        "NLLLoss on logits", TRAINING,
        CROSS_ENTROPY, "loss = F.nll_loss(logits.float(), targets)", STEP, common=True,
    ),
    Bug(
        "evaluation on the training set", TRAINING,
        VAL, "Batches(data.train, *options)", "each split where it belongs", common=True,
    ),
    Bug(
        "missing zero_grad", TRAINING,
        "self.optimizer.zero_grad(set_to_none=True)", "pass", STEP, common=True,
    ),
    Bug("missing model.train()", TRAINING, "self.network.train()", "pass", MODES, common=True),
    Bug("missing model.eval()", EVALUATION, "    network.eval()", "    pass", MODES),
    Bug(
        "missing model.eval(): batch norm goes by the batch", EVALUATION,
        "    network.eval()", "    pass", "no dependence on batch size or order",
    ),
    Bug(
        "missing model.eval(): dropout stays on", EVALUATION,
        "    network.eval()", "    pass", "two evaluations agree", 1, options=DROPOUT,
    ),
    Bug(
        "mode not restored after evaluation", EVALUATION,
        "    network.train(was_training)", "    pass", MODES,
    ),
    Bug("softmax before cross-entropy", TRAINING, "F.cross_entropy(logits.float(),",
        "F.cross_entropy(logits.float().softmax(1),", STEP),
    Bug(
        "softmax in the network", HEAD,
        FUSED, f"{FUSED}.softmax(1)",
        "logits, not probabilities", 3,
    ),
    Bug("val shares train's augmentation", TRAINING, VAL,
        "Batches(data.val, *options, transform=augmentation, seed=0)", AUGMENTED),
    Bug("augmentation never called", BATCHES, "pixels = self.transform(pixels, generator)", "pass",
        AUGMENTED),
    Bug("one draw of augmentation for the whole batch", "common/data/augment/steps.py",
        "(2, batch, 1)", "(2, 1, 1)", AUGMENTED),
    Bug("augmented pictures kept for all epochs", "common/models/trunk.py",
        "batches.transform and not batches.views", "False", AUGMENTED,
        options=("--train.views", "null")),
    Bug("one view for all epochs", BATCHES,
        "return (epoch - 1) % self.views + 1 if self.views and epoch else epoch",
        "return 1 if self.views and epoch else epoch", TURNS),
    Bug("mirror images that never come", BATCHES,
        "mirrored = self.coins[positions].to(device) ^ bool(epoch % 2)",
        "mirrored = self.coins[positions].to(device)", TURNS,
        options=("--data.name", "folder", "--data.root", "{folder}")),
    Bug("views after the first not augmented", BATCHES, "if self.transform is not None:  # drawn",
        "if self.transform is not None and epoch < 2:  # drawn", TURNS),
    Bug("views drawn anew", BATCHES,
        "return (epoch - 1) % self.views + 1 if self.views and epoch else epoch",
        "return epoch", TURNS),
    Bug("kept features beside other pictures' labels", "common/models/trunk.py",
        "labels[positions] = part, targets", "labels[positions.flip(0)] = part, targets",
        "what is kept is what was seen"),
    Bug("frozen batch norm drifts", STAGED, "                part.eval()",
        "                pass", FROZEN, options=("--fast", "false")),
    Bug("frozen stages left in train mode", STAGED, "                part.eval()",
        "                pass", MODES),
    Bug("a frozen stage gets gradients", STAGED,
        "part.requires_grad_(name in self.unfrozen)", "part.requires_grad_(True)", FROZEN,
        options=("--network.trainable", "layer3", "head")),
    Bug("batch norm that should stay is trained", TRAINING, "network.freeze_batch_norm()", "pass",
        FROZEN, options=("--train.freeze_batch_norm", "true")),
    Bug("batch norm that should stay drifts", STAGED, "norm.eval()", "pass", FROZEN,
        options=("--train.freeze_batch_norm", "true")),
    Bug("head missing from the optimiser", TRAINING,
        "enumerate(reversed(network.trainable))", "enumerate(reversed(network.trainable[:-1]))",
        FROZEN),
    Bug("head missing from the optimiser, seen by the step", TRAINING,
        "enumerate(reversed(network.trainable))", "enumerate(reversed(network.trainable[:-1]))",
        STEP),
    Bug("another optimiser than configured", TRAINING,
        "kinds[config.optimizer]", 'kinds["sgd"]', STEP),
    Bug("label smoothing forgotten", TRAINING, "label_smoothing=config.label_smoothing",
        "label_smoothing=0.0", STEP, options=("--train.label_smoothing", "0.2")),
    Bug("gradient clipping forgotten", TRAINING, "if config.clip_norm is not None:", "if False:",
        STEP, options=("--train.clip_norm", "0.01", "--train.optimizer", "sgd")),
    Bug("the optimiser never steps", TRAINING, "self.scaler.step(self.optimizer)", "pass",
        "one batch can be overfitted"),
    Bug("labels shifted by one picture", BATCHES, "self.labels[positions.to(device)]",
        "self.labels[positions.to(device)].roll(1)", "pictures and labels belong together"),
    Bug("colours in the order blue, green, red", BATCHES, "pixels = self.source[rows]",
        "pixels = self.source[rows].flip(1)", "pixels normalised",
        options=("--data.name", "folder", "--data.root", "{folder}")),
    Bug("labels of a folder sorted apart from its pictures", "common/data/image_folder.py",
        'label[name.split("/")[1]] for name in paths',
        'label[name.split("/")[1]] for name in paths[1:] + paths[:1]',
        "pictures and labels belong together",
        options=("--data.name", "folder", "--data.root", "{folder}")),
    Bug("pixels left at 0..255", BATCHES, "pixels.float() / 255", "pixels.float()",
        "pixels normalised"),
    Bug("test chooses the epoch", TRAINING, VAL, "Batches(data.test, *options)",
        "test is never read in training"),
    Bug("the last epoch kept, not the best", PROGRESS,
        'key=lambda entry: (entry["val_accuracy"], -entry["epoch"])',
        'key=lambda entry: entry["epoch"]', "the best epoch on val is kept"),
    Bug("the epoch chosen by train accuracy", PROGRESS, 'key=lambda entry: (entry["val_accuracy"]',
        'key=lambda entry: (entry["train_accuracy"]', "the best epoch on val is kept"),
    Bug("mean of batch means in training", TRAINING,
        "correct += (logits.argmax(1) == _hard(targets))[:own].sum()",
        "correct = correct + (logits.argmax(1) == targets).double().mean() * 60 / len(self.train)",
        "accuracy is total over total"),
    Bug("mean of batch means in evaluation", EVALUATION, '"accuracy": correct / total',
        '"accuracy": sum(float((p == q).double().mean()) for p, q in zip('
        "self.classes.split(16), self.labels.split(16))) / -(-total // 16)",
        "accuracy is total over total"),
    Bug("a batch's loss added without its size", TRAINING, "loss_sum += loss * own",
        "loss_sum += loss * self.config.train.batch_size", "accuracy is total over total"),
    Bug("test scored on val", EVALUATION, "_run(network, data.test,", "_run(network, data.val,",
        "test is scored on test"),
    Bug("labels leak into evaluation", EVALUATION, "forward(features).float()",
        "forward(features).float() + 9 * F.one_hot(targets, 10)",
        "a blind network learns nothing"),
    Bug("TTA flips upside down", EVALUATION, "return images.flip(3)", "return images.flip(2)",
        "test-time augmentation", 4, ("--data.mirror", "true")),
    Bug("TTA keeps the last pass alone", EVALUATION, "[p.logits for p in passes]",
        "[passes[-1].logits]", "test-time augmentation", 4),
    Bug("training data not shuffled", TRAINING, "*options, augmentation, config.draws",
        "*options, augmentation, None", "train is shuffled"),
    Bug("the same order every epoch", BATCHES, 'counter_seed(self.seed, "order", epoch)',
        'counter_seed(self.seed, "order")', "train is shuffled"),
    Bug("val pictures in train too", "common/data/splits.py", "return np.sort(train), np.sort(val)",
        "return np.sort(np.concatenate([train, val])), np.sort(val)", "splits disjoint"),
    Bug("the schedule steps once an epoch", TRAINING, "self.rate(step, ",
        "self.rate(step // len(self.train), ", "the rate moves as configured",
        options=("--train.schedule", "cosine")),
    Bug("dropout without a seed", TRAINING,
        'torch.manual_seed(counter_seed(self.config.draws, "step", step))', "pass",
        "same seed, same result", 1, options=DROPOUT),
    Bug("the head's own rate passed over", "common/config/schema.py",
        "return self.head_lr if", "return self.lr if", STEP),
    Bug("batch norm adapted by a moving average", "common/models/adapt.py",
        "norm.momentum = len(images) / seen", "norm.momentum = 0.1", AS_IT_SAYS, 1,
        options=ADAPTED),
    Bug("batch norm adapted on too few pictures", "common/models/adapt.py",
        "data.train.subset(order[:count]", "data.train.subset(order[: count // 4]",
        AS_IT_SAYS, 1, options=ADAPTED),
    Bug("batch norm adapted on test pictures", "common/models/adapt.py",
        "some = data.train.subset(", "some = data.test.subset(", AS_IT_SAYS, 1, options=ADAPTED),
    Bug("batch norm adapted at the first layer alone", "common/models/adapt.py",
        "if norm.track_running_stats]", "if norm.track_running_stats][:1]", AS_IT_SAYS, 1,
        options=ADAPTED),
    Bug("a head that starts out of scale", STAGED,
        "super().__init__()", "super().__init__(); self.register_forward_hook(lambda *a: 90 * a[2])",  # noqa: E501
        "loss at start"),
    Bug("a split that is not stratified", "common/data/splits.py", "stratify=labels, ", "",
        "val has train's classes"),
    Bug("crops that only move right and down", STEPS, "torch.randint(-pad, pad + 1,",
        "torch.randint(0, pad + 1,", SHARES),
    Bug("crops along one axis", STEPS, "y1=shifts[0])", "y1=0 * shifts[0])", SHARES),
    Bug("every picture mirrored", STEPS, "draws < (self.probability if", "draws < (1.0 if", SHARES,
        options=("--augment", "[flip]", *PICTURES)),
    Bug("mixed pictures with their own labels", STEPS,
        "own[:, None] * shares + (1 - own[:, None]) * shares[partner]", "shares + 0 * own[:, None]",
        SHARES, options=("--augment", "[mixup]")),
    Bug("brightness that only brightens", STEPS, "1 + amount * (2 * torch.rand(len(x), **options)",
        "1 + amount * (1 + torch.rand(len(x), **options)", SHARES,
        options=("--augment", "[jitter]")),
    Bug("erased boxes half as large", STEPS,
        "inside = box_mask(x * (width - wide), y * (height - tall), wide, tall, height, width)",
        "inside = box_mask(x * (width - wide), y * (height - tall), wide / 2, tall, height, width)",
        SHARES,
        options=("--augment", "[erase]")),
    Bug("erased boxes always at the top", STEPS,
        "inside = box_mask(x * (width - wide), y * (height - tall), wide, tall, height, width)",
        "inside = box_mask(x * (width - wide), 0 * y, wide, tall, height, width)",
        SHARES,
        options=("--augment", "[erase]")),
    Bug("crops that never move down", STEPS,
        'entries["y1"] = top + (tall / height - 1) / 2', 'entries["y1"] = (tall / height - 1) / 2',
        SHARES, options=("--augment", "[resized_crop]")),
    Bug("resized crops half a pixel to the left", STEPS,
        'entries["x1"] = left + (wide / width - 1) / 2',
        'entries["x1"] = left + wide / width / 2 - 1',
        SHARES, options=("--augment", "[resized_crop]")),
    Bug("one magnitude for every picture, but not the configured one", POLICIES,
        "torch.full_like(bins, self.magnitude)", "torch.full_like(bins, self.magnitude + 3)",
        SHARES, options=("--augment", "[rand_augment]")),
    Bug("operations to one side only", POLICIES,
        "2 * torch.randint(2, (len(images),), **options) - 1",
        "torch.ones_like(bins)", SHARES, options=("--augment", "[trivial_augment]")),
    Bug("one draw for brightness, contrast and saturation", STEPS,
        "            if amount := getattr(self, name):\n"
        "                factor = 1 + amount * (2 * torch.rand(len(x), **options) - 1)",
        "            drawn = torch.rand(len(x), **options) if name == 'brightness' else drawn\n"
        "            if amount := getattr(self, name):\n"
        "                factor = 1 + amount * (2 * drawn - 1)",
        SHARES, options=("--augment", "[jitter]")),
    Bug("pasted boxes that lean to the right", STEPS,
        "pasted = box_mask(x * width - wide / 2,", "pasted = box_mask(x * width - wide / 3,",
        SHARES, options=("--augment", "[cutmix]")),
    Bug("mirror images that stay after the second epoch", BATCHES,
        "^ bool(epoch % 2)", "^ bool(epoch // 2)", SHARES,
        options=("--augment", "[{flip: {alternate: true}}]", *PICTURES)),
    Bug("geometry lost where two steps follow each other", STEPS,
        "m if waiting is None else waiting @ m", "m",
        "the augmentation's steps in their order", options=("--augment", "[crop, rotate]")),
    Bug("contrast about the mean of the whole batch", "common/data/augment/color.py",
        "grey(images).mean((1, 2, 3), keepdim=True)", "grey(images).mean()",
        "pictures are changed one by one", options=("--augment", "[jitter]")),
    Bug("views kept as if they were the pictures", "common/models/trunk.py",
        "        if view == 0:\n            self.trunk.kept",
        "        if True:\n            self.trunk.kept",
        "what is reported was computed"),
    Bug("temperature fitted on test", "common/experiment.py",
        "statistics.fit_temperature(val.logits.numpy(), val.labels.numpy())",
        "statistics.fit_temperature(test.logits.numpy(), test.labels.numpy())",
        "what is reported was computed", 1),
    Bug("the optimiser's moments cleared each epoch", TRAINING,
        "        self.network.train()\n        with self._bar(epoch) as bar:",
        "        self.network.train()\n        self.optimizer.state.clear()\n"
        "        with self._bar(epoch) as bar:", "same seed, same result"),
    Bug("weights of the last stage not loaded", "common/models/weights.py",
        "network.load_state_dict(body, strict=False)",
        "body = {k: v for k, v in body.items() if 'layer4' not in k}; "
        "network.load_state_dict(body, strict=False)",
        "the weights are the file's", options=BUNDLED),
    Bug("a tap left out by the head", HEAD, FUSED,
        FUSED.replace("average_and_maximum(x)", "0 * average_and_maximum(x)"),
        "the head reads each tap", 3),
    Bug("a tap pooled by its maximum", STAGED, "return x.mean((2, 3))", "return x.amax((2, 3))",
        "the head reads each tap"),
    Bug("dropout never on", "common/models/backbones.py",
        "nn.ReLU(), nn.Dropout(dropout)\n    return", "nn.ReLU()\n    return",
        "dropout as configured", 1, options=DROPOUT),
    Bug("dropout draws the same at every step", TRAINING,
        'torch.manual_seed(counter_seed(self.config.draws, "step", step))',
        "torch.manual_seed(0)", "dropout as configured", 1, options=DROPOUT),
    Bug("an average that lags a step", TRAINING,
        "        self.scaler.step(self.optimizer)\n        self.scaler.update()\n"
        "        self.ema.update()",
        "        self.ema.update()\n        self.scaler.step(self.optimizer)\n"
        "        self.scaler.update()", "averaged weights are the average",
        options=("--train.ema", "0.9")),
    Bug("the average left in place of the weights", "common/training/ema.py",
        "self._put(kept)", "pass", "averaged weights are the average",
        options=("--train.ema", "0.9")),
    Bug("batch norm's statistics left out of the average", "common/training/ema.py",
        "if state[key].is_floating_point()]",
        "if state[key].is_floating_point() and 'running' not in key]",
        "averaged weights are the average", options=("--train.ema", "0.9")),
    Bug("the loss computed in bfloat16", TRAINING, "logits.float(), targets", "logits, targets",
        STEP),
    Bug("clipped before the scaled gradients are unscaled", TRAINING,
        "self.scaler.unscale_(self.optimizer)", "pass", STEP,
        options=("--train.clip_norm", "0.01", "--train.optimizer", "sgd")),
    Bug("batch norm by the batch, and nothing kept of it", TRAINING, "self.network.train()",
        "self.network.train(); [setattr(m, 'momentum', 0.0) for m in self.network.modules()]",
        "batch norm learns where it trains"),
    Bug("training that stops without being asked to", PROGRESS,
        "waited = best and patience and", "patience = patience or 1; waited = best and",
        "the best epoch on val is kept"),
    Bug("tested before it has trained", RUN,
        "    history = fit(network, run.data, config, trunk, run.folder)\n"
        "    results = evaluate(network, run.data, config, trunk)",
        "    results = evaluate(network, run.data, config, trunk)\n"
        "    history = fit(network, run.data, config, trunk, run.folder)",
        "main trains, then tests"),
    Bug("val figures reported as test's", "common/experiment.py",
        "**{part: getattr(results, part).score() for part in parts},",
        "**{part: results.val.score() for part in parts},", "what is reported was computed"),
    Bug("the level before is not loaded", "common/experiment.py",
        "        load(network, content, path)\n", "", "the run starts as configured", 4),
    Bug("a head that ignores the seed", "common/experiment.py",
        'torch.manual_seed(counter_seed(self.config.seed, "start"))', "torch.manual_seed(0)",
        "the run starts as configured"),
    Bug("batch norm not adapted", "common/experiment.py",
        "adapt_batch_norm(network, self.data, count, self.runtime)", "pass",
        "the run starts as configured", options=ADAPTED),
]  # fmt: skip
