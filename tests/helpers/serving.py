"""The page of answers at work in this process, on 127.0.0.1."""

import contextlib
import threading
import time

from common.predict.server import make_server


@contextlib.contextmanager
def served(choices):
    """The page at work; its `address` ends in a slash."""
    made = make_server(choices, 0)
    made.address, made.choices = f"http://127.0.0.1:{made.server_port}/", choices
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()
    choices.leave()


def measured(choices, name):
    """A data set's levels, once all is measured."""
    answers, end = choices[name], time.monotonic() + 120
    while any(trained.pending for trained in answers.trained):
        assert time.monotonic() < end, "nothing is measured"
        time.sleep(0.05)
    return answers
