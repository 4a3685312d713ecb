"""The report's page: whole, self-contained, escaped, and honest about what it was given."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recipe.analysis import report
from recipe.analysis.live import keep_rendering
from recipe.analysis.runs import load_runs

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Collects ids, references, elements and visible text; fails on elements left open."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.elements: list[str] = []
        self.text: list[str] = []
        self.labels: list[str | None] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._collect(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._collect(tag, attrs)

    def _collect(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        named = dict(attrs)
        if named.get("role") == "img":
            self.labels.append(named.get("aria-label"))
        if named.get("id"):
            self.ids.append(str(named["id"]))
        for key in ("href", "src", "xlink:href"):
            if named.get(key):
                self.references.append(str(named[key]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def reported(
    two_seeds_of_three_arms: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Reader]:
    """A report drawn once, for all tests that only look at it."""
    out = tmp_path_factory.mktemp("report")
    report.write_report(load_runs([two_seeds_of_three_arms]), out, pictures=False, refresh_s=7)
    return out, read(out / "report.html")


def test_the_page_needs_nothing_but_itself(reported: tuple[Path, Reader]) -> None:
    out, reader = reported
    assert "script" not in reader.elements and "img" not in reader.elements
    inside = [name for name in reader.references if name.startswith("#")]
    assert {name[1:] for name in inside} <= set(reader.ids)
    beside = set(reader.references) - set(inside)
    assert beside == {path.name for path in out.iterdir()} - {"report.html"}
    text = (out / "report.html").read_text()
    assert re.findall(r"url\((?!#)|@import", text) == []
    assert "default-src 'none'" in text


def test_ids_are_unique_over_all_figures(reported: tuple[Path, Reader]) -> None:
    ids = reported[1].ids
    assert len(ids) == len(set(ids))


def test_every_figure_says_in_words_what_it_shows(reported: tuple[Path, Reader]) -> None:
    labels = reported[1].labels
    assert len(labels) == reported[1].elements.count("figure") > 10
    assert all(label and len(label) > 20 for label in labels)
    assert any("dynamic (sft) from" in str(label) for label in labels)


def test_every_colour_of_a_figure_is_a_variable_of_both_themes(
    reported: tuple[Path, Reader],
) -> None:
    text = (reported[0] / "report.html").read_text()
    style, body = text.split("</style>")
    light, dark = style.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    assert {"ink", "arm-none", "part-9"} <= used
    for theme in (light, dark):
        assert used <= set(re.findall(r"--([\w-]+):", theme))
    assert "#fe00" not in text
    assert re.findall(r"(?:fill|stroke): #(?!0000)\w+", body) == []


def test_seeds_are_aggregated_and_the_page_says_how(reported: tuple[Path, Reader]) -> None:
    text = " ".join(reported[1].text)
    assert "2 runs per arm; line: mean; band: min to max" in text
    assert "6 runs · 3 arms · all finished" in text


def test_a_live_page_reloads_itself_and_a_finished_one_stays(
    reported: tuple[Path, Reader], abused: tuple[Path, list[str]]
) -> None:
    reload = '<meta http-equiv="refresh" content="7">'
    assert reload in (reported[0] / "report.html").read_text()
    assert "refresh" not in (abused[0] / "report.html").read_text()


def test_while_there_is_no_run_yet_the_live_mode_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keep_rendering, "__defaults__", (0.0, interrupt))
    assert report.main([str(tmp_path), "--out", str(tmp_path / "out"), "--live"]) == 1
    said = capsys.readouterr()
    assert "no run yet" in said.out and "no runs to read" in said.err


def test_the_edit_is_marked_in_both_texts(reported: tuple[Path, Reader]) -> None:
    elements = reported[1].elements
    assert "del" in elements and "ins" in elements


HOSTILE = "</pre><script>alert(1)</script>\u202eevil\ud800\x07&amp;"


@pytest.fixture(scope="module")
def abused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Runs in every bad state, reported by the command: its folder, and the lines on stderr."""
    root = tmp_path_factory.mktemp("abused")
    tokens = ["x", HOSTILE]
    episode = {
        **{"step": 1, "problem_id": HOSTILE, "prompt": HOSTILE, "verdict": HOSTILE},
        **{"refined_verdict": "accepted", "answer": f"x{HOSTILE}", "refined": f"y{HOSTILE}"},
        **{"answer_tokens": tokens, "refined_tokens": ["y", HOSTILE], "copied": [0, 1]},
        **{"ce": [3.0, 0.1], "reward": -1.0, "refined_reward": 1.0},
        **{"accepted": True, "verbatim": False},
    }
    files = {
        "hostile/run.json": json.dumps({"arm": HOSTILE, "setting": HOSTILE, "total_steps": 9}),
        "hostile/metrics.jsonl": '{"step": 1, "data": {"critic/score/mean": 0.5}}\n{"step": 2, "da',
        "hostile/episodes.jsonl": json.dumps(episode) + "\n[1]\n{}\n",
        "hostile/config.yaml": "constraint: [unclosed\n",
        "huge/metrics.jsonl": "".join(
            json.dumps({"step": step, "data": {"critic/score/mean": value}}) + "\n"
            for step, value in enumerate((1e308, -1e308, 0.0, 1.0))
        ),
        "empty/run.json": "",
        "odd/run.json": '{"arm": null, "seed": "two", "lambda": "big", "total_steps": -1}',
        "odd/episodes.jsonl": '{"step": 1, "accepted": true, "verbatim": false, "copied": [1]}\n',
    }
    for name, content in files.items():
        (root / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "runs" / name).write_text(content)
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(
            "sys.stderr", type("Said", (), {"write": lambda _, text: said.append(text)})()
        )
        arguments = [str(root / "runs"), str(root / "gone"), "--out", str(root / "out")]
        assert report.main([*arguments, "--page-only"]) == 0
    return root / "out", "".join(said).splitlines()


def test_what_a_model_wrote_is_shown_and_never_obeyed(abused: tuple[Path, list[str]]) -> None:
    reader = read(abused[0] / "report.html")
    assert "script" not in reader.elements
    text = "".join(reader.text)
    assert "</pre><script>alert(1)</script>\ufffdevil\ufffd\ufffd&amp;" in text
    assert "\u202e" not in "".join(text.split("Prompt")[1:3])


@pytest.mark.parametrize(
    "problem",
    [
        "gone: does not exist",
        "empty/run.json: not a JSON object; ignored",
        "empty/metrics.jsonl: missing: no curves from this run",
        "hostile/metrics.jsonl: line 2: torn last line, as a killed run leaves it; ignored",
        "hostile/episodes.jsonl: line 2: not a JSON object; ignored",
        "hostile/episodes.jsonl: line 3: episode without step, accepted and verbatim; ignored",
        "hostile: has reached step 1 of 9; its figures speak of those steps",
        "hostile/config.yaml: is not readable YAML: configuration unknown",
        "odd/episodes.jsonl: line 1: copied does not fit the refined tokens; CE not used",
        "all runs: they end at different steps (1, 3)",
    ],
)
def test_what_was_worked_around_is_on_the_page_and_on_stderr(
    abused: tuple[Path, list[str]], problem: str
) -> None:
    out, said = abused
    path, _, message = problem.partition(": ")
    for lines in (said, read(out / "report.html").text):
        assert [line for line in lines if line.endswith(f": {message}") and path in line]


def test_without_any_run_the_command_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([str(tmp_path / "absent"), "--out", str(tmp_path / "out")]) == 1
    assert "absent: does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "file").write_text("")
    assert report.main([str(tmp_path), "--out", str(tmp_path / "file"), "--page-only"]) == 1
    assert f"--out {tmp_path / 'file'}: cannot write there" in capsys.readouterr().err
