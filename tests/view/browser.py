"""A real browser before a real server, for the tests of the viewer's page."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.view.browser_scene import Screen, build_scene

PAGE = Path(__file__).resolve().parents[2] / "covermap" / "view" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """The folder that is shown; it is not to be written to."""
    return build_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="session")
def chromium():
    """A headless browser; the test is skipped, with the reason, where a part of it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    if not (PAGE / "vendor" / "leaflet.js").is_file():
        pytest.skip("needs Leaflet in covermap/view/page/vendor")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--force-color-profile=srgb", "--font-render-hinting=none"]
        )
        yield browser
        browser.close()


def serve(folder: Path, *more: str):
    """Start the command on a free port; (process, address)."""
    command = [sys.executable, "-m", "covermap", "view", str(folder), "--port", "0", "--no-open", *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        found = [word for word in line.split() if word.startswith("http://")]
        if found:
            return process, found[0]
    process.communicate()
    raise AssertionError("".join(lines))


def stop(process):
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(scope="session")
def address(scene):
    """The address of a server of the scene."""
    process, found = serve(scene)
    yield found
    stop(process)


@pytest.fixture(scope="session")
def own(scene, tmp_path_factory):
    """(folder, address) of a copy of the scene, whose sample may be written to."""
    folder = tmp_path_factory.mktemp("own") / "shown"
    shutil.copytree(scene, folder)
    process, found = serve(folder)
    yield folder, found
    stop(process)


@pytest.fixture
def labelled(own, scene):
    """The same with a sample in which nothing is labelled yet."""
    shutil.copyfile(scene / "sample.gpkg", own[0] / "sample.gpkg")
    return own


def _changed(view, change):
    change(view, {layer["id"]: layer for layer in view["layers"]})
    return view


@pytest.fixture
def open_page(chromium):
    """open_page(address, scheme=, size=, link=, told=changes view.json) -> Screen; fails at the end if anything left the machine or complained."""
    contexts, complaints, asked = [], [], []

    def start(address, *, scheme="light", size=(1200, 800), link="", expect=(), told=None):
        context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        contexts.append(context)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()

        if told is not None:
            page.route("**/view.json", lambda route: route.fulfill(json=_changed(route.fetch().json(), told)))

        def complain(message):
            if message.type in ("error", "warning") and not any(part in message.text for part in expect):
                complaints.append(f"{message.type}: {message.text}")

        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + link)
        page.wait_for_selector("body.ready")
        screen = Screen(page)
        screen.settle()
        return screen

    yield start
    for context in contexts:
        context.close()
    away = [
        url
        for url in asked
        if urlsplit(url).scheme not in ("data", "blob", "file") and urlsplit(url).hostname != "127.0.0.1"
    ]
    assert not away
    assert not complaints


@pytest.fixture(scope="session")
def static_folder(scene, tmp_path_factory):
    """The scene as a folder that needs no server."""
    out = tmp_path_factory.mktemp("static") / "site"
    subprocess.run(
        [sys.executable, "-m", "covermap", "view", str(scene), "--static", str(out)], check=True, capture_output=True
    )
    return out
