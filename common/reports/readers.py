"""Reads what a stranger wrote: settings, a report's files, a checkpoint. Nothing is unpickled."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common.config import LevelConfig, load_config, yaml_files
from common.models.weights import NAMED
from common.utils.errors import UserError
from common.utils.files import read_npz
from common.utils.paths import expanded

# what a metrics.json must hold for the grader to compare it with anything
NEEDED = {
    "level": str,
    "config": str,
    "seed": int,
    "data.title": str,
    "data.fingerprint": str,
    "data.split": str,
    "weights.name": str,
    "image_size": int,
    "trainable": list,
    "epochs": int,
    "best_epoch": int,
    "val.accuracy": float,
    "tta": str,
    "machine": dict,
    "versions": dict,
    "settings": dict,
}
for _part in ("test", "test_single"):
    NEEDED |= {f"{_part}.correct": int, f"{_part}.total": int}
    NEEDED |= {f"{_part}.accuracy": float, f"{_part}.loss": float}
ARRAYS = {"labels": "i", "predictions": "i", "logits": "f", "classes": "U"}  # NumPy's kinds


def read_settings(
    content: Any,
    project: Path,
    data_root: str | None,
    weights: str | None,
    place: Path | None = None,
) -> LevelConfig:
    """Settings as a report or a checkpoint tells them -> `LevelConfig` for this machine.

    Paths are the submitter's: `data_root` and `weights` replace them. `place`, where the settings
    stand, is named in errors.

    Raises:
        UserError: settings that this checkout does not know.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        try:
            file.write_text(yaml_files.write(content), encoding="utf-8")
            config: LevelConfig = load_config(file)
        except UserError as error:
            where = f"{place}: settings: " if place else ""
            raise UserError(where + str(error).replace(f"{file}: ", "")) from error
        except (yaml.YAMLError, RecursionError, OSError, ValueError) as error:
            where = f"{place}: " if place else ""
            raise UserError(f"{where}settings that are none ({line(error)})") from error
    config.seeds = config.reports = None  # how it was asked for is no matter here
    config.resume = config.anew = config.audit = config.summary = False
    config.log = "none"
    data, network = config.data, config.network
    if data.name == "folder":
        data.root = data_root or _here(data.root, project)
    elif data.name != "digits":  # an archive's checksum says what it is: any copy will do
        own = _here(data.root, project)
        data.root = data_root or (own if own and Path(own).is_dir() else None)
    if network.weights not in NAMED:
        network.weights = weights or _here(network.weights, project)
    return config


def _here(path: str | None, project: Path) -> str | None:
    """A path as the submitter gave it: relative ones are looked for in the submission."""
    if path is None:
        return None
    full = expanded(path)
    return str(full if full.is_absolute() else project / full)


def read_metrics(report: Path, needed: dict[str, type] = NEEDED) -> dict:
    """A report's metrics.json with all that is needed of it: what the grader compares.

    Raises:
        UserError: there is none, or it lacks something.
    """
    metrics = read_json(report / "metrics.json")
    if not isinstance(metrics, dict) or metrics.get("schema") != 1:
        raise UserError(f"{report.name}/metrics.json: not a report of schema 1")
    for key, kind in needed.items():
        value: Any = metrics
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        kinds = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or isinstance(value, bool):
            name = getattr(kind, "__name__", kind)
            raise UserError(f"{report.name}/metrics.json: '{key}' is missing or no {name}")
    return metrics


def read_history(report: Path) -> list[dict]:
    history = read_json(report / "history.json")
    fine = isinstance(history, list) and all(
        isinstance(e, dict) and isinstance(e.get("val_accuracy"), int | float) for e in history
    )
    if not fine or not history:
        raise UserError(f"{report.name}/history.json: not a list of epochs with val_accuracy")
    return history


def read_json(file: Path) -> Any:
    """A report's JSON file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    name = f"{file.parent.name}/{file.name}"
    try:
        if file.exists() and not file.is_file():
            raise UserError(f"{name}: cannot be read (it is no file)")
        content = json.loads(file.read_text(encoding="utf-8"), parse_int=_integer)
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # a report writes it again
        return content
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({line(error)})") from error


def read_arrays(report: Path) -> dict[str, np.ndarray]:
    saved = read_npz(report / "predictions.npz")
    if missing := [name for name in ARRAYS if name not in saved]:
        raise UserError(f"{report.name}/predictions.npz: unreadable (no '{missing[0]}')")
    arrays = {name: saved[name] for name in (*ARRAYS, "single") if name in saved}
    count = len(arrays["labels"]) if arrays["labels"].ndim == 1 else -1
    shapes = {"labels": (count,), "predictions": (count,)}
    shapes["logits"] = (count, arrays["classes"].size)
    for name, kind in ARRAYS.items():
        shape = shapes.get(name, arrays[name].shape)
        if arrays[name].dtype.kind != kind or arrays[name].shape != shape:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise UserError(f"{report.name}/predictions.npz: '{name}' is {found}")
    return arrays


def _integer(text: str) -> int | float:
    """An int64; what is longer is no count of ours, and as a float it stays comparable."""
    return int(text) if len(text) < 19 else float(text)


def line(error: Exception) -> str:
    """An error's text in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
