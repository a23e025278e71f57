"""Names, locales, clocks and repetition: the parts of stress.py that are no matter of chance."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stressed import Call, Ended, contents, differences, fresh, write_data

Found = list[tuple[str, str]]

LONG = "a" * 200
NAMES = [
    "with space", "Zürich_été", "土地 覆盖", "🌍", "-dash", "a#b", "a%20b", "a?b", "it's", 'say "x"', "a&b;c", "[1]*",
    "{x}", "a\\b", "$HOME", "a,b=c", "a:b", "a@2020-07-01", "UPPER.Tif", ".hidden", LONG,
]  # fmt: skip
TRAINED = ("with space", "Zürich_été", "土地 覆盖", "it's", "a#b", LONG)
"""Names that a run gets, too."""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES: dict[str, dict[str, str]] = {
    "C, UTF-8 mode off": ASCII,
    "POSIX": {"LC_ALL": "POSIX"},
    "de_DE.UTF-8": {"LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"},
    "Asia/Kathmandu": {"TZ": "Asia/Kathmandu"},
    "America/St_Johns": {"TZ": "America/St_Johns"},
    "Pacific/Kiritimati": {"TZ": "Pacific/Kiritimati"},
}
LEGEND = "data.legend={1: Fläche, 2: 森, 3: town}"
SAID = {
    "doctor": ["doctor"], "info": ["info", "../data/image.tif", "../data/labels.tif"], "models": ["models", "list"],
    "legend": ["legend", "list"], "check": ["check", "../data/covermap.yaml", "--set", LEGEND], "help": ["--help"],
    "train": ["train", "../data/covermap.yaml", "--set", "output=../work/out", "--set", LEGEND],
    "predict": ["predict", "out/small", "../data/image.tif", "out/map.tif", "--date", "2020-07-01", "--workers", "1"],
    "report": ["report", "out/small"],
    "change": [
        "change", "../data/labels.tif", "../data/labels_later.tif", "out/change.tif", "--legend", "../data/é.yaml",
    ],
    "embed": ["embed", "../data/covermap.yaml", "out/chips.parquet", "--size", "16", "--workers", "1"],
}  # fmt: skip


def locale(root: Path, *, cold: bool = True) -> tuple[list[str], Found]:
    """Calls in several locales, each in a process of its own, as a locale counts from the start of Python."""
    (root / "data/é.yaml").write_text("1: Fläche\n2: 森\n3: town\n", encoding="utf-8")
    rows, found = ["| locale | calls | rude | files that differ |", "|---|---|---|---|"], Found()
    folder = _german(root)
    wanted: dict[str, Any] = {}
    for name, env in {"C.UTF-8": {"LC_ALL": "C.UTF-8", "TZ": "UTC"}, **LOCALES}.items():
        if "de_DE" in name and folder is None:
            rows.append(f"| {name} | not to be had here | | |")
            continue
        more = {**env, **({"LOCPATH": str(folder)} if folder else {})}
        work, rude = fresh(root), 0
        for verb, words in SAID.items():
            ended = Call(words, work, env=more, cold=cold).wait()
            if ended.code or ended.rude:
                found.append((f"{name}, {verb}", ended.rude or ended.error))
                rude += 1
        now = contents(work)
        wanted = wanted or now
        left = differences(now, wanted)
        found += [(name, each) for each in left[:4]]
        rows.append(f"| {name} | {len(SAID)} | {rude} | {len(left)} of {len(now)} |")
    return rows, found


def _german(root: Path) -> Path | None:
    """A folder with a locale of decimal commas, if it can be made here."""
    folder = root / "locales"
    folder.mkdir(exist_ok=True)
    if not Path("/usr/share/i18n/locales/de_DE").is_file():
        return None
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", folder / "de_DE.UTF-8"], capture_output=True)
    return folder if made.returncode in (0, 1) and (folder / "de_DE.UTF-8").is_dir() else None


def clock(root: Path, run: Callable[[Path, str], tuple[dict[str, Any], Ended, Any]]) -> tuple[list[str], Found]:
    """Inputs whose times lie in 1970 and in 2100; a second call goes on, or says that all is there."""
    rows, found = ["| file times | call | ends the same |", "|---|---|---|"], Found()
    for case in ("prepare", "predict", "embed", "embed_scenes", "train"):
        wanted, _, _ = run(root, case)
        for name, seconds in (("1970", 86_400), ("2100", 4_102_444_800)):
            for path in (root / "data").rglob("*"):
                os.utime(path, (seconds, seconds))
            now, _, _ = run(root, case)
            left = differences(now, wanted)
            left = [each for each in left if not each.endswith("ledger.jsonl")]  # prepare knows files by their times
            rows.append(f"| {name} | {case} | {not left} |")
            found += [(f"{case}, {name}", each) for each in left]
    work = fresh(root)
    words = ["embed", "../data/runs/small", "../data/scenes/*.tif", "out/pixels", "--workers", "1"]
    Call(words, work).wait()
    (work / "out/pixels/scene_2.tif").unlink()
    ended = Call(words, work).wait()
    rows.append(f"| 2100 | embed of scenes, one of them gone | {not ended.code} |")
    found += [("embed, scenes of 2100", ended.error)] if ended.code else []
    return rows, found


def names(root: Path, *, cold: bool = False) -> tuple[list[str], Found]:
    """Inputs and outputs by odd names, in odd folders, through links, in folders that cannot be written to."""
    rows, found = ["| name | calls that ended | refused in words | wrong |", "|---|---|---|---|"], Found()
    places = [(name, name) for name in NAMES] + [("path of 400 letters", "/".join(["b" * 80] * 5)), ("link", "link")]
    for shown, name in places:
        work = fresh(root)
        tally = {"ended": 0, "refused": 0, "wrong": 0}
        folder = work / name
        if shown == "link":
            (work / "real").mkdir()
            folder.symlink_to("real")
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder.name
        for source in ("image", "labels", "labels_later"):
            shutil.copy(root / f"data/{source}.tif", folder / f"{stem}_{source}.tif")
        shutil.copy(root / "data/legend.yaml", folder / f"{stem}.yaml")
        before = sorted(path.name for path in folder.iterdir())
        for verb, words, made in _calls(Path(name), stem):
            ended = Call(words, work, cold=cold).wait()
            right = ended.code == 0 and (work / made).exists()
            how = "ended" if right else "refused" if ended.code == 1 and not ended.rude else "wrong"
            tally[how] += 1
            if how != "ended":
                found.append((f"{shown[:30]}, {verb}", ended.rude or ended.error or "its output is not there"))
                print("  ", *found[-1], file=sys.stderr, flush=True)
        left = [path.name for path in folder.iterdir() if path.name not in before]
        found += [(shown[:30], f"left beside the inputs: {each}") for each in left]
        rows.append(f"| `{shown[:30]}` | {tally['ended']} | {tally['refused']} | {tally['wrong']} |")
    return rows, found


def _calls(folder: Path, stem: str) -> list[tuple[str, list[str], Path]]:
    """(verb, words, what it makes), of inputs and outputs of a stem in a folder."""

    def path(name: str) -> str:
        text = str(folder / name)
        return f"./{text}" if text.startswith("-") else text  # as in every program

    image, model = path(f"{stem}_image.tif"), "../data/runs/small"
    maps = [path(f"{stem}_labels.tif"), path(f"{stem}_labels_later.tif")]
    out = Path("made") / folder
    run = ["--set", "output=made", "--set", f"name={stem}", "--set", "train.epochs=1"]
    made = {name: out / f"{stem}.out.{name}" for name in ("tif", "parquet")}

    def there(target: Path) -> str:
        return f"./{target}" if str(target).startswith("-") else str(target)

    return [
        ("info", ["info", image], Path(image)),
        ("predict", ["predict", model, image, there(made["tif"]), "--workers", "1", "--date", "2020"], made["tif"]),
        ("embed", ["embed", model, image, there(made["parquet"]), "--workers", "1"], made["parquet"]),
        ("prepare", ["prepare", image, there(out / f"{stem}_20.tif"), "--gsd", "20"], out / f"{stem}_20.tif"),
        ("change", ["change", *maps, there(out / f"{stem}_c.tif"), "--legend", path(f"{stem}.yaml")],
         out / f"{stem}_c.tif"),
        ("init", ["init", image, maps[0], "--legend", path(f"{stem}.yaml"), "-o", there(out / f"{stem}.yaml")],
         out / f"{stem}.yaml"),
        *([("train", ["train", there(out / f"{stem}.yaml"), *run], Path("made"))] if stem in TRAINED else []),
    ]  # fmt: skip


def read_only(root: Path) -> tuple[list[str], Found]:
    """Inputs on a file system that cannot be written to, if one can be mounted."""
    place = root / "readonly"
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True).returncode:
        return ["read-only inputs: nothing can be mounted here"], []
    found = Found()
    try:
        write_data(place / "data")
        shutil.copytree(root / "data/runs", place / "data/runs")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        work = fresh(root)
        calls = {
            "info": ["info", f"{place}/data/image.tif"],
            "predict": [
                "predict",
                f"{place}/data/runs/small",
                f"{place}/data/image.tif",
                "out/m.tif",
                "--workers",
                "1",
            ],
            "embed": ["embed", f"{place}/data/covermap.yaml", "out/e.parquet", "--size", "16"],
            "train": ["train", f"{place}/data/covermap.yaml", "--set", f"output={work}/out"],
            "into it": ["predict", f"{place}/data/runs/small", f"{place}/data/image.tif", f"{place}/m.tif"],
        }
        for verb, words in calls.items():
            ended = Call(words, work).wait()
            refused = "read-only" in ended.error and not ended.rude
            if ended.code and not (verb == "into it" and refused):
                found.append((f"read-only inputs, {verb}", ended.rude or ended.error))
    finally:
        subprocess.run(["umount", place], check=True)
    return [f"read-only inputs: {5 - len(found)} of 5 calls as they should end"], found


def leak(root: Path, times: int) -> tuple[list[str], Found]:
    """Verbs again and again in this process; what it holds must be flat after a tenth of them, or ten.

    Flat: at most 1 MB, which the allocator keeps in another order, and 20 kB a call.
    """
    from covermap import change, open_raster, predict
    from covermap.core.config import ImageConfig
    from covermap.core.train_config import PredictConfig
    from covermap.verbs.embed import EmbedSettings, embed

    image, model = str(root / "data/scenes/scene_0.tif"), root / "data/runs/small"
    maps = [root / f"data/labels{name}.tif" for name in ("", "_later")]
    settings, one = PredictConfig(size_px=32, block_px=32, workers=2), EmbedSettings(workers=1)

    def raster(out: Path) -> None:
        opened = open_raster(image)
        opened.read(opened.grid.window)

    work: dict[str, Callable[[Path], object]] = {
        "predict": lambda out: predict(model, image, out / "m.tif", settings=settings),
        "embed": lambda out: embed(model, out / "e.tif", images=[ImageConfig(path=image)], settings=one),
        "change": lambda out: change(maps, out / "c.tif", legends=[str(root / "data/legend.yaml")]),
        "Raster": raster,
    }
    head = "| call | times | seconds | RSS after a tenth (or ten), MB | at the end | files open | threads |"
    rows, found = [head, "|---" * 7 + "|"], Found()
    for name, call in work.items():
        start, first = time.perf_counter(), (0.0, 0, 0)
        for number in range(times):
            call(fresh(root) / "out")
            if number == max(10, times // 10):
                first = held()
        last = held()
        rows.append(
            f"| {name} | {times} | {time.perf_counter() - start:.0f} | {first[0]:.1f} | {last[0]:.1f} "
            f"| {first[1]}, then {last[1]} | {first[2]}, then {last[2]} |"
        )
        if last[0] > first[0] + 1 + 0.02 * times or last[1] > first[1] or last[2] > first[2]:
            found.append((name, f"memory, files, threads grew from {first} to {last}"))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows, found


def held() -> tuple[float, int, int]:
    """Resident memory (MB), open files and threads of this process."""
    import gc

    gc.collect()
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["VmRSS"].split()[0]) / 1024, len(os.listdir("/proc/self/fd")), int(told["Threads"])
