"""A hub of models on this machine, to which the real client of the hub pushes and from which covermap fetches."""

from __future__ import annotations

import base64
import json

from tests.conftest import SHARED
from tests.verbs.test_fetch import Handler, hugging_face, zenodo

WEIGHTS = SHARED / "weights/galileo_nano/encoder.pt"


class Hub(Handler):
    """Takes commits of new repositories, too; a commit is `main`, and the tag v1."""

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"] or 0)) or self.chunks()
        repo = "/".join(self.path.split("/")[3:5])
        if self.path.endswith("/preupload/main"):
            files = json.loads(raw)["files"]
            told = {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
        elif self.path.endswith("/commit/main"):
            rows = [json.loads(line) for line in raw.splitlines()]
            files = {row["value"]["path"]: base64.b64decode(row["value"]["content"]) for row in rows[1:]}
            hugging_face(self.server, files, repo=repo, kind="models")
            self.server.files[f"/api/models/{repo}/revision/v1"] = self.server.files[
                f"/api/models/{repo}/revision/main"
            ]
            told = {"commitUrl": f"{self.server.base}/{repo}/commit/abc", "commitOid": "abc"}
        elif self.path == "/api/repos/create":
            about = json.loads(raw)
            repo = f"{about['organization']}/{about['name']}"
            state = {"id": repo, "private": about.get("visibility") == "private", "tags": [], "siblings": []}
            self.server.files[f"/api/models/{repo}"] = (json.dumps(state).encode(), {})
            told = {"url": f"{self.server.base}/{repo}"}
        else:
            told = {"errors": [], "warnings": []}  # of the card
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def stock(host):
    """Let a server of tests/verbs/test_fetch.py take pushes, and offer a record and, where they are here, real weights."""
    host.RequestHandlerClass = Hub
    zenodo(host, {"hokkaido.nc": b"x" * 2000}, number="7248056")
    if WEIGHTS.is_file():
        files = {"models/nano/encoder.pt": WEIGHTS.read_bytes()}
        hugging_face(host, files, repo="nasaharvest/galileo", kind="models")
