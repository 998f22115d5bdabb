"""What a report says of the machine."""

import os
from types import SimpleNamespace

import psutil

from common.runtime import provenance
from helpers.networks import CPU


def test_memory_where_there_is_no_unix(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=3 * 2**30))
    assert provenance(CPU)["machine"]["memory_gib"] == 3.0
