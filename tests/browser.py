"""Pages in headless Chromium: what goes wrong when they open, and what axe finds in them."""

from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
VIEWS = ((1280, "light"), (400, "dark"))  # width in pixels and colours


def watched(browser, width=1280, colours="light", **options):
    """A new tab and the list of its faults: messages, exceptions, and requests that leave the disk."""
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours, **options)
    tab.set_default_timeout(300_000)  # ms; pages open slowly on a busy machine
    faults = []
    tab.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("requestfailed", lambda request: faults.append(f"{request.url}: {request.failure}"))

    def local(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            faults.append(f"requests {request.url}")

    tab.on("request", local)
    return tab, faults


def violations(tab):
    """What axe finds in the page as it is now: rule and the first element of each."""
    package = pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    if not tab.evaluate("'axe' in window"):
        tab.evaluate((Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{one['id']} ({len(one['nodes'])}): {one['nodes'][0]['html']}" for one in found]


def check(browser, path):
    """Open a file wide and light, narrow and dark: no fault, no violation, nothing beyond the right edge."""
    for width, colours in VIEWS:
        tab, faults = watched(browser, width, colours)
        tab.goto(Path(path).resolve().as_uri())
        where = f"{path}, {width} px, {colours}"
        found = violations(tab)
        assert not found, f"{where}: {found}"
        beyond = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, where
        assert faults == [], where
        tab.close()
