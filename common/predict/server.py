"""A page on 127.0.0.1 to drop a picture on: every level's answers and maps, side by side.

Python's own server, for one person on one machine: it listens on loopback alone, refuses other
Host headers and other pages' requests, limits what it reads, and serves nothing but this. It is
there at once; the levels, with torch, are loaded meanwhile.
"""

import http.server
import json
import logging
import sys
import urllib.parse

from common.predict.choices import Choices
from common.reports.html import html
from common.utils.errors import UserError

log = logging.getLogger("rungs")

LARGEST = 20 * 2**20  # bytes of a picture
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
POLICY += " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def serve(choices: Choices, port: int) -> None:
    """Serve until interrupted.

    Raises:
        UserError: the port is taken or no port; the first data set's levels cannot be used.
    """
    server = make_server(choices, port)
    others = ", ".join(name for name in choices.names if name != choices.first)
    words = f"; the page has {others}, too" if others else ""
    log.info("%s: %s%s", choices.first, ", ".join(choices.levels(choices.first)), words)
    log.info("open http://127.0.0.1:%d (Ctrl-C stops)", server.server_port)
    choices.begin(choices.first, failing=server.shutdown)
    try:
        with server:
            server.serve_forever()
    finally:
        choices.leave()
    raise choices.failed[choices.first]


def make_server(choices: Choices, port: int) -> http.server.ThreadingHTTPServer:
    """The server, bound to 127.0.0.1; port 0 takes any free one."""
    handler = type("Handler", (Page,), {"choices": choices})
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
    """The page, and the answers to a picture that is posted to it.

    Both are of the data set that `?data=` names, else of the first.
    """

    choices: Choices
    timeout = 30  # seconds without a byte
    server_version, sys_version = "rungs", ""

    def do_GET(self) -> None:
        """The page itself."""
        path, name = self._asked()
        if not self._allowed() or not self._known(path == "/", "there is nothing here but /", name):
            return
        try:
            self._send(200, self._page(name))
        except UserError as error:  # its levels cannot be used
            self._send(500, {"error": str(error)})

    def do_POST(self) -> None:
        """A picture's bytes in, the levels' answers out."""
        path, name = self._asked()
        if not self._allowed() or not self._known(
            path == "/answers", "pictures go to /answers", name
        ):
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
            self._answer(self.rfile.read(size), name)

    def _page(self, name: str) -> str:
        """The page of a data set; until its levels are loaded, without what is known of them."""
        facts = {"levels": [], "classes": [], "pending": True}
        if answers := self.choices.ready(name):
            from common.predict.about import about

            facts = about(answers.trained)
        elif name in self.choices.failed:
            self.choices[name]  # which says why
        else:
            self.choices.begin(name)
        names = {"names": self.choices.levels(name), "choices": self.choices.names, "name": name}
        return html.get_template("drop.html").render(**facts, **names)

    def _answer(self, content: bytes, name: str) -> None:
        """The answers, once the levels are loaded."""
        try:
            answers = self.choices[name]
        except UserError as error:
            self._send(500, {"error": str(error)})
            return
        from common.data.decode import UnreadablePicture
        from common.predict.cards import cards

        try:
            found = cards(answers, content)
        except UnreadablePicture as error:
            self._send(400, {"error": f"not a readable picture: {error}"})
            return
        self._send(200, found)

    def _asked(self) -> tuple[str, str]:
        """The path that is asked for, and the data set."""
        path, _, query = self.path.partition("?")
        return path, urllib.parse.parse_qs(query).get("data", [self.choices.first])[0]

    def _known(self, here: bool, otherwise: str, name: str) -> bool:
        """Whether there is such a path, and such a data set; says no otherwise."""
        if here and name in self.choices.names:
            return True
        self.close_connection = True
        self._send(404, {"error": f"no runs {name!r} here" if here else otherwise})
        return False

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
