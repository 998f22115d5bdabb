"""Labels that may be wrong: the pictures whose label is least likely by a classifier that was not
shown it.

    python -m common.labels --offline             # training pictures, by the lowest level's network
    python -m common.labels 3 --data.name folder --data.root ~/pets
    python -m common.labels --part test --against errors.txt

LEVEL is a path, a name, or a number; further options are those of the level's run.py. The
classifier is a linear one on what the level's head reads of the pretrained network, in which
nothing has been trained on these labels (`start_from` is passed over). A training picture, val's
among them, is judged by one that was fitted on the other four fifths of them, a test picture by
one fitted on all training pictures.

Writes into runs/<data>/labels/ a sheet of the 50 most suspicious, with the given label above and
the likely one below, and all pictures as a CSV, the most suspicious first. It only lists: people
judge.
"""

import csv
import dataclasses
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common import cli, levels
from common.config import LevelConfig, load_config
from common.utils.errors import UserError, line
from common.utils.files import check_writable, read_bytes, write_together
from common.utils.paths import expanded, runs_folder

if TYPE_CHECKING:
    from common.data import ImageSet, Splits

log = logging.getLogger("rungs")

SHEET, PRINTED = 50, 10  # pictures
COLUMNS = ["rank", "part", "index", "file", "given", "likely"]
COLUMNS += ["probability_given", "probability_likely"]
DIGITS = 9  # of an index, at most


class Suspect(NamedTuple):
    """A picture and its label.

    Attributes:
        position: in the image set that was looked at.
        index: its place in the data set's own train or test part, from 0.
        file: below the data's folder; "" where the data set has no names.
        given, likely: labels.
        p_given, p_likely: their probabilities.
    """

    position: int
    index: int
    file: str
    given: str
    likely: str
    p_given: float
    p_likely: float


def main() -> None:
    """List a level's suspicious labels; what is known of some is compared."""
    parser = cli.Parser("labels", __doc__, "[LEVEL] [--part PART] [--against FILE] [its options]")
    parser.add_argument(
        "--part",
        choices=("train", "test"),
        default="train",
        help="train (default), or test: for checking a published test set. What it finds there must"
        " not be used to choose anything: no epoch, setting, picture or label",
    )
    parser.add_argument(
        "--against",
        metavar="FILE",
        help="known errors of that part, whose share of the 50 most suspicious is printed: a text"
        " with an index a line, from 0 in the data set's own order, or a CSV with a column `index`",
    )
    named, own, options = parser.parse_before_levels()
    if len(named) > 1:
        raise UserError("command line: name one level, or none for the lowest")
    level = levels.find_level(*named) if named else levels.find_levels()[0]
    config = load_config(level / "config.yaml", options, prog=parser.prog)
    build_network = levels.load_function(level, "build_network")

    from common.data import load_splits
    from common.models import check_network, input_size

    check_network(config.network)
    size = input_size(config.network)
    data = load_splits(config.data, size)
    whole = images = official(data, own.part)
    if config.data.limit or config.data.drop_copies:
        undivided = dataclasses.replace(config.data, limit=None, drop_copies=False)
        whole = official(load_splits(undivided, size), own.part)
    errors = read_indices(own.against, len(whole)) if own.against else None
    folder = runs_folder(data.title, config.given) / "labels"
    check_writable(folder, "make it writable, or choose another place with --runs")

    probabilities = probabilities_of(own.part, data, config, build_network)
    indices = np.searchsorted(whole.rows.numpy(), images.rows.numpy())
    suspects = ranked(images, indices, probabilities)
    right = 100 * (probabilities.argmax(1) == images.labels.numpy()).mean()
    words = "%s, %s: %d pictures; the given label is the likeliest of %.1f %%"
    log.info(words, data.title, own.part, len(images), right)
    log.info("%s", listed(suspects[:PRINTED]))
    if errors is not None:
        log.info("%s: %s", own.against, compared([s.index for s in suspects], errors))
    log.info("sheet: %s\nall pictures: %s", *write(folder, own.part, images, suspects))
    if own.part == "test":
        log.info("of test: for checking a published test set; choose nothing by what is found")


def official(data: "Splits", part: str) -> "ImageSet":
    """A data set's own training pictures, val's among them, or its test pictures, in its order."""
    import torch

    if part == "test":
        return data.test
    train, val = data.train, data.val
    both = dataclasses.replace(
        train,
        rows=torch.cat([train.rows, val.rows]),
        labels=torch.cat([train.labels, val.labels]),
        names=train.names and [*train.names, *val.names],
    )
    return both.subset(both.rows.argsort())


def probabilities_of(
    part: str, data: "Splits", config: LevelConfig, build_network: Callable
) -> np.ndarray:
    """Class probabilities of a part's pictures, float64 (N, C): of train out of fold, of test by
    what was fitted on train.
    """
    import torch

    from common.data import Batches
    from common.evaluation.labels import fitted_on, out_of_fold, pooled_features
    from common.models import FeatureBatches, Trunk
    from common.models.adapt import adapt_batch_norm, pictures_to_adapt
    from common.models.staged import average
    from common.runtime import counter_seed, start_runtime

    runtime = start_runtime(config.train, config.fast)
    config.network.trainable = ["head"]  # so that all stages are frozen ones
    torch.manual_seed(counter_seed(config.seed, "start"))
    network = build_network(config, len(data.classes))
    network.to(runtime.device, memory_format=torch.channels_last)
    network.pool = average  # maps of all pictures would not fit into memory
    if count := pictures_to_adapt(config.network, data):
        adapt_batch_norm(network, data, count, runtime)
    trunk = Trunk(network, runtime)

    def features(images: "ImageSet") -> np.ndarray:
        batches = Batches(images, network.weights, config.train.batch_size, runtime)
        return pooled_features(FeatureBatches(batches, trunk, epochs=1))

    train, classes = official(data, "train"), len(data.classes)
    taught = features(train), train.labels.numpy()
    if part == "test":
        return fitted_on(*taught, features(data.test), classes)
    return out_of_fold(*taught, classes)


def ranked(images: "ImageSet", indices: np.ndarray, probabilities: np.ndarray) -> list[Suspect]:
    """All pictures, the most suspicious first.

    Args:
        indices: int64 (N,), each picture's in the data set's own part.
        probabilities: float64 (N, C).
    """
    from common.evaluation.labels import label_scores, ranking

    scores, likely = label_scores(probabilities, images.labels.numpy()), probabilities.argmax(1)
    return [
        Suspect(
            at,
            int(indices[at]),
            images.names[at] if images.names else "",
            images.classes[images.labels[at]],
            images.classes[likely[at]],
            float(scores[at]),
            float(probabilities[at, likely[at]]),
        )
        for at in ranking(scores).tolist()
    ]


def listed(suspects: list[Suspect]) -> str:
    """The first of them as a table in plain text."""
    from common.reports.text import aligned, table_of

    rows = [
        {
            "rank": str(rank),
            "index": str(suspect.index),
            "file": suspect.file,
            "given": suspect.given,
            "probability": f"{100 * suspect.p_given:.2f} %",
            "likely": suspect.likely,
            "its probability": f"{100 * suspect.p_likely:.2f} %",
        }
        for rank, suspect in enumerate(suspects, start=1)
    ]
    return aligned(*table_of(rows))


def compared(indices: list[int], errors: set[int]) -> str:
    """Precision of the first in a ranking, in words.

    Args:
        indices: the most suspicious first.
        errors: indices of known errors, of which some may not have been looked at.
    """
    from common.evaluation.labels import hits
    from common.evaluation.statistics import wilson_interval
    from common.reports.text import percent, span

    found, seen = hits(indices, errors, SHEET)
    known, everything = hits(indices, errors, len(indices))
    interval = span(*wilson_interval(found, seen))
    text = f"precision at {seen} {percent(found / seen)} ({interval}): {found} of its {known}"
    return f"{text}; by chance {percent(known / everything)}"


def write(
    folder: Path, part: str, images: "ImageSet", suspects: list[Suspect]
) -> tuple[Path, Path]:
    """Write the sheet of the first and the CSV of all; returns where they are."""
    from common.reports.figures import galleries
    from common.reports.figures.style import png, short

    first = suspects[:SHEET]
    pixels = images.source[images.rows[[s.position for s in first]]].numpy()
    likely = [f"{short(s.likely, 12)}, {100 * s.p_likely:.0f} %" for s in first]
    sheet = png(galleries.answers(pixels, [s.given for s in first], likely, columns=10))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, (_, index, file, given, other, *shares) in enumerate(suspects, start=1):
        writer.writerow([rank, part, index, file, given, other, *(f"{p:.6g}" for p in shares)])
    places = folder / f"{part}.png", folder / f"{part}.csv"
    write_together(dict(zip(places, (sheet, text.getvalue()), strict=True)))
    return places


def read_indices(name: str, count: int) -> set[int]:
    """The indices in a file: its column `index` where the first line names one, else what stands
    first in each line. Empty lines and such as begin with # are passed over.

    Raises:
        UserError: no such file, no text, no index in it, or one that is not below `count`.
    """
    file = expanded(name)
    try:
        text = read_bytes(file).decode("utf-8-sig")
        rows = list(csv.reader(text.splitlines(), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or line(error)
        raise UserError(f"--against: {file} cannot be read ({reason})") from error
    column, found = 0, set()
    for number, row in enumerate(rows, start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if number == 1 and "index" in cells:
            column = cells.index("index")
            continue
        cell = cells[column] if column < len(cells) else ""
        if not (cell.isdecimal() and len(cell) <= DIGITS and int(cell) < count):
            raise UserError(
                f"--against: {file}, line {number}: expected an index from 0 to {count - 1}, not "
                f"'{cell[:40]}'"
            )
        found.add(int(cell))
    if not found:
        raise UserError(f"--against: {file} names no index; write one a line, from 0")
    return found


if __name__ == "__main__":
    cli.command(main)
