"""Downloads: said before they begin, tried once, and put in place whole or not at all."""

import hashlib
import http.client
import logging
import queue
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from common.utils.errors import NoNetwork, UserError
from common.utils.files import clear_drafts, drafted

log = logging.getLogger("rungs")

ANSWER = 7  # seconds until a server answers, the search for its name among them
SILENCE = 30  # seconds without a byte after which a download has failed


@dataclass(frozen=True)
class Download:
    """A published file that belongs somewhere here.

    Attributes:
        what: what is in it.
        url: where it is published.
        place: where it belongs.
        digest: kind and beginning of its hash, as in sha256:f37072fd.
        elsewhere: what chooses another place.
    """

    what: str
    url: str
    place: Path
    digest: str
    elsewhere: str


def fetch(files: Sequence[Download]) -> None:
    """Download files, one after another, until one fails.

    Raises:
        NoNetwork: one failed; it names all that are still to be fetched, and their places.
        UserError: a place where nothing can be written.
    """
    for number, file in enumerate(files):
        log.info("%s: fetching %s to %s", file.what, file.url, file.place)
        try:
            _fetch(file)
        except _Failed as error:
            raise _no_network(files[number:], str(error)) from error
        except OSError as error:
            raise cannot_put(file, error) from error


def _no_network(files: Sequence[Download], reason: str) -> NoNetwork:
    """What to say where the first of these could not be downloaded."""
    first, *others = files
    state = "damaged" if first.place.exists() else "missing"
    text = f"{first.what}: {first.place} is {state} and cannot be downloaded from {first.url} "
    text += f"({' '.join(reason.split())}); "
    for other in others:
        text += f"{other.what}: {other.place} is missing, too, from {other.url}; "
    return NoNetwork(text + "put what is fetched from there in its place")


def cannot_put(file: Download, error: OSError) -> UserError:
    """What to say of a place where nothing can be written."""
    return UserError(
        f"{file.place.parent}: cannot put {file.what} here ({error.strerror}); "
        f"make room, or choose another place with {file.elsewhere}"
    )


class _Failed(Exception):
    """A download that failed; the text is the reason."""


def _fetch(file: Download) -> None:
    kind, _, start = file.digest.partition(":")
    found = hashlib.new(kind, usedforsecurity=False)
    file.place.parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(file.place.parent)
    with drafted(file.place) as draft:
        with draft.open("wb") as target:
            for content in _content(file.url):
                target.write(content)
                found.update(content)
        if not found.hexdigest().startswith(start):
            raise _Failed(f"what came is not what was published, by its {kind}")


def _content(url: str) -> Iterator[bytes]:
    """A file's bytes in parts; a bar shows them where somebody looks."""
    try:
        with _answer(url) as answer:
            size = answer.headers.get("Content-Length")
            with tqdm(total=size and int(size), unit="B", unit_scale=True, disable=None) as bar:
                while content := answer.read(2**18):
                    yield content
                    bar.update(len(content))
    except (OSError, http.client.HTTPException) as error:
        raise _Failed(str(error) or type(error).__name__) from error


def _answer(url: str) -> http.client.HTTPResponse:
    """What a server answers. Asked in a thread: a name that is looked for in vain, at one server
    of names after another, takes as long as the system likes.
    """
    answers: queue.Queue[http.client.HTTPResponse | Exception] = queue.Queue()

    def ask() -> None:
        try:
            request = urllib.request.Request(url, headers={"User-Agent": "rungs"})
            answers.put(urllib.request.urlopen(request, timeout=SILENCE))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER)
    except queue.Empty:
        raise TimeoutError(f"no answer in {ANSWER} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
