"""The server of a view as a process: it answers until Ctrl-C, and lets nobody keep it waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import rasterio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from covermap.view.local_files import OFFLINE
from covermap.view.tiles import CACHE_BYTES

REQUEST_S = 20.0
"""A request that was begun must be there by then."""
_MOST_AT_ONCE = 200
"""Connections; a browser holds six."""


class Impatient(H11Protocol):
    """uvicorn's own, but a connection on which no whole request comes is closed."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_idle:
            self._stop()
        elif self._late is None:
            self._wait()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._late = self.loop.call_later(REQUEST_S, self._give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._is_idle and not self.transport.is_closing():
            self.transport.close()


def serve(app: ASGIApp, sockets: Sequence[socket.socket]) -> None:
    """Answer until Ctrl-C; GDAL keeps little and asks no network."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=2, server_header=False,
        limit_concurrency=_MOST_AT_ONCE, ws="none", http=Impatient,
    )  # fmt: skip
    # uvicorn raises the interrupt again after it has ended.
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **OFFLINE), contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=list(sockets))
