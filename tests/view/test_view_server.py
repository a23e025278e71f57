"""The server: what it tells, and that nothing but the layers given at the start is ever reachable."""

import importlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.testclient import TestClient

from covermap.view.server import build_app
from tests.view.view_data import codes, grey, layer


def test_a_view_tells_all_layers_from_top_to_bottom(folder, client_of):
    told = client_of([folder]).get("/view.json").json()
    assert [(one["id"], one["kind"]) for one in told["layers"]] == [
        ("sample", "points"), ("map", "classes"), ("image", "image"),
    ]  # fmt: skip
    assert (told["title"], told["static"], told["skipped"]) == ("data", False, [])
    assert told["frame"]["hectares_per_px"] == pytest.approx(0.01)
    points, of_map, image = told["layers"]
    assert (points["of"], points["editable"], points["num_labelled"], len(points["points"])) == ("map", True, 0, 60)
    values = codes()
    assert [one["pixels"] for one in of_map["classes"]] == [int((values == code).sum()) for code in (10, 20, 30)]
    assert of_map["hectares"] == pytest.approx((values > 0).sum() / 100)
    for one in points["points"]:
        assert one["mapped"] == values[int(one["y"]), int(one["x"])]
    assert image["bands"] == ["blue", "green", "red", "nir"]
    assert image["presets"][0] == {"name": "natural colours", "bands": ["red", "green", "blue"]}


def test_tiles_and_their_types(folder, client_of):
    client = client_of([folder])
    found = client.get("/tiles/map/2/0/0.png")
    assert found.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(grey(found.content), codes()[:256, :256] // 10 - 1)
    assert client.get("/tiles/map/2/0/0.png").content == found.content
    query = "?bands=nir,red,green&stretch=5&v=" + layer(client, "image")["version"]
    assert client.get("/tiles/image/2/0/0.jpg" + query).headers["content-type"] == "image/jpeg"
    assert client.get("/tiles/image/2/0/0.jpg?bands=nir").status_code == 200
    assert client.get("/tiles/image/2/3/3.jpg").status_code == 204
    assert client.get("/tiles/map/2/900/0.png").status_code == 204
    assert "max-age" in found.headers["cache-control"]


def test_a_point_tells_the_values_of_its_own_pixel(folder, client_of):
    client, values = client_of([folder]), codes()
    found = client.get("/point?x=123.4&y=45.6").json()
    assert (found["x"], found["y"]) == pytest.approx((501_234, 4_999_544))
    assert 45 < found["lat"] < 46
    code = values[45, 123]
    assert found["layers"]["map"] == {"code": code, "name": {10: "water", 20: "forest", 30: "rock"}[code]}
    assert set(found["layers"]["image"]) == {"blue", "green", "red", "nir"}
    assert found["versions"] == {name: layer(client, name)["version"] for name in ("map", "image")}
    assert client.get("/point?x=690&y=590").json()["layers"] == {"map": None, "image": None}
    assert client.get("/point?x=-5&y=1e9").json()["layers"] == {"map": None, "image": None}


BAD = [
    "/tiles/map/3/0/0.png", "/tiles/map/99999999999999999999/0/0.png", "/tiles/map/-1/0/0.png", "/tiles/map/a/0/0.png",
    "/tiles/map/0/-1/0.png", "/tiles/map/0/0/nan.png", "/tiles/map/0/0/0.gif", "/tiles/map/0/0/0", "/tiles/map/0/0/0.jpg",
    "/tiles/image/0/0/0.png", "/tiles/image/0/0/0.jpg?bands=red,green", "/tiles/image/0/0/0.jpg?bands=purple",
    "/tiles/image/0/0/0.jpg?stretch=3", "/tiles/image/0/0/0.jpg?stretch=x", "/tiles/image/0/0/0.jpg?bands=",
    "/tiles/none/0/0/0.png", "/tiles/map/0/0/0.png?v=old", "/tiles/sample/0/0/0.png", "/tiles/..%2f..%2fetc/0/0/0.png",
    "/tiles/%00/0/0/0.png", "/tiles/map/²/0/0.png", "/point", "/point?x=nan&y=0", "/point?x=inf&y=0", "/point?x=0&y=",
    "/point?x=1e400&y=0", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cetc", "//etc/passwd",
    "/page/index.html", "/server.py", "/../server.py", "/data/map.tif", "/map.tif", "/view.json/x", "/favicon.ico",
    "/point?x=" + "9" * 3000 + "&y=0",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD)
def test_a_bad_request_is_told_so_in_a_sentence(folder, client_of, path):
    answer = client_of([folder]).get(path)
    assert 400 <= answer.status_code < 500, answer.text
    assert set(answer.json()) == {"error"}
    assert str(folder) not in answer.text


def test_other_methods_and_bodies_are_refused(folder, client_of):
    client = client_of([folder])
    for path in ("/view.json", "/tiles/map/0/0/0.png", "/", "/point"):
        assert client.post(path).status_code == 405
    assert client.get("/labels/sample").status_code == 404
    for body in (b"", b"no", b"[]", b"{}", b'{"point": 1}', b'{"point": [1], "reference": 1}', b"[" * 9_000, b"\xff"):
        answer = client.post("/labels/sample", content=body, headers=client.token)
        assert answer.status_code == 400, body
        assert set(answer.json()) == {"error"}
    assert client.post("/labels/sample", content=b"x" * 20_000, headers=client.token).status_code == 413
    assert client.post("/labels/map", json={"point": 1, "reference": 10}, headers=client.token).status_code == 404


def test_writing_needs_the_token_in_its_header(folder, client_of):
    client, label = client_of([folder]), {"point": 1, "reference": 10}
    for headers in ({}, {"X-Covermap-Token": "wrong"}, {"X-Covermap-Token": ""}, {"X-Covermap-Token": "ä".encode()}):
        for path in ("/labels/sample", "/assess/sample"):
            assert client.post(path, json=label, headers=headers).status_code == 403
    assert client.post(f"/labels/sample?token={client.access.token}", json=label).status_code == 403
    assert layer(client, "sample")["num_labelled"] == 0
    assert client.post("/labels/sample", json=label, headers=client.token).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::2]:80", "localhost.x"]
)
def test_other_names_of_this_machine_are_refused(folder, client_of, host):
    client = client_of([folder])
    answer = client.get("/view.json", headers={"host": host})
    assert answer.status_code == 403
    assert client.access.token not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST:9"])
def test_its_own_names_are_known(folder, client_of, host):
    assert client_of([folder]).get("/view.json", headers={"host": host}).status_code == 200


def test_elsewhere_nothing_is_told_without_the_token(folder, client_of):
    client = client_of([folder], host="0.0.0.0", base="http://elsewhere:8000")
    token = client.access.token
    for path in ("/", "/view.json", "/tiles/map/0/0/0.png", "/point?x=1&y=1", "/view.js", "/nothing"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"cookie": f"{client.access.cookie}=wrong"}).status_code == 401
        assert client.get(f"{path}?token=wrong").status_code == 401
    first = client.get(f"/?token={token}")
    assert first.status_code == 200
    assert {"HttpOnly", "SameSite=Strict"} <= set(first.headers["set-cookie"].split("; "))
    assert client.get("/view.json").status_code == 200  # by the cookie
    assert client.get("/tiles/map/0/0/0.png").status_code == 200
    label = {"point": 1, "reference": 10}
    assert client.post("/labels/sample", json=label).status_code == 403  # which another page could send too
    assert client.post("/labels/sample", json=label, headers=client.token).status_code == 200
    other = client_of([folder], host="0.0.0.0")
    assert other.access.token != token


def test_behind_a_proxy_that_keeps_the_name_it_is_asked_by_its_token(folder, client_of):
    refused = client_of([folder], base="http://hub.example").get("/view.json")
    assert refused.status_code == 403
    assert "--token" in refused.json()["error"]
    client = client_of([folder], base="http://hub.example", by_token=True)
    assert client.get("/").status_code == 401
    assert client.get("/", headers={"host": "localhost"}).status_code == 401
    assert client.get(f"/?token={client.access.token}").status_code == 200
    assert client.get("/view.json").status_code == 200


def test_a_place_outside_of_all_maps_is_no_bug(folder, client_of):
    found = client_of([folder]).get("/point?x=1e12&y=-1e12").json()
    assert (found["lon"], found["lat"], found["layers"]) == (None, None, {"map": None, "image": None})


def test_a_band_without_a_value_hides_no_other(write_tif, client_of):
    values = np.full((4, 40, 40), 7, np.uint16)
    values[3, 5, 5] = 0
    values[:, 6, 6] = 0
    client = client_of([write_tif("image.tif", values, nodata=0, bands=["blue", "green", "red", "nir"])])
    of_one = client.get("/point?x=5.5&y=5.5").json()["layers"]["image"]
    assert of_one == {"blue": 7, "green": 7, "red": 7, "nir": None}
    assert client.get("/point?x=6.5&y=6.5").json()["layers"]["image"] is None


def test_a_tile_is_kept_once_whatever_else_is_asked(folder, client_of, monkeypatch):
    kept = []
    monkeypatch.setattr("covermap.view.server._Kept.put", lambda self, key, tile: kept.append(key))
    client = client_of([folder])
    for query in ("", "?bands=red", "?bands=nir&stretch=5", "?class=3"):
        assert client.get(f"/tiles/map/0/0/0.png{query}").status_code == 200
    assert len(set(kept)) == 1
    for query in ("", "?bands=red,green,blue", "?bands=red,green,blue&stretch=2&class=7"):
        assert client.get(f"/tiles/image/0/0/0.jpg{query}").status_code == 200
    assert len(set(kept)) == 2


def test_samples_are_assessed_one_after_the_other_and_clicks_need_not_wait(folder, client_of):
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given):
        begun.set()
        assert go_on.wait(30)
        return {"sentence": "done", "tables": [], "notes": [], "file": None}

    of = client_of([folder])
    app = build_app(of.view, of.access, slow)
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(1) as other:
        first = other.submit(lambda: client.post("/assess/sample", headers=of.token))
        assert begun.wait(30)
        again = client.post("/assess/sample", headers=of.token)
        assert (again.status_code, "already" in again.json()["error"]) == (409, True)
        assert all(client.get("/point?x=1&y=1").status_code == 200 for _ in range(4))
        go_on.set()
        assert first.result().status_code == 200
        assert client.post("/assess/sample", headers=of.token).status_code == 200


def test_requests_that_do_not_go_on_are_ended(folder, client_of, monkeypatch):
    uvicorn, serving = pytest.importorskip("uvicorn"), importlib.import_module("covermap.view.serving")
    monkeypatch.setattr(serving, "REQUEST_S", 0.3)
    monkeypatch.setattr("covermap.view.server._BODY_S", 0.3)
    client = client_of([folder])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(
            build_app(client.view, client.access), lifespan="off", ws="none", http=serving.Impatient
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        label = f"POST /labels/sample HTTP/1.1\r\nHost: localhost\r\nX-Covermap-Token: {client.access.token}\r\n"
        begun = {
            "nothing": b"", "half a head": b"GET / HTTP/1.1\r\nHost: lo", "a second half": b"GET /view.js HTTP/1.1\r\n"
            b"Host: localhost\r\n\r\nGET /view", "half a body": f"{label}Content-Length: 99\r\n\r\n{{".encode(),
        }  # fmt: skip
        answers = {}
        for what, data in begun.items():
            with socket.create_connection(listening.getsockname(), timeout=30) as connection:
                connection.sendall(data)
                answers[what] = b"".join(iter(lambda: connection.recv(9999), b""))
        server.should_exit = True
        thread.join()
    assert answers["nothing"] == answers["half a head"] == b""
    assert answers["a second half"].startswith(b"HTTP/1.1 200")
    assert answers["half a body"].startswith(b"HTTP/1.1 408")


def test_every_answer_is_guarded_and_names_no_other_site(folder, client_of):
    client = client_of([folder])
    for path in ("/", "/view.json", "/view.js", "/tiles/map/0/0/0.png", "/point?x=1&y=1", "/nothing", "/point"):
        answer = client.get(path, headers={"origin": "https://evil.example"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "server" not in answer.headers
        if answer.headers["content-type"].startswith(("application/json", "text/html")):
            assert "http://" not in answer.text
            assert "https://" not in answer.text
    assert client.get("/view.json").headers["cache-control"] == "no-store"


def test_links_that_lead_out_of_a_folder_are_passed_over(folder, client_of, tmp_path, write_tif):
    outside = write_tif("elsewhere/secret.tif", np.ones((50, 50), np.uint8), nodata=0)
    os.symlink(outside, folder / "link.tif")
    told = client_of([folder]).get("/view.json").json()
    assert "link.tif" not in [one["name"] for one in told["layers"]]
    assert any("link.tif is a link that leads out of data" in note for note in told["notes"])
    by_name = client_of([folder / "link.tif"]).get("/view.json").json()  # the user names it: then it is meant
    assert [one["name"] for one in by_name["layers"]] == ["link.tif"]


def test_a_raster_that_is_damaged_midway_is_told_and_the_server_lives_on(folder, client_of):
    client = client_of([folder])
    old = layer(client, "image")["version"]
    data = bytearray((folder / "image.tif").read_bytes())
    with open(folder / "image.tif", "r+b") as file:
        file.truncate(len(data) // 3)
    answer = client.get("/tiles/image/2/2/2.jpg")
    assert answer.status_code == 422, answer.text
    assert "error" in answer.json()
    assert client.get(f"/tiles/image/2/0/0.jpg?v={old}").status_code in (409, 422)
    (folder / "image.tif").write_bytes(b"no raster at all")
    assert client.get("/tiles/image/0/0/0.jpg").status_code == 422
    told = client.get("/view.json").json()
    assert any("image" in line for line in told["skipped"])
    assert client.get("/tiles/map/0/0/0.png").status_code == 200
    assert client.get("/point?x=1&y=1").json()["layers"]["image"] is None
    (folder / "image.tif").write_bytes(data)
    assert client.get("/tiles/image/2/0/0.jpg").status_code == 200


def test_a_bug_is_a_sentence_too(folder, client_of, monkeypatch):
    client = client_of([folder])
    monkeypatch.setattr("covermap.view.server.values_at", lambda *args: 1 / 0)
    answer = client.get("/point?x=1&y=1")
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("a bug in covermap: ZeroDivisionError")
