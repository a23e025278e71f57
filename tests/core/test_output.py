import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rasterio._err import CPLE_AppDefinedError

from covermap.core.engine import map_unordered, shard
from covermap.core.errors import BandError, ConfigError, CovermapError, DataError, MissingExtra, OutputError, suggest
from covermap.core.output import at_work, claim, claim_with, discard, replacing, scratch, write_text, writing
from covermap.core.registry import find, names


def test_an_error_keeps_its_message_and_fix_through_a_worker_process():
    error = pickle.loads(pickle.dumps(BandError("no band", fix="name it")))
    assert (type(error), str(error)) == (BandError, "no band\n  fix: name it")
    assert "pip install 'covermap[ml]'" in str(pickle.loads(pickle.dumps(MissingExtra("x", "ml", "y"))))


def test_suggestions():
    assert suggest("modle", ["model", "train"]) == "did you mean 'model'?"
    assert suggest("zzz", ["a", "b"]) == "known: a, b"


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path):
    path = write_text(tmp_path / "a.txt", "one")

    def fail():
        with replacing(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_claim_refuses_what_exists_and_what_cannot_be(tmp_path):
    (tmp_path / "a.tif").touch()
    with pytest.raises(OutputError, match="exists already"):
        claim(tmp_path / "a.tif")
    assert claim(tmp_path / "a.tif", overwrite=True) == tmp_path / "a.tif"
    with pytest.raises(OutputError, match="cannot be written"):
        claim(tmp_path / "a.tif" / "b.tif")
    with pytest.raises(OutputError, match="cannot be written"):
        claim("/proc/nowhere/b.tif")


FULL = """
import resource, signal, sys
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from affine import Affine
from covermap.core.errors import OutputError
from covermap.geo.grid import Grid, Window
from covermap.geo.writer import RasterWriter
try:
    with RasterWriter(sys.argv[1], Grid(None, Affine(1, 0, 5, 0, -1, 5), 1024, 1024), bands=["a"], dtype="uint8", compress="none") as w:
        for row in range(0, 1024, 512):
            w.write(Window(row, 0, 512, 1024), np.ones((512, 1024), "uint8"))
except OutputError as error:
    print("refused:", error)
"""


def test_a_full_disk_is_said_and_leaves_no_half_file(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path / "f.tif")], capture_output=True, text=True
    )
    assert "refused:" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 200_000


FULL_TENSORS = """
import resource, signal, sys
import torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from safetensors.torch import save_file
from covermap.core.errors import OutputError
from covermap.core.output import replacing
try:
    with replacing(__import__("pathlib").Path(sys.argv[1])) as partial:
        save_file({"a": torch.zeros(100_000)}, partial)
except OutputError as error:
    print("refused:", error.message)
"""


@pytest.mark.parametrize("how", ["save_file", "torch.save"])
def test_tensors_on_a_full_disk_are_no_bug(tmp_path, how):
    code = FULL_TENSORS.replace("save_file({", how + "({")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "f.tensors")], capture_output=True, text=True)
    said = "the disk is full" if how == "save_file" else "cannot be written"  # torch keeps the reason to itself
    assert said in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_call_left_is_no_hindrance(tmp_path):
    left = tmp_path / ".model.partial"
    left.mkdir()
    (left / "half").write_text("x")
    with replacing(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "whole").write_text("y")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]


def test_a_folder_is_held_against_other_calls_but_not_against_itself(tmp_path):
    with at_work(tmp_path / "run", alone=True):
        with at_work(tmp_path / "run", alone=True, again=True):
            pass
        with pytest.raises(OutputError, match="another call"), at_work(tmp_path / "run", alone=True):
            pass
        code = (
            "import sys; from pathlib import Path; from covermap.core.output import at_work\n"
            "with at_work(Path(sys.argv[1]), alone=True): pass"
        )
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
        assert "another call is at work" in other.stderr
    with at_work(tmp_path / "run", alone=True):
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from covermap.core.output import scratch
with scratch(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("x")
    Path(sys.argv[2]).write_text("y")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_call_wrote_beside_its_output_is_its_own_and_its_scratch_goes(tmp_path):
    out, table = tmp_path / "map.tif", tmp_path / "map.csv"
    table.write_text("mine")
    with pytest.raises(OutputError, match=r"map\.csv exists already"):
        claim_with(out, [table])
    table.unlink()
    subprocess.run([sys.executable, "-c", KILLED, str(out), str(table)], check=False)
    assert len(list(tmp_path.glob(".map.tif.*"))) == 1
    claim_with(out, [table])
    with scratch(out) as mine, scratch(out) as other:
        assert mine != other
        assert sorted(tmp_path.glob(".map.tif.*")) == sorted([mine, other])  # both are held; what was left is gone
    assert [path.name for path in tmp_path.iterdir()] == ["map.csv"]
    with pytest.raises(OutputError, match=r"map\.csv exists already"):
        claim_with(out, [table])


def test_a_folder_is_replaced_by_the_new_one_at_once_and_discarded_at_once(tmp_path, monkeypatch):
    old = tmp_path / "model"
    old.mkdir()
    (old / "old").touch()
    real, seen = shutil.rmtree, []

    def look(path, *rest, **more):
        seen.append(sorted(each.name for each in old.iterdir()) if old.exists() else None)
        real(path, *rest, **more)

    monkeypatch.setattr(shutil, "rmtree", look)
    with replacing(old) as partial:
        partial.mkdir()
        (partial / "new").touch()
    discard(old)
    assert seen == [["new"], None]
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_gdal_is_no_number_of_the_system(tmp_path):
    def fail():
        with writing(tmp_path / "a.tif"):
            raise CPLE_AppDefinedError(3, 1, "Write failed")  # 1 would be: not permitted

    with pytest.raises(
        OutputError, match=r"cannot be written: .*Write failed\n  fix: check .* free space \([\d,.]+ MB"
    ):
        fail()


def test_long_names_are_written(tmp_path):
    for name in ("a" * 246 + ".txt", "🌍" * 60 + ".txt"):
        write_text(claim(tmp_path / name), "x")
        with scratch(tmp_path / name):
            pass
        assert (tmp_path / name).read_text() == "x"


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_items_are_mapped_once_each_by_any_number_of_workers(workers):
    def triple(item):
        if item == 13:
            raise DataError("13 is unlucky", fix="leave it out")
        return 3 * item

    assert sorted(map_unordered(triple, range(10), workers=workers)) == [3 * i for i in range(10)]
    stopped = []
    with pytest.raises(DataError, match="unlucky") as caught:
        list(map_unordered(triple, [1, 13, 2], workers=workers, stop=lambda: stopped.append(True)))
    assert caught.value.fix == "leave it out"
    assert bool(stopped) == (workers > 1)


def test_shards_are_a_partition():
    items = list(range(17))
    parts = [shard(items, f"{i}/4") for i in (1, 2, 3, 4)]
    assert sorted(item for part in parts for item in part) == items
    for wrong in ("0/4", "5/4", "1", "a/b"):
        with pytest.raises(CovermapError):
            shard(items, wrong)


def test_plugins_are_found_by_name_or_file(tmp_path):
    assert "unet" in names("backbone")
    assert "cross_entropy" in names("loss")
    with pytest.raises(ConfigError, match="unett"):
        find("decoder", "unett")
    (tmp_path / "mine.py").write_text("class Own: pass\n")
    assert find("loss", f"{tmp_path}/mine.py:Own").__name__ == "Own"
    with pytest.raises(ConfigError, match="Owm"):
        find("loss", f"{tmp_path}/mine.py:Owm")
    with pytest.raises(ConfigError, match="no Python file"):
        find("loss", f"{tmp_path}/other.py:Own")


def test_a_call_knows_its_own_folder_beside_a_relative_path(tmp_path, monkeypatch):
    """Python 3.12 makes the names of temporary folders absolute: a call took its own for that of another."""
    monkeypatch.chdir(tmp_path)
    made = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **options: os.path.abspath(made(**options)))
    with scratch(Path("map.tif")) as folder:
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())
