"""`covermap view` as a process: it tells its address, answers, and ends politely."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from covermap.verbs.view import _listen, view

pytest.importorskip("uvicorn")

COMMAND = [sys.executable, "-c", "from covermap.cli import main; main()", "view"]


@pytest.fixture
def a_map(write_tif):
    return write_tif("map.tif", np.kron([[1, 2], [3, 1]], np.ones((20, 20))).astype(np.uint8), nodata=0)


def ended(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=120)


def test_it_tells_its_address_answers_and_ends_with_ctrl_c(a_map):
    process = subprocess.Popen(
        [*COMMAND, a_map, "--port", "0", "--no-open"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().split()[2]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}view.json", timeout=60) as answer:
            told = json.load(answer)
        assert [one["name"] for one in told["layers"]] == ["map.tif"]
        with urllib.request.urlopen(f"{url}tiles/map/0/0/0.png", timeout=60) as answer:
            assert answer.read().startswith(b"\x89PNG")
    finally:
        process.send_signal(signal.SIGINT)
        rest, said = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "")
    assert said == "reading map.tif\nended\n"


def test_with_a_token_the_address_has_it_and_no_program_is_told_it(a_map, monkeypatch):
    told, served = [], []
    monkeypatch.setattr("covermap.verbs.view._has_screen", lambda: True)
    monkeypatch.setattr("covermap.verbs.view.webbrowser.open", told.append)

    def serving(app, sockets):
        while not told:
            time.sleep(0.01)
        page = Path(urllib.request.url2pathname(told[0].removeprefix("file://")))
        served.append((page, page.stat().st_mode & 0o777, page.parent.stat().st_mode & 0o777, page.read_text()))

    monkeypatch.setattr("covermap.view.serving.serve", serving)
    addresses = []
    view([a_map], port=0, token=True, on_ready=addresses.append)
    page, rights, of_folder, text = served[0]
    assert addresses[0].startswith("http://127.0.0.1:")
    assert "?token=" in addresses[0]
    assert addresses[0] in text
    assert "token" not in told[0]
    assert (rights, of_folder) == (0o600, 0o700)
    assert not page.exists()


def test_a_taken_port_is_named(a_map):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ended(a_map, "--no-open", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} at 127.0.0.1 cannot be used" in done.stderr
    assert "--port 0" in done.stderr


def test_without_the_extra_it_says_what_to_install(a_map):
    hidden = "import sys; sys.modules['starlette'] = None; from covermap.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", hidden, "view", a_map, "--no-open"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'covermap[web]'" in done.stderr
    static = [sys.executable, "-c", hidden, "view", a_map, "--static", a_map.replace("map.tif", "site"), "--quiet"]
    assert subprocess.run(static, capture_output=True, text=True).returncode == 0  # which needs none


def test_bad_arguments_are_sentences(a_map, tmp_path):
    for arguments, words in (
        ([str(tmp_path / "none.tif")], "nothing of it can be shown"),
        ([a_map, "--port", "70000"], "port 70000 is none"),
        ([a_map, "--host", "no.such.host.invalid"], "there is no host"),
        ([a_map, "--static", str(tmp_path)], "is not empty"),
    ):
        done = ended(*arguments, "--no-open")
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_torch_is_not_needed(a_map, tmp_path):
    code = (
        f"import sys; sys.argv = ['covermap', 'view', {a_map!r}, '--static', {str(tmp_path / 'site')!r}, '--quiet']\n"
        "from covermap.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'starlette'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_answers_are_sent_at_once():
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each tile takes 40 ms more.
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
