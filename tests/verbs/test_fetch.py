"""Fetching from a host on this machine that breaks off, lies and refuses, as hosts do."""

import hashlib
import io
import json
import random
import re
import signal
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from covermap import hub
from covermap.core import download as downloads
from covermap.core.download import Remote, download
from covermap.core.errors import DataError, ModelError, OutputError
from covermap.core.registry import find, names
from covermap.data.hosts import find_offer
from covermap.data.unpack import unpack
from covermap.nn.published import published_of
from covermap.verbs.fetch import fetch

BYTES = random.Random(0).randbytes(3_000_000)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        host = self.server
        path = self.path.partition("?")[0]
        host.seen.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        if host.errors.get(path):
            return self.send_error(host.errors[path].pop(0))
        if path in host.sent_on:
            self.send_response(302)
            self.send_header("Location", host.sent_on[path])
            return self.end_headers()
        if path not in host.files:
            return self.send_error(404)
        body, headers = host.files[path]
        place = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        changed = self.headers["If-Range"] not in (None, headers.get("Last-Modified"))
        start = int(place[1]) if place and host.ranges and not changed else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for key, value in {"Content-Length": len(body) - start, **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
        stop = host.drops.pop(0) if host.drops and len(body) > 10_000 else len(body)
        self.wfile.write(body[start : max(start, stop)])
        if stop < len(body):
            self.close_connection = True
        return None

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.errors, server.drops, server.seen, server.sent_on, server.ranges = {}, {}, [], [], {}, True
    server.base = f"http://127.0.0.1:{server.server_port}"
    for name in ("HF_ENDPOINT", "COVERMAP_ZENODO", "COVERMAP_DRIVE"):
        monkeypatch.setenv(name, server.base)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(downloads, "BACK_OFF_S", 0)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def zenodo(host, files, number="7", **changes):
    """A record as developers.zenodo.org shows it."""
    listed = []
    for key, body in files.items():
        path = f"/api/records/{number}/files/{key}/content"
        host.files[path] = (body, {})
        sums = {"checksum": "md5:" + hashlib.md5(body).hexdigest()} | changes
        listed.append({"key": key, "size": len(body), "links": {"self": host.base + path}} | sums)
    about = {"metadata": {"license": {"id": "cc-by-4.0"}}, "files": listed}
    host.files[f"/api/records/{number}"] = (json.dumps(about).encode(), {})


def hugging_face(host, files, repo="org/name", kind="datasets", large=1000):
    """A repository in two pages; files above `large` lie on another host, as on the hub."""
    rows = [{"type": "directory", "path": "a", "oid": "0"}]
    page = f"/datasets/{repo}" if kind == "datasets" else f"/{repo}"
    for name, body in files.items():
        git = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        lfs = {"lfs": {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}} if len(body) > large else {}
        rows.append({"type": "file", "path": name, "size": len(body), "oid": git} | lfs)
        host.sent_on[f"{page}/resolve/abc/{name}"] = f"{host.base.replace('127.0.0.1', 'localhost')}/cdn/{name}"
        host.files[f"/cdn/{name}"] = (body, {})
    about = {"sha": "abc", "cardData": {"license": "mit"}}
    host.files[f"/api/{kind}/{repo}/revision/main"] = (json.dumps(about).encode(), {})
    link = {"Link": f'<{host.base}/api/{kind}/{repo}/tree/rest>; rel="next"'}
    host.files[f"/api/{kind}/{repo}/tree/abc"] = (json.dumps(rows[:2]).encode(), link)
    host.files[f"/api/{kind}/{repo}/tree/rest"] = (json.dumps(rows[2:]).encode(), {})


def test_nothing_is_fetched_unless_it_is_said(host, covermap, tmp_path):
    zenodo(host, {"a.zip": BYTES, "b.csv": b"1,2\n"})
    code, out, err = covermap("fetch", "zenodo:7", tmp_path / "new")
    assert (code, err) == (0, "")
    assert "3,000,000" in out
    assert "cc-by-4.0" in out
    assert "GB free" in out
    assert "add --download" in out
    assert not (tmp_path / "new").exists()
    assert [path for path, *_ in host.seen] == ["/api/records/7"]
    code, out, _ = covermap("fetch", "zenodo:7", tmp_path / "new", "--only", "*.csv", "--download", "--json")
    assert (code, json.loads(out)["bytes"]) == (0, 4)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.csv"]
    code, _, err = covermap("fetch", "zenodo:7", tmp_path / "new", "--only", "*.tif")
    assert (code, "none of 2 files is like" in err) == (1, True)


def test_a_broken_connection_is_taken_up_where_it_broke(host, tmp_path):
    zenodo(host, {"a.bin": BYTES})
    host.drops, host.errors["/api/records/7/files/a.bin/content"] = [1_000_000, 2_500_000], [503, 500]
    found = fetch("zenodo:7", tmp_path, wanted=True)
    assert (tmp_path / "a.bin").read_bytes() == BYTES
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert [asked for path, asked, _ in host.seen if "content" in path] == [
        None, None, None, "bytes=1000000-", "bytes=2500000-"
    ]  # fmt: skip
    assert found["files"][0]["here"] == len(BYTES)
    assert fetch("zenodo:7", tmp_path, wanted=True)["missing"] == 0
    assert len(host.seen) == 7  # the list only


@pytest.fixture
def interruptible():
    """Also where the tests run in the background, which ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_stopped_by_hand_it_goes_on(host, covermap, tmp_path, monkeypatch, interruptible):
    zenodo(host, {"a.bin": BYTES})

    def stop(url, **given):
        response = request(url, **given)
        if "content" not in url:
            return response
        pieces = [response.read(700_000)]
        response.read = lambda size: pieces.pop() if pieces else signal.raise_signal(signal.SIGINT)
        return response

    request = downloads.request
    monkeypatch.setattr(downloads, "request", stop)
    code, _, err = covermap("fetch", "zenodo:7", tmp_path, "--download", "-q")
    assert (code, "the same command goes on" in err) == (3, True)
    monkeypatch.setattr(downloads, "request", request)
    assert "700,000" in covermap("fetch", "zenodo:7", tmp_path)[1]
    assert covermap("fetch", "zenodo:7", tmp_path, "--download", "-q")[0] == 0
    assert host.seen[-1][1] == "bytes=700000-"
    assert (tmp_path / "a.bin").read_bytes() == BYTES


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_in_between_is_fetched_anew(host, tmp_path, ranges):
    """An address without a checksum: what is here belongs to the day it was of."""
    host.files["/x.bin"] = (BYTES, {"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"})
    host.drops, host.ranges = [1_000_000] * 8, ranges
    remote = Remote("x.bin", f"{host.base}/x.bin", len(BYTES))
    with pytest.raises(DataError, match="broke 4 times after 1,000,000 bytes"):
        download(remote, tmp_path / "x.bin")
    host.drops, newer = [], BYTES[::-1]
    host.files["/x.bin"] = (newer, {"Last-Modified": "Thu, 02 Jan 2025 00:00:00 GMT"})
    download(remote, tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == newer


def test_what_does_not_have_its_checksum_is_not_kept(host, tmp_path):
    zenodo(host, {"a.bin": BYTES}, checksum="md5:" + "0" * 32)
    with pytest.raises(DataError, match=r"its md5 is .*, not 0000"):
        fetch("zenodo:7", tmp_path, wanted=True)
    assert list(tmp_path.iterdir()) == []
    hugging_face(host, {"a/b.csv": b"ab"})
    host.files["/cdn/a/b.csv"] = (b"AB", {})
    with pytest.raises(DataError, match="its git is"):
        fetch("hf:org/name", tmp_path, wanted=True)


@pytest.mark.parametrize("name", ["../x.bin", "/tmp/x.bin", "a/../../x.bin", ".."])
def test_names_that_lead_out_are_refused(host, tmp_path, name):
    zenodo(host, {name: b"x"})
    with pytest.raises(DataError, match="leads out of"):
        fetch("zenodo:7", tmp_path / "in", wanted=True)
    assert not (tmp_path / "in").exists()


def test_a_repository_is_fetched_page_by_page_and_its_token_stays_with_it(host, tmp_path):
    files = {"a/b.bin": BYTES[:5000], "README.md": b"hello", "c.csv": b"1"}
    hugging_face(host, files)
    found = fetch("hf:org/name", tmp_path, wanted=True)
    assert found["licence"] == "mit"
    for name, body in files.items():
        assert (tmp_path / name).read_bytes() == body
    shown = {path: token for path, _, token in host.seen}
    assert shown["/api/datasets/org/name/tree/rest"] == "Bearer secret"
    assert shown["/datasets/org/name/resolve/abc/a/b.bin"] == "Bearer secret"
    assert shown["/cdn/a/b.bin"] is None


def test_weights_come_by_the_same_way(host, tmp_path, monkeypatch):
    monkeypatch.setenv("COVERMAP_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    published = published_of("presto")
    hugging_face(host, {"x": b"", published.file: BYTES[:9000]}, repo=published.repo, kind="models")
    host.drops = [4000]
    path = hub.pull("presto", published)
    assert path == hub.place_of("presto", published)
    assert path.read_bytes() == BYTES[:9000]
    with pytest.raises(ModelError, match="is not the published file"):
        hub.require_sum(path, published)
    path.unlink()
    del host.sent_on[f"/{published.repo}/resolve/abc/{published.file}"]
    with pytest.raises(ModelError, match=r"cannot be had \(HTTP 404"):
        hub.pull("presto", published)


def test_addresses_and_drive_name_their_files(host, tmp_path):
    host.files["/d/some%20file.zip"] = host.files["/d/some file.zip"] = (b"zip", {})
    assert find_offer(f"{host.base}/d/some%20file.zip?x=1").files[0].name == "some file.zip"
    named = {"Content-Disposition": 'attachment; filename="../../CD.zip"', "Content-Type": "application/zip"}
    host.files["/download"] = (b"zip", named)
    assert fetch("drive:1abc", tmp_path, wanted=True)["files"][0]["file"] == "CD.zip"
    assert "/download?id=1abc&export=download&confirm=t" in [path for path, *_ in host.seen]
    host.files["/download"] = (b"<html>", {"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(DataError, match="shows a page"):
        fetch("drive:1abc", tmp_path)


def test_hosts_that_refuse_or_are_not_there(host, tmp_path):
    host.errors["/x"] = [403, 401]
    for message in ("only for those who logged in", "only for those", "cannot be had .HTTP 404"):
        with pytest.raises(DataError, match=message):
            fetch(f"{host.base}/x", tmp_path)
    host.errors["/x"] = [503] * 4
    with pytest.raises(DataError, match=r"cannot be reached .HTTP 503"):
        fetch(f"{host.base}/x", tmp_path)
    host.files["/api/records/7"] = (b"<html>", {})
    with pytest.raises(DataError, match="does not answer in JSON"):
        fetch("zenodo:7", tmp_path)
    host.files["/api/records/7"] = (b"[]", {})
    with pytest.raises(DataError, match="answers in an unknown way"):
        fetch("zenodo:7", tmp_path)
    with pytest.raises(DataError, match=r"no network: .*\n.*by hand"):
        fetch("http://127.0.0.1:9/x", tmp_path)
    zenodo(host, {"f": b"x"})
    host.files["/api/records/7"] = (host.files["/api/records/7"][0].replace(b"http://", b"file://"), {})
    with pytest.raises(DataError, match="is no http address"):
        fetch("zenodo:7", tmp_path, wanted=True)


def test_space_and_other_files_of_the_name_are_minded(host, tmp_path, monkeypatch):
    zenodo(host, {"a.bin": BYTES})
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a.bin has 4 bytes"):
        fetch("zenodo:7", tmp_path, wanted=True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2_999_999}))
    with pytest.raises(OutputError, match=r"3,000,000 bytes are needed .*2,999,999 are free"):
        fetch("zenodo:7", tmp_path, wanted=True, overwrite=True)
    monkeypatch.undo()
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_layouts_say_where_their_files_are(host, tmp_path, covermap):
    code, _, err = covermap("fetch", "oscd", tmp_path)
    assert (code, "https://rcdaudt.github.io/oscd" in err) == (1, True)
    code, _, err = covermap("fetch", "oscdd", tmp_path)
    assert (code, "'oscd'" in err, "zenodo:RECORD" in err) == (1, True, True)
    zenodo(host, {"hokkaido_japan.zip": b"x"}, number="7248056")
    assert fetch("landslide", tmp_path)["licence"] == find("source", "landslide").licence
    for aoi in ("china", "conus", "europe", "middleeast", "pakin", "southamerica"):
        hugging_face(host, {"README.md": aoi.encode(), "b.csv": b""}, repo=f"M3LEO-miniset/{aoi}")
    files = [row["file"] for row in fetch("m3leo", tmp_path, only=["*.md"])["files"]]
    assert files == [f"{aoi}/README.md" for aoi in ("china", "conus", "europe", "middleeast", "pakin", "southamerica")]
    for name in names("source"):
        for record in find("source", name).records:
            assert re.fullmatch(r"zenodo:\d+|hf:[\w-]+/[\w-]+", record)


def packed(path, files):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
            for name, body in files.items():
                pack.writestr(name, body)
    else:
        with tarfile.open(path, "w:gz") as tape:
            for name, body in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(body)
                tape.addfile(member, io.BytesIO(body))
    return path


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_archives_are_unpacked_beside_themselves(host, tmp_path, ending):
    files = {"d/a.tif": BYTES[:100], "d/e/b.tif": BYTES[:2000]}
    zenodo(host, {f"a.{ending}": packed(tmp_path / f"x.{ending}", files).read_bytes()})
    found = fetch("zenodo:7", tmp_path / "to", wanted=True, unpacked=True)
    assert found["unpacked"] == 2
    assert {
        path.relative_to(tmp_path / "to").as_posix(): path.read_bytes() for path in (tmp_path / "to/d").rglob("*.tif")
    } == files
    (tmp_path / "to/d/a.tif").write_bytes(b"torn")
    unpack(tmp_path / f"to/a.{ending}", tmp_path / "to")
    assert (tmp_path / "to/d/a.tif").read_bytes() == files["d/a.tif"]


@pytest.mark.parametrize("ending", ["zip", "tar.gz"])
def test_archives_that_mean_harm_are_refused_before_anything_is_written(tmp_path, ending):
    to = tmp_path / "to"
    to.mkdir()
    for name in ("../x", "/x", "a/../../x"):
        with pytest.raises(DataError, match="leads out of"):
            unpack(packed(tmp_path / f"out.{ending}", {"good": b"1", name: b"2"}), to)
    with pytest.raises(DataError, match="would grow to 30,000,000 bytes"):
        unpack(packed(tmp_path / f"bomb.{ending}", {"zeros": bytes(30_000_000)}), to)
    torn = packed(tmp_path / f"torn.{ending}", {"a": BYTES})
    torn.write_bytes(torn.read_bytes()[:100_000])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(torn, to)
    link = tmp_path / f"link.{ending}"
    if ending == "zip":
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        with zipfile.ZipFile(link, "w") as pack:
            pack.writestr(info, "/etc")
    else:
        with tarfile.open(link, "w:gz") as tape:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            tape.addfile(member)
    with pytest.raises(DataError, match="holds links or devices: link"):
        unpack(link, to)
    assert list(to.iterdir()) == []
