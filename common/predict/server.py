"""A page on 127.0.0.1 to drop a picture on: every level's answers and maps, side by side.

Python's own server, for one person on one machine: it listens on loopback alone, refuses other
Host headers and other pages' requests, limits what it reads, and serves nothing but this.
"""

import http.server
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from common.data.decode import UnreadablePicture
from common.predict.answers import Answers
from common.reports.figures.galleries import overlay
from common.reports.gallery import webp
from common.reports.page import html
from common.utils.errors import UserError

log = logging.getLogger("rungs")

LARGEST = 20 * 2**20  # bytes of a picture
SHOWN = 224  # px of an answer's picture
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
POLICY += " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def serve(answers: Answers, port: int) -> NoReturn:
    """Serve until interrupted.

    Raises:
        UserError: the port is taken or no port.
    """
    server = make_server(answers, port)
    log.info("levels: %s", ", ".join(answers.levels))
    log.info("open http://127.0.0.1:%d (Ctrl-C stops)", server.server_port)
    with server:
        server.serve_forever()


def make_server(answers: Answers, port: int) -> http.server.ThreadingHTTPServer:
    """The server, bound to 127.0.0.1; port 0 takes any free one."""
    handler = type("Handler", (Page,), {"answers": answers})
    try:
        return _Server(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--port: cannot use {port} ({reason}); choose another") from error


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever leaves before the answer, as by reloading the page, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Page(http.server.BaseHTTPRequestHandler):
    """The page, and the answers to a picture that is posted to it."""

    answers: Answers
    timeout = 30  # seconds without a byte
    server_version, sys_version = "rungs", ""

    def do_GET(self) -> None:
        """The page itself."""
        if not self._allowed():
            return
        if self.path != "/":
            self._send(404, {"error": "there is nothing here but /"})
            return
        self._send(200, html.get_template("drop.html").render(levels=self.answers.levels))

    def do_POST(self) -> None:
        """A picture's bytes in, the levels' answers out."""
        if not self._allowed():
            return
        if self.path != "/answers":
            self._send(404, {"error": "pictures go to /answers"})
            return
        length = self.headers.get("Content-Length", "")
        size = int(length[:19]) if length.isdecimal() else 0  # Python refuses 4,301 digits
        if not size:
            self._send(411, {"error": "an empty file: drop a picture"})
        elif size > LARGEST:
            self.close_connection = True
            limit = LARGEST // 2**20
            self._send(413, {"error": f"a file of more than {limit} MiB: make it smaller"})
        else:
            self._answer(self.rfile.read(size))

    def _answer(self, content: bytes) -> None:
        with tempfile.NamedTemporaryFile(prefix="rungs-") as file:
            file.write(content)
            file.flush()
            try:
                picture, found = self.answers(Path(file.name))
            except UnreadablePicture as error:
                self._send(400, {"error": f"not a readable picture: {error}"})
                return
        levels = [
            {"level": a.level, "top": a.top, "picture": webp(overlay(picture, a.places, SHOWN))}
            for a in found
        ]
        self._send(200, {"levels": levels})

    def _allowed(self) -> bool:
        """Whether the request is from this page, by this name; says no otherwise."""
        port = self.server.server_port
        hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host in hosts and (origin is None or origin in {f"http://{h}" for h in hosts}):
            return True
        self.close_connection = True
        self._send(403, {"error": f"this page is http://127.0.0.1:{port}, and no other"})
        return False

    def _send(self, status: int, content: str | dict) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        kind = "text/html" if isinstance(content, str) else "application/json"
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *arguments: object) -> None:
        """Requests are no news."""
        log.debug(text, *arguments)
