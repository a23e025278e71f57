"""All verbs speak alike: --json and --quiet everywhere, one JSON document on stdout, no colours in a pipe."""

import io
import json
import re
import sys

import numpy as np
import pytest
import typer

from covermap.cli import app, show
from covermap.core.table import Table, Within

EXCEPTIONS = {
    "completion": {"--json", "--quiet"},  # what it prints is for a shell to read
    "schema": {"--json", "--quiet"},  # what it prints is JSON, and there is nothing to leave out
}
"""Verbs that lack an option, and why."""


def verbs():
    """(name, command) of all that can be called."""
    root = typer.main.get_command(app)

    def walk(command, name):
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            for key, each in inner.items():
                yield from walk(each, f"{name} {key}".strip())

    return list(walk(root, ""))


@pytest.mark.parametrize(("name", "command"), verbs(), ids=[name for name, _ in verbs()])
def test_every_verb_has_json_and_quiet(name, command):
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--quiet"} - options == EXCEPTIONS.get(name, set())


def test_all_verbs_are_known_here():
    assert len(verbs()) > 40
    assert set(EXCEPTIONS) <= {name for name, _ in verbs()}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """terminal(columns) -> where stdout goes, as a terminal of this width with colours."""

    def make(columns):
        made = Terminal()
        monkeypatch.setattr(sys, "stdout", made)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return made

    return make


WIDE = Table(
    ["class", *(f"number {n}" for n in range(12)), "a sentence"],
    [
        [f"[red]class {n}", *(1_234_567.0 * (n + 1) + i for i in range(12)), "some words that can be folded " * 3]
        for n in range(3)
    ],
    "Numbers [of] all",
)


@pytest.mark.parametrize("columns", [20, 40, 80, 132])
def test_a_narrow_terminal_cuts_no_number(terminal, columns):
    out = terminal(columns)
    show.draw(WIDE)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    for row in WIDE.cells:
        for cell in row[:-1]:
            assert cell in text or all(word in text for word in cell.split())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= max(columns, 26)


def test_intervals_stay_whole_too(terminal):
    out = terminal(30)
    show.draw(Table(["class", "area", "other"], [["wood", Within(1234567.8, 12.5), Within(1.0, 0.5)]]))
    assert "1,234,567.8 ± 12.5" in out.getvalue()


def test_a_wide_terminal_has_one_table_and_a_pipe_no_escapes(terminal, capsys):
    show.draw(WIDE)
    piped = capsys.readouterr().out
    assert piped == f"{WIDE}\n"
    assert "\x1b" not in piped
    assert "[red]class 2" in piped  # a name is no markup
    out = terminal(400)
    show.draw(WIDE)
    assert out.getvalue().count("a sentence") == 1
    assert "[red]class 2" in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def test_no_color_is_honoured(terminal, monkeypatch):
    out = terminal(80)
    monkeypatch.setenv("NO_COLOR", "1")
    show.draw(WIDE)
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|4[0-7]|48|9[0-7])", out.getvalue())


def test_progress_into_a_file_is_a_line_now_and_then(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    show.reset()
    with show.progress("reading") as tick:
        for done in range(1, 8):
            tick(done, 1000)
        tick(1, 5)  # the next of several works
        tick(2, 5)
        tick(3, 5)
    found = capsys.readouterr()
    assert found.out == ""
    assert "\x1b" not in found.err
    assert found.err.splitlines()[0] == "reading: 3 of 1,000, about 5 h 32 min left"
    assert found.err.splitlines()[-1] == "reading: 3 of 5, about 40 s left"
    assert len(found.err.splitlines()) == 4


def test_progress_in_a_terminal_is_a_bar_on_stderr_and_quiet_has_none(monkeypatch, capsys):
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    show.reset()
    with show.progress("reading") as tick:
        tick(1, 2)
    assert "reading" in made.getvalue()
    assert capsys.readouterr().out == ""
    made.truncate(0)
    with show.progress("reading", quiet=True) as tick:
        tick(1, 2)
    assert "reading" not in made.getvalue()


# What verbs print as JSON is what they print as a table.


def values(found):
    """All numbers in a JSON document."""
    if isinstance(found, dict):
        return [v for each in found.values() for v in values(each)]
    if isinstance(found, list):
        return [v for each in found for v in values(each)]
    if isinstance(found, str):
        return [float(word.replace(",", "")) for word in re.findall(r"-?\d[\d,]*(?:\.\d+)?", found)]
    return [float(found)] if isinstance(found, int | float) and not isinstance(found, bool) else []


def same_numbers(text, found, *, least, scale=(1.0, 100.0)):
    """Every number with a fraction in the tables is one of the document, rounded as it is printed."""
    known = values(found)
    shown = [word for line in text.splitlines() if not line.startswith(("note:", "wrote")) for word in
             re.findall(r"(?<![\w./])-?\d[\d,]*\.\d+(?![\w.])", line)]  # fmt: skip
    assert len(shown) >= least, text
    for word in shown:
        digits = len(word.partition(".")[2])
        value = float(word.replace(",", ""))
        assert any(abs(value - factor * one) <= 0.51 * 10**-digits for one in known for factor in scale), (word, text)


@pytest.fixture
def maps(write_tif):
    """Two maps of three classes that differ in places, 60 x 80 px."""
    rng = np.random.default_rng(1)
    one = rng.integers(1, 4, (6, 8)).repeat(10, 0).repeat(10, 1).astype(np.uint8)
    two = one.copy()
    two[:20, :30] = 2
    legend = {1: "field", 2: "water", 3: "[red]town"}
    import rasterio

    from covermap.core.legend import load_legend

    found = []
    for name, codes in (("a.tif", one), ("b.tif", two)):
        path = write_tif(name, codes, nodata=0, bands=["land_cover"])
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(COVERMAP_LEGEND=json.dumps(load_legend(legend).to_dict()))
        found.append(path)
    return found


def both(covermap, *arguments, overwrite=True):
    """The text and the JSON of one command; neither has anything else on stdout."""
    more = ["--overwrite"] if overwrite else []
    code, text, err = covermap(*arguments, *more)
    assert code == 0, err
    code, out, err = covermap(*arguments, "--json", *more)
    assert code == 0, err
    assert "\x1b" not in text + out
    return text, json.loads(out)


def quiet(covermap, *arguments):
    code, out, err = covermap(*arguments, "--quiet")
    assert code == 0, err
    assert err == ""
    assert "note:" not in out
    return out


def test_change_compare_assess_and_sample_print_the_numbers_of_their_json(covermap, maps, tmp_path):
    a, b = maps
    text, found = both(covermap, "change", a, b, tmp_path / "change.tif")
    same_numbers(text, found, least=20)
    assert "[red]town" in text
    out = quiet(covermap, "change", a, b, tmp_path / "quiet.tif")
    assert str(tmp_path / "quiet.tif") in out.splitlines()  # a path a line
    text, found = both(covermap, "compare", a, b, overwrite=False)
    same_numbers(text, found, least=12)
    assert "note:" in text
    quiet(covermap, "compare", a, b)
    points = tmp_path / "points.csv"
    text, found = both(covermap, "sample", a, points, "--num", 60, "--floor", 10)
    same_numbers(text, found, least=3)
    import pandas as pd

    table = pd.read_csv(points)
    table["reference"] = table.get("stratum", 1)
    table.loc[::7, "reference"] = 2
    table.to_csv(points, index=False)
    text, found = both(covermap, "assess", a, points, overwrite=False)
    same_numbers(text, found, least=15)
    quiet(covermap, "assess", a, points)
    text, found = both(covermap, "rank", a, tmp_path / "places.csv", "--class", "water", "--side", 20)
    same_numbers(text, found, least=5)


def test_a_notebook_shows_the_table_that_the_terminal_prints(covermap, maps, tmp_path):
    from covermap.verbs.assess import assess

    points = tmp_path / "points.csv"
    covermap("sample", maps[0], points, "--num", 60, "--floor", 10)
    import pandas as pd

    table = pd.read_csv(points)
    table["reference"] = 2
    table.to_csv(points, index=False)
    found = assess(maps[0], points)
    _, text, _ = covermap("assess", maps[0], points)
    for each in found.tables:
        assert str(each) in text
        assert each._repr_html_() in found._repr_html_()
    assert found.sentence in text
    frame = found.table.to_pandas()
    assert frame["mapped ha"].tolist() == [row["mapped_ha"] for row in found["areas"]]
    assert "[red]town" in frame["class"].tolist()


def test_looks_at_files_models_and_legends_agree_with_their_json(covermap, maps):
    text, found = both(covermap, "info", maps[0], overwrite=False)
    assert len(found["classes"]) == 3
    same_numbers(text, found, least=1)
    for arguments in (["legend", "list"], ["legend", "show", "ipcc"], ["models", "list"], ["legend", "colours", "corine"],
                      ["models", "show", "unet"], ["legend", "crosswalk", "corine", "ipcc"], ["doctor"]):  # fmt: skip
        code, text, err = covermap(*arguments)
        assert code in (0, 1), err
        _, out, _ = covermap(*arguments, "--json")
        json.loads(out)
        assert covermap(*arguments, "--quiet")[1] == text or arguments == ["doctor"]
    _, out, _ = covermap("legend", "show", "ipcc", "--json")
    _, text, _ = covermap("legend", "show", "ipcc")
    for one in json.loads(out)["classes"]:
        assert one["name"] in text
        assert str(one["code"]) in text


def test_what_writes_files_names_them(covermap, tmp_path, tiny):
    code, out, err = covermap("legend", "convert", "ipcc", tmp_path / "ipcc.qml", "--json")
    assert code == 0, err
    assert json.loads(out)["file"] == str(tmp_path / "ipcc.qml")
    config = tmp_path / "c.yaml"
    code, out, err = covermap("init", tiny["data"]["image"], tiny["data"]["labels"], "-o", config, "--json")
    assert code == 0, err
    assert json.loads(out)["out"] == str(config)
    assert (
        covermap("init", tiny["data"]["image"], tiny["data"]["labels"], "-o", config, "-q", "--overwrite")[1]
        == f"{config}\n"
    )
    image = tmp_path / "aligned.tif"
    code, out, err = covermap("prepare", tiny["data"]["image"], image, "--json")
    assert code == 0, err
    assert json.loads(out)["out"] == str(image)
    assert covermap("prepare", tiny["data"]["image"], image, "-q", "--overwrite")[1] == f"{image}\n"


def test_a_run_speaks_json_from_check_to_report(covermap, tiny, tmp_path):
    import yaml

    config = tmp_path / "covermap.yaml"
    config.write_text(yaml.safe_dump(tiny))
    text, found = both(covermap, "check", config, overwrite=False)
    assert found["scenes"] is not None
    for row in found["classes"]:
        assert row["class"] in text
    code, out, err = covermap("train", config, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["classes"] == found["classes"]
    run = quiet(covermap, "train", config).strip()
    text, found = both(covermap, "evaluate", run, overwrite=False)
    same_numbers(text, found, least=10)
    code, out, err = covermap("evaluate", run, "--quiet")
    assert err == ""
    code, out, err = covermap("report", run, "--json")
    assert code == 0, err
    assert json.loads(out)["report"].endswith("report.html")
    from covermap import Run

    opened = Run.open(run)
    assert str(opened.scores().table) in text
    html = opened._repr_html_()
    assert opened.scores().sentence.split("%")[0].replace("\N{NO-BREAK SPACE}", "")[:20] in html
    assert "network" in html


def test_quiet_is_forgotten_by_the_next_verb(covermap, maps):
    covermap("compare", *maps, "--quiet")
    assert "note:" in covermap("compare", *maps)[1]
    covermap("compare", *maps, "--json")
    assert "note:" in covermap("compare", *maps)[1]
