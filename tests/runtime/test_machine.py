"""What a report says of the machine."""

import os
from types import SimpleNamespace

import psutil
import torch

from common.config import TrainConfig
from common.runtime import provenance, start_runtime
from helpers.networks import CPU


def test_memory_where_there_is_no_unix(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3 * 2**30))
    assert provenance(CPU)["machine"]["memory_gib"] == 3.0


def test_float32_is_float32_on_a_gpu():
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    for flag in flags:
        flag.allow_tf32 = True
    start_runtime(TrainConfig(device="cpu"))
    assert not any(flag.allow_tf32 for flag in flags)
