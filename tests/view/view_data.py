"""Maps to look at, and how a browser reads tiles."""

from __future__ import annotations

import zlib

import numpy as np

from covermap.core.legend import LandClass, Legend

LEGEND = Legend(
    "three", (LandClass(10, "water", "#0000ff"), LandClass(20, "forest", "#008000"), LandClass(30, "rock", "#808080")),
    nodata=0,
)  # fmt: skip


def codes(height=600, width=700, seed=1):
    """Codes of LEGEND in patches of 10 px, with nodata in the lower right."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(1, 4, (height // 10 + 1, width // 10 + 1)) * 10
    found = np.kron(patches, np.ones((10, 10), int))[:height, :width].astype(np.uint8)
    found[-100:, -150:] = 0
    return found


def grey(png: bytes) -> np.ndarray:
    """The values of a PNG as a browser would read them; asserts that nothing in it changes them."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, kinds = 8, b"", []
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        assert int.from_bytes(png[at + 8 + size : at + 12 + size], "big") == zlib.crc32(kind + body)
        kinds.append(kind)
        if kind == b"IHDR":
            width, height, depth, colour = *(int.from_bytes(body[i : i + 4], "big") for i in (0, 4)), body[8], body[9]
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]
    assert depth == 8
    channels = {0: 1, 2: 3, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    values = rows[:, 1:].reshape(height, width, channels)
    return values[..., 0] if channels == 1 else values


def layer(client, name):
    """What view.json says of a layer."""
    told = client.get("/view.json").json()
    return next(one for one in told["layers"] if one["id"] == name)
