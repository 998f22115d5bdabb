"""NumPy's .npz files, whoever wrote them: whole by their checksums, and never unpickled."""

import io
import zipfile
from pathlib import Path

import numpy as np

from common.config import UserError

LARGEST = 2**33  # bytes, unpacked: more is no file of ours


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name.

    Each is read to its end, where zip's checksum is compared; `np.load` reads as far as the array's
    header says, and a changed header may stop it before.

    Raises:
        UserError: no such file, or one that is not as it was written, too large, or holds objects.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError("it unpacks to more than a report holds")
            return {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
    except Exception as error:  # a damaged file fails in a dozen ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{file.parent.name}/{file.name}: unreadable ({reason})") from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    content = io.BytesIO(archive.read(name))
    array = np.lib.format.read_array(content, allow_pickle=False)
    if content.read(1):
        raise ValueError(f"{name} is longer than its header says")
    return array
