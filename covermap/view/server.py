"""The web server of a view: page, tiles, values under a click, references of sample points. Nothing else is reachable.

It answers this machine only; where it listens to others, every request needs the token of its address. Files are named
by the ids of the layers found at the start: no path ever comes from a request.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from covermap.core.engine import cores
from covermap.core.errors import ConfigError, CovermapError, DataError, LabelError, OutputError
from covermap.view.labelling import ReferenceChanged
from covermap.view.layers import View
from covermap.view.point import values_at
from covermap.view.raster_layer import RasterLayer
from covermap.view.static import TYPES, page_files
from covermap.view.tiles import Handles, data_tile, image_tile

LOCAL = ("127.0.0.1", "localhost", "::1")
_BY_NAME = (
    "asked by another name than localhost; behind a proxy start covermap view with --token, else with --host NAME"
)
_BODY_S = 10.0
_MOST_BODY = 10_000
_MOST_QUERY = 2_000
_KEPT_BYTES = 32 << 20
Tile = tuple[bytes, str]
"""Content and type."""
_SECURITY = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; style-src 'self'; "
     b"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]  # fmt: skip
_STATUS = ((ConfigError, 400), (LabelError, 422), (OutputError, 409), (DataError, 422))
Assess = Callable[[Path, Path], dict[str, Any]]
"""A map and a sample -> {"sentence", "tables": [{"head", "rows"}], "notes", "file"}."""


@dataclass(frozen=True)
class Access:
    """Who may ask. token: needed to write, and, where is_open, for everything. hosts: names to ask by without it."""

    token: str
    hosts: frozenset[str]
    is_open: bool

    @staticmethod
    def for_host(host: str, *, by_token: bool = False) -> Access:
        """Of a server that listens at a host; a new token each time. by_token: also this machine needs it."""
        name = host.strip("[]")
        return Access(secrets.token_urlsafe(24), frozenset((*LOCAL, name)), by_token or name not in LOCAL)

    @property
    def cookie(self) -> str:
        """A name of its own, for cookies are shared by all ports of a host."""
        return "covermap-" + sha256(self.token.encode()).hexdigest()[:8]

    def knows(self, given: str | None) -> bool:
        """Whether a token is the right one, in constant time."""
        return secrets.compare_digest((given or "").encode(), self.token.encode())


class Guard:
    """Around the app: host and token are checked, every answer has the security headers, no error gets out."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request, begun, cookie = Request(scope), False, b""
        try:
            from_address = self.access.knows(request.query_params.get("token"))
            known = from_address or self.access.knows(request.cookies.get(self.access.cookie))
            known = known or self.access.knows(request.headers.get("x-covermap-token"))
        except (ValueError, UnicodeError):
            from_address = known = False
        if from_address:
            cookie = f"{self.access.cookie}={self.access.token}; HttpOnly; SameSite=Strict".encode()

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                extra = [(b"set-cookie", cookie)] if cookie else []
                message["headers"] = [*message.get("headers", ()), *_SECURITY, *extra]
            await send(message)

        refusal = self._refusal(request, known)
        try:
            await (refusal or self.app)(scope, receive, with_headers)
        except Exception as error:
            if not begun:  # otherwise it was answered, or the client sees an answer that breaks off
                await (await _bug(request, error))(scope, receive, with_headers)

    def _refusal(self, request: Request, known: bool) -> Response | None:
        if len(request.scope["query_string"]) > _MOST_QUERY:
            return _failure(414, "the address is too long")
        if known:
            return None
        if self.access.is_open:
            return _failure(401, "this view needs its token; open the address that covermap view printed")
        if _host(request.headers.get("host", "")) not in self.access.hosts:
            return _failure(403, _BY_NAME)
        return None


def _host(header: str) -> str:
    """The name in a Host header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def _failure(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers={"cache-control": "no-store"})


def build_app(view: View, access: Access, assess: Assess | None = None) -> ASGIApp:
    """The app of a view; assess: what POST assess/ID calls."""
    server = _Server(view, access, assess)
    routes = [
        Route("/tiles/{layer}/{z}/{x}/{name}", server.tile),
        Route("/", server.page),
        Route("/view.json", server.view_json),
        Route("/view.js", server.view_js),
        Route("/point", server.point),
        Route("/labels/{layer}", server.label, methods=["POST"]),
        Route("/assess/{layer}", server.assess, methods=["POST"]),
        Route("/{path:path}", server.file),
    ]
    handlers: dict[Any, Any] = {HTTPException: _http, CovermapError: _covermap, RasterioError: _unreadable}
    handlers |= {ReferenceChanged: _overtaken, Exception: _bug}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), access)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    plain = {"Not Found": "there is nothing here", "Method Not Allowed": "this cannot be asked for in this way"}
    return _failure(error.status_code, plain.get(error.detail, error.detail))


async def _covermap(request: Request, error: Exception) -> Response:
    assert isinstance(error, CovermapError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return _failure(status, f"{error.message}; {error.fix}" if error.fix else error.message)


async def _overtaken(request: Request, error: Exception) -> Response:
    assert isinstance(error, ReferenceChanged)
    told = {"error": error.message, "reference": error.code}
    return JSONResponse(told, 409, headers={"cache-control": "no-store"})


async def _unreadable(request: Request, error: Exception) -> Response:
    return _failure(422, f"the file cannot be read: {str(error)[:300]}; copy it again from its source")


async def _bug(request: Request, error: Exception) -> Response:
    return _failure(500, f"a bug in covermap: {type(error).__name__}: {str(error)[:300]}")


class _Kept:
    """The newest tiles, up to a number of bytes: what takes long without overviews is made once."""

    def __init__(self, most_bytes: int = _KEPT_BYTES) -> None:
        self._tiles: OrderedDict[Hashable, Tile] = OrderedDict()
        self._left, self._lock = most_bytes, threading.Lock()

    def get(self, key: Hashable) -> Tile | None:
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
            return self._tiles.get(key)

    def put(self, key: Hashable, tile: Tile) -> None:
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self._left -= len(tile[0])
            while self._left < 0 and self._tiles:
                self._left += len(self._tiles.popitem(last=False)[1][0])


class _Server:
    """What the routes answer.

    Pixels are read in threads, twice as many as cores, each with its own open files. Neighbouring tiles are read by the
    same thread: they lie in one block of the file, which it unpacks once.
    """

    def __init__(self, view: View, access: Access, assess: Assess | None) -> None:
        self.view, self.access, self._assess = view, access, assess
        self.handles = Handles(view.frame)
        self.readers = [ThreadPoolExecutor(1, f"tiles-{number}") for number in range(2 * cores())]
        self.threads = ThreadPoolExecutor(2, "other")
        self.assessor, self.assessing = ThreadPoolExecutor(1, "assess"), False
        self.kept = _Kept()
        self.pages = page_files()

    async def _run(self, work: Callable[..., Any], *given: Any, by: ThreadPoolExecutor | None = None) -> Any:
        return await asyncio.get_running_loop().run_in_executor(by or self.threads, work, *given)

    async def page(self, request: Request) -> Response:
        return self._file("index.html")

    async def file(self, request: Request) -> Response:
        return self._file(request.path_params["path"])

    def _file(self, name: str) -> Response:
        """One of the files of the page, which are known by name."""
        if name not in self.pages:
            raise HTTPException(404)
        kind = TYPES.get(Path(name).suffix, "text/plain; charset=utf-8")
        return Response(self.pages[name].read_bytes(), headers={"content-type": kind, "cache-control": "no-cache"})

    async def view_json(self, request: Request) -> Response:
        found = await self._run(self.view.to_dict)
        return _json(found | {"token": self.access.token})

    async def view_js(self, request: Request) -> Response:
        """Nothing: a folder without a server has the view here."""
        return Response("", headers={"content-type": TYPES[".js"], "cache-control": "no-cache"})

    async def point(self, request: Request) -> Response:
        x, y = (_finite(request.query_params.get(axis), axis) for axis in "xy")
        return _json(await self._run(self._values, x, y))

    def _values(self, x: float, y: float) -> dict[str, Any]:
        layers: list[RasterLayer] = []
        lost: dict[str, None] = {}
        for one in [each.id for each in self.view.rasters]:
            try:
                layer = self.view.raster(one)
                assert layer is not None
                layers.append(layer)
            except CovermapError:
                lost[one] = None
        found = values_at(self.handles, layers, x, y)
        found["layers"] |= lost
        return found

    async def tile(self, request: Request) -> Response:
        z, x, y, suffix = _place(request.path_params)
        if z > self.view.frame.native:
            raise HTTPException(404, f"the zooms are 0 to {self.view.frame.native}")
        name, query = request.path_params["layer"], dict(request.query_params)
        reader = self.readers[hash((name, z, x // 2, y // 2)) % len(self.readers)]
        found = await self._run(self._tile, name, z, x, y, suffix, query, by=reader)
        if found is None:
            return Response(status_code=204, headers=_FOR_AN_HOUR)
        data, kind = found
        return Response(data, headers={"content-type": kind, **_FOR_AN_HOUR})

    def _tile(self, name: str, z: int, x: int, y: int, suffix: str, query: dict[str, str]) -> Tile | None:
        layer = self._layer(name)
        if query.get("v", layer.version) != layer.version:
            raise OutputError(f"{layer.name} has changed on the disk", fix="load the page again")
        if (layer.kind == "image") != (suffix == "jpg"):
            raise HTTPException(404, f"tiles of {layer.kind} end in {'.jpg' if layer.kind == 'image' else '.png'}")
        frame, box = self.view.frame, self.view.frame.tile(z, x, y)
        if box[0] >= frame.width or box[1] >= frame.height:
            return None
        given = query.get("bands")
        bands = tuple(given.split(",")) if given is not None else layer.presets[0][1] if layer.presets else ()
        stretch, number = _whole(query.get("stretch", "2"), "stretch"), _whole(query.get("class", "0"), "class")
        # Only what the tile depends on, or one would be kept under many names.
        variant = (bands, stretch) if layer.kind == "image" else number if layer.kind == "probabilities" else None
        key = (name, layer.version, z, x, y, variant)
        if found := self.kept.get(key):
            return found
        if layer.kind == "image":
            found = image_tile(self.handles, layer, box, bands, stretch)
        else:
            found = data_tile(self.handles, layer, box, number)[0], "image/png"
        if found:
            self.kept.put(key, found)
        return found

    def _layer(self, name: str) -> RasterLayer:
        if (layer := self.view.raster(name)) is None:
            raise HTTPException(404, "there is no such layer")
        return layer

    async def label(self, request: Request) -> Response:
        self._require_token(request)
        sample = self.view.sample(request.path_params["layer"])
        if sample is None:
            raise HTTPException(404, "there is no such sample")
        body = await _body(request)
        if not {"point", "reference"} <= set(body) or isinstance(body["point"], dict | list):
            raise ConfigError("a label is {point, reference}", fix='{"point": 17, "reference": 3}, null for none')
        seen = [body["before"]] if "before" in body else []
        return _json(await self._run(sample.set, body["point"], body["reference"], *seen))

    async def assess(self, request: Request) -> Response:
        self._require_token(request)
        sample = self.view.sample(request.path_params["layer"])
        if sample is None or self._assess is None:
            raise HTTPException(404, "there is no such sample")
        if sample.map_path is None:
            raise DataError(
                f"the map that {sample.name} was drawn from is not here", fix="give it too: covermap view MAP SAMPLE"
            )
        if self.assessing:
            raise OutputError("a sample is being assessed already", fix="wait until its numbers are there")
        self.assessing = True
        try:
            return _json(await self._run(self._assess, sample.map_path, sample.path, by=self.assessor))
        finally:
            self.assessing = False

    def _require_token(self, request: Request) -> None:
        """Of the header, for a cookie or an address would also come with what another page sends."""
        if not self.access.knows(request.headers.get("x-covermap-token")):
            raise HTTPException(403, "the token is missing or wrong; load the page again")


_FOR_AN_HOUR = {"cache-control": "private, max-age=3600"}


def _json(value: Any) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, headers={"content-type": "application/json", "cache-control": "no-store"})


def _place(given: dict[str, Any]) -> tuple[int, int, int, str]:
    """z, x, y and ending of a tile's address."""
    stem, dot, suffix = given["name"].rpartition(".")
    if not dot or suffix not in ("png", "jpg"):
        raise HTTPException(404, "a tile is tiles/ID/Z/X/Y.png or .jpg")
    return _whole(given["z"], "z"), _whole(given["x"], "x"), _whole(stem, "y"), suffix


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ConfigError(f"{what} is {text[:20]!r}", fix="give a whole number from 0")
    return int(text)


def _finite(text: str | None, what: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e12:
        raise ConfigError(f"{what} is {(text or '')[:20]!r}", fix="give x and y in px of the frame")
    return value


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request; raises ConfigError, HTTPException 408, 413."""
    data = b""
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                data += part
                if len(data) > _MOST_BODY:
                    raise HTTPException(413, "that is too much")
    except TimeoutError as error:
        raise HTTPException(408, "the rest of the request did not come; try again") from error
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError("the body is no JSON", fix='{"point": 17, "reference": 3}') from error
    if not isinstance(found, dict):
        raise ConfigError("the body is no JSON object", fix='{"point": 17, "reference": 3}')
    return found
