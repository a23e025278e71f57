"""Mutations of a file's bytes, by a seed: blind ones of any file, and ones that know how the file is built."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import yaml

from covermap.core.parsing import parse_yaml

DEEP = 20_000
"""Brackets within brackets: more than any parser's stack takes."""
_INTEGERS = (0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1,
             2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
_WORDS = ("", " ", "0", "-1", "1", "255", "256", "65536", "-2147483649", "9223372036854775808", "1e400", "-1e308",
"nan",
          "NaN", "inf", "-Infinity", "1.5", "0x10", "1_000", "1e-400", "9" * 5000, "true", "null", "~", "no", "None",
          "[]", "{}", "[1, 2]", "'", '"', "\0", "\ufeff", "\u202e", "é" * 300, "x" * 200_000, "=1+1", "../../..", "/",
          "*", "&a", "!!python/object:os.system", "2001-99-99", "12:61:61", "\t", "\r", ",", ";", "#",
          "%s{}")  # fmt: skip
_VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 255, 256, 65536, 2**31, 2**63, 10**30, 10**5000, 0.5,
-0.0, 1e308, 1e999,
           float("nan"), "", "x", "1", "nan", "1e999", "0.5", "é\0", "x" * 100_000, "9" * 5000, [], {}, [[]],
           [None], {"a": 1},
           [1, 2, 3], ["a", "b"], {"": None}, [[1, 2], [3]], list(range(3000)))  # fmt: skip


def mutated(form: str, data: bytes, random: Random) -> bytes:
    """A file's bytes changed in one to four places; form: a key of FORMS, else blind."""
    special = FORMS.get(form, ())
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        way = random.choice(special) if special and random.random() < 0.7 else random.choice(_BLIND)
        with contextlib.suppress(Exception):  # what knows the form finds nothing where it is broken already
            data = way(data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    """Somewhere; often in the first or last bytes, where heads and directories lie."""
    end = max(1, len(data))
    near = min(end, 600)
    return random.choice((random.randrange(end), random.randrange(near), end - 1 - random.randrange(near)))


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 2, 8, 64)) if data else 0):
        changed[_place(data, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _byte(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))]) + data[at + 1 :]


def _number(data: bytes, random: Random) -> bytes:
    """An extreme number of 2, 4 or 8 bytes, either way round, or a float that is none."""
    size, end = random.choice((2, 4, 8)), random.choice("<>")
    if size > 2 and random.random() < 0.25:
        value = random.choice((float("nan"), float("inf"), -float("inf"), 1e38, -0.0))
        packed = struct.pack(end + {4: "f", 8: "d"}[size], value)
    else:
        whole = random.choice(_INTEGERS) % (1 << 8 * size)
        packed = whole.to_bytes(size, "little" if end == "<" else "big")
    at = _place(data, random)
    at = random.choice((at, at // size * size))
    return data[:at] + packed + data[at + size :]


def _truncated(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _block(data: bytes, random: Random) -> tuple[int, int]:
    at = _place(data, random)
    return at, min(len(data), at + random.choice((1, 4, 16, 64, 512, 4096)))


def _without(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:start] + data[end:]


def _twice(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]


def _blank(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:start] + random.choice((b"\0", b"\xff", b" ")) * (end - start) + data[end:]


def _swapped(data: bytes, random: Random) -> bytes:
    (a, b), (c, d) = sorted((_block(data, random), _block(data, random)))
    if b > c:
        return data
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _inserted(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.randbytes(random.choice((1, 2, 4, 100))) + data[at:]


_BLIND = (_flip, _byte, _number, _truncated, _without, _twice, _blank, _swapped, _inserted)

# Texts.


def _text(change: Callable[[str, Random], str]) -> Callable[[bytes, Random], bytes]:
    def way(data: bytes, random: Random) -> bytes:
        return change(data.decode("utf-8", "surrogateescape"), random).encode("utf-8", "surrogateescape")

    return way


def _word(text: str, random: Random) -> str:
    """One word or number becomes another of the file, or an odd one."""
    found = list(re.finditer(r"[\w.+-]+", text))
    if not found:
        return random.choice(_WORDS)
    one, other = random.choice(found), random.choice(found)[0]
    return text[: one.start()] + random.choice((random.choice(_WORDS), other)) + text[one.end() :]


def _line(text: str, random: Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines[at] *= random.choice((2, 3, 2000))
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = lines[at].strip() + lines[other]
        case 4:
            lines[at] = "    " * random.randrange(4) + lines[at]
        case 5:
            lines.insert(at, random.choice(_WORDS) + "\n")
    return "".join(lines)


def _mark(text: str, random: Random) -> str:
    """A separator, quote or bracket is put somewhere, or taken away."""
    at = random.randrange(len(text) + 1)
    return text[:at] + random.choice((*",;\t\"':-[]{}<>&*!|%@`\0\r\n#=", "")) + text[at + random.randrange(2) :]


def _encoded(data: bytes, random: Random) -> bytes:
    text = data.decode("utf-8", "replace")
    code = random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7"))
    return text.replace("e", "é").encode(code, "replace")


def _nothing(data: bytes, random: Random) -> bytes:
    return random.choice(
        (b"", b"\n", b"\0", b"   \n\n", b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"{}", b"[]", b"0", b'"a"', b"\n\n,\n")
    )


_TEXT = (_text(_word), _text(_word), _text(_line), _text(_mark), _encoded, _nothing)


def _deep(text: str, random: Random) -> str:
    """A value becomes brackets in brackets in brackets."""
    opened, closed = random.choice((("[", "]"), ('{"a":', "}"), ("[{a: ", "}]"), ("- ", "")))
    deep = random.choice((60, 1200, DEEP))
    bomb = opened * deep + random.choice(("1", "")) + closed * random.choice((deep, 0))
    found = list(re.finditer(r"(?<=[:\[,-] )[^\n]+|(?<=:)[^\n,}]+", text))
    if not found:
        return bomb
    one = random.choice(found)
    return text[: one.start()] + bomb + text[one.end() :]


def _aliases(text: str, random: Random) -> str:
    """Ten aliases of ten aliases of ten ...: a few lines that mean a billion values; also one that holds itself."""
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(random.choice((2, 5, 9))):
        bomb.append(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]")
    name = f"*a{len(bomb) - 1}"
    if random.random() < 0.3:
        bomb, name = ["self: &self [*self, *self]"], "*self"
    if random.random() < 0.3:
        bomb, name = ["map: &map {a: 1, <<: *map}"], "*map"
    found = list(re.finditer(r"(?<=: )[^\n]+", text))
    one = random.choice(found) if found else None
    kept = text if one is None or random.random() < 0.3 else text[: one.start()] + name + text[one.end() :]
    return "\n".join(bomb) + "\n" + kept


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (mapping, key) and (list, number) of plain values."""
    found: list[tuple[Any, Any]] = []
    todo = [tree]
    while todo and len(found) < 5000:
        one = todo.pop()
        each = list(one.items()) if isinstance(one, dict) else list(enumerate(one)) if isinstance(one, list) else []
        found += [(one, key) for key, _ in each]
        todo += [value for _, value in each]
    return found


def _changed(tree: Any, random: Random) -> Any:
    """Plain values of which one is another, gone, called otherwise, or twice as much."""
    places = _places(tree)
    if not places:
        return random.choice(_VALUES)
    holder, key = random.choice(places)
    match random.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[random.choice((1, "", "x", None, True, 0.5, "é", "Name"))] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.append(holder[key])
        case 2:
            holder[key] = [holder[key]]
        case 3:
            other, at = random.choice(places)
            holder[key] = json.loads(json.dumps(other.get(at) if isinstance(other, dict) else at, default=str))
        case _:
            holder[key] = random.choice(_VALUES)
    return tree


def _json(data: bytes, random: Random) -> bytes:
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return data
    try:
        return json.dumps(_changed(tree, random)).encode()
    except (ValueError, RecursionError):
        return data


def _yaml(data: bytes, random: Random) -> bytes:
    try:
        tree = parse_yaml(data.decode())  # libyaml's own loader dies of texts that are too deep
        return yaml.dump(_changed(tree, random), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)).encode()
    except (ValueError, TypeError, RecursionError, yaml.YAMLError):
        return data


def _cell(text: str, random: Random) -> str:
    """A cell, column or row of a table."""
    lines = text.split("\n")
    separator = max(",;\t ", key=text.count)
    rows = [line.split(separator) for line in lines]
    row = random.choice(rows)
    at = random.randrange(len(row))
    match random.randrange(6):
        case 0:
            del row[at]
        case 1:
            row.insert(at, random.choice(_WORDS))
        case 2:
            for each in rows:
                del each[at : at + 1]
        case 3:
            rows[0][min(at, len(rows[0]) - 1)] = random.choice((*rows[0], *_WORDS))
        case 4:
            word = random.choice(_WORDS)
            for each in rows[1:]:
                each[at : at + 1] = [word]
        case _:
            row[at] = random.choice(_WORDS)
    return "\n".join(separator.join(row) for row in rows)


def _entities(text: str, random: Random) -> str:
    """A document type whose entities grow, as in a billion laughs."""
    lines = ['<!DOCTYPE x [<!ENTITY l0 "lol">']
    lines += [f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(random.choice((2, 9)))]
    lines.append("]>")
    head, body = ([*text.split("?>", 1), ""])[:2] if text.startswith("<?xml") else ("", text)
    at = body.find(">", random.randrange(max(1, len(body)))) + 1
    return (head + "?>" if head else "") + "\n".join(lines) + body[:at] + f"&l{len(lines) - 2};" + body[at:]


# Binary forms.


def _safetensors_head(data: bytes, random: Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    head = data[8 : 8 + size]
    if random.random() < 0.2:
        return random.choice(_INTEGERS).to_bytes(8, "little") + data[8:]
    head = random.choice((_json, _json, _text(_word), _text(_mark), _text(_deep)))(head, random)
    return len(head).to_bytes(8, "little") + head + data[8 + size :]


def _member(data: bytes, random: Random) -> bytes:
    """A member of a zip is changed, and its checksum with it."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
            names = source.namelist()
            chosen = random.choice(names)
            for name in names:
                content = source.read(name)
                if name == chosen:
                    if random.random() < 0.1:
                        continue
                    for _ in range(random.choice((1, 3))):
                        content = random.choice((*_BLIND, _text(_word)))(content, random)
                target.writestr(zipfile.ZipInfo(name), content)
    except (zipfile.BadZipFile, ValueError, IndexError, OSError, NotImplementedError, RuntimeError, EOFError):
        return data
    return out.getvalue()


def _sql(data: bytes, random: Random) -> bytes:
    """A value of a table of SQLite is another one."""
    values = (
        None,
        0,
        -1,
        2**62,
        1.5,
        float("inf"),
        "",
        "x",
        "9" * 4000,
        b"",
        b"GP\0\1",
        random.randbytes(30),
        "POLYGON",
        4326,
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(data)
        try:
            file = sqlite3.connect(path)
            try:
                names = [row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                table = random.choice([n for n in names if not n.startswith(("rtree", "sqlite"))])
                columns = [row[1] for row in file.execute(f'PRAGMA table_info("{table}")')]
                column = random.choice(columns)
                rows = [row[0] for row in file.execute(f'SELECT rowid FROM "{table}"')]
                one = "" if random.random() < 0.3 else f" WHERE rowid = {random.choice(rows)}"
                file.execute("PRAGMA foreign_keys = OFF")
                for (trigger,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                    file.execute(f'DROP TRIGGER "{trigger}"')
                if random.random() < 0.3:
                    blob = file.execute(f'SELECT "{column}" FROM "{table}" LIMIT 1').fetchone()
                    value = _flip(blob[0], random) if blob and isinstance(blob[0], bytes) else None
                else:
                    value = random.choice(values)
                file.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?{one}', (value,))
                file.commit()
            finally:
                file.close()
        except (sqlite3.Error, IndexError, OverflowError):
            return data
        return path.read_bytes()


def _tag(data: bytes, random: Random) -> bytes:
    """A field of an entry in a TIFF's first directory."""
    if len(data) < 16 or data[:2] != b"II":
        return _number(data, random)
    big = data[2] == 43
    at = int.from_bytes(data[8:16] if big else data[4:8], "little")
    count = int.from_bytes(data[at : at + (8 if big else 2)], "little")
    if not 0 < count < 200:
        return data
    start = at + (8 if big else 2) + random.randrange(count) * (20 if big else 12)
    field, size = random.choice(((0, 2), (2, 2), (4, 8 if big else 4), (12 if big else 8, 8 if big else 4)))
    value = random.choice((random.choice(_INTEGERS), random.randrange(70_000), random.randrange(len(data))))
    return data[: start + field] + (value % (1 << 8 * size)).to_bytes(size, "little") + data[start + field + size :]


def _metadata(data: bytes, random: Random) -> bytes:
    """A word of the text in a TIFF or Parquet file becomes another of the same length, where offsets stay true."""
    found = list(re.finditer(rb"[\w.:#\"{}\[\] -]{6,}", data))
    if not found:
        return data
    one = random.choice(found)
    inner = list(re.finditer(rb'[\w.#-]+|[{}":,\[\]]', one[0]))
    if not inner:
        return data
    word = random.choice(inner)
    new = random.choice([w.encode("utf-8", "surrogateescape") for w in _WORDS if len(w) < 40])
    new = new[: len(word[0])].ljust(len(word[0]), random.choice((b" ", b"9", b"[", b'"')))
    start = one.start() + word.start()
    return data[:start] + new + data[start + len(new) :]


def _column(data: bytes, random: Random) -> bytes:
    """A column of a Parquet file of another type, empty, nested or gone; or other facts in its head."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except (OSError, ValueError, MemoryError):
        return data
    n, name = len(table), random.choice(table.column_names)
    at = table.column_names.index(name)
    old = table.column(name).to_pylist()
    choices: list[Any] = [
        [None] * n, ["x"] * n, [1] * n, [1.5] * n, [float("nan")] * n, [b"\0\1"] * n, [[]] * n, [[1, 2]] * n,
        [[None]] * n,
        [{"a": 1}] * n, [[["a"]]] * n, [True] * n, [2**62] * n, [[1.0] * (i + 1) for i in range(n)], old[::-1],
        [old[0]] * n,
        [None, *old[1:]], [["x", "y"]] * n, [[float("inf")] * 4] * n,
    ]  # fmt: skip
    try:
        match random.randrange(6):
            case 0:
                table = table.drop_columns([name])
            case 1:
                meta = dict(table.schema.metadata or {})
                key = random.choice(list(meta)) if meta else b"covermap"
                way = random.choice((_json, _json, _text(_word), _text(_deep)))
                table = table.replace_schema_metadata({**meta, key: way(meta.get(key, b"{}"), random)})
            case 2:
                table = table.slice(0, random.choice((0, 1)))
            case 3:
                table = table.rename_columns(
                    [random.choice(table.column_names) if c == name else c for c in table.column_names]
                )
            case _:
                table = table.set_column(at, name, pa.array(random.choice(choices)))
        out = io.BytesIO()
        pq.write_table(table, out)
    except (pa.ArrowException, ValueError, TypeError):
        return data
    return out.getvalue()


def _npy_head(data: bytes, random: Random) -> bytes:
    """The dictionary at the start of an array's file."""
    if data[:6] != b"\x93NUMPY":
        return _member(data, random)
    size = int.from_bytes(data[8:10], "little")
    head = data[10 : 10 + size].decode("latin-1")
    dtype = random.choice(
        ("|O", "<f2", "<c16", "<M8[s]", "<U3", "|b1", "|V8", "<i8", "<u8", ">f4", "<f16", "|S4", "[('a','<i4')]")
    )
    shape = random.choice(
        (
            "()",
            "(0,)",
            "(0, 0, 0)",
            "(1, 0, 3)",
            "(-1, 2, 3)",
            f"({2**40}, 4, 3)",
            f"({2**62}, 2, 2)",
            "(2, 3)",
            "(1,1,1,1,1)",
        )
    )
    head = random.choice((
        re.sub(r"'[<>|][^']*'", f"'{dtype}'", head), re.sub(r"\([^)]*\)", shape, head), head.replace("False", "True"),
        _word(head, random), _mark(head, random),
    ))  # fmt: skip
    return data[:8] + len(head).to_bytes(2, "little") + head.encode("latin-1", "replace") + data[10 + size :]


FORMS: dict[str, tuple[Callable[[bytes, Random], bytes], ...]] = {
    "csv": (*_TEXT, _text(_cell), _text(_cell), _text(_cell), _text(_cell)),
    "text": _TEXT,
    "yaml": (*_TEXT, _yaml, _yaml, _yaml, _yaml, _yaml, _text(_deep), _text(_aliases)),
    "json": (*_TEXT, _json, _json, _json, _json, _json, _text(_deep)),
    "xml": (*_TEXT, _text(_entities)),
    "safetensors": (_safetensors_head,),
    "zip": (_member,),
    "sqlite": (_sql,),
    "tiff": (_tag, _tag, _metadata, _number),
    "parquet": (_column, _column, _metadata),
    "npy": (_npy_head, _npy_head, _member),
    "binary": (),
}
