"""A headless Chromium for the tests of pages: the system's own, no download."""

import contextlib
import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def browser():
    """The browser; skips where Playwright or Chromium is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium is installed here")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=options)
        yield made
        made.close()


class Watched:
    """A page whose console errors and requests are kept.

    Attributes:
        errors: what its console and scripts complained of.
        requests: addresses that it asked for, its own and data: aside.
    """

    def __init__(self, browser, address, **context):
        self.errors, self.requests = [], []
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)
        self.address = address
        self.page.goto(address)

    def _note(self, request):
        if not request.url.startswith(("data:", "blob:", self.address)):
            self.requests.append(request.url)

    def serious(self):
        """What axe-core calls serious or critical, as rule and element."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        found = axe.run(self.page).response["violations"]
        return [
            (v["id"], node["html"][:200])
            for v in found
            if v["impact"] in ("serious", "critical")
            for node in v["nodes"]
        ]

    def overflow(self):
        """Pixels by which the page is wider than its window."""
        return self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )


def screenshot(page, name):
    """Keep a picture of a page where RUNGS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("RUNGS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)
