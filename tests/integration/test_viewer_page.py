"""The viewer in a real browser: search, order, filters, slider, keys, side by side, live, phone,
dark, and content that tries to run.

Needs no Ray, verl or vLLM; skipped where no Chromium is installed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from matplotlib.image import imread

HERE = Path(__file__).resolve().parent
HOSTILE = "</pre><script>window.ran = 1</script><img src=x onerror='window.ran = 2'>\"'"
WAIT_S = 60.0


def load(name: str) -> ModuleType:
    """A script beside this one, as a module; tests are no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


browse = load("browse")
CHROMIUM = browse.find_chromium()
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason=f"none of {', '.join(browse.NAMES)} is installed"
)
DESKTOP = browse.Look(1280, 900, "light")
PHONE = browse.Look(390, 844, "light")


def episode(step: int, number: int, **changes: Any) -> dict[str, Any]:
    """A refined rollout of one of three problems; its gain and its CE grow with its number."""
    answer, refined = ["x", " =", f" {number}", "\n", "y"], ["x", " =", " 7", "\n", "y", " needle"]
    if number % 2:
        refined = refined[:-1]
    return {
        "step": step, "uid": f"{step}-{number % 3}", "problem_id": f"p{number % 3}",
        "prompt": f"Set x to seven, problem {number % 3}.", "answer": "".join(answer),
        "refined": "".join(refined), "answer_tokens": answer, "refined_tokens": refined,
        "copied": [1, 1, 0, 1, 1, 0][: len(refined)], "ce": [0.1 * number] * len(refined),
        "entropy": [0.3] * len(answer), "advantage": [-1.0, 0.0, 1.0, 0.5, -0.5],
        "reward": -1.0, "refined_reward": number / 10, "accepted": True, "verbatim": False,
        "verdict": "wrong_answer" if number % 2 else "runtime_error",
        "refined_verdict": "accepted",
    } | changes  # fmt: skip


@dataclass
class Viewed:
    """A viewer that runs, with the browser that looks at it."""

    url: str
    runs: Path
    browser: Any

    def open(self, address: str = "/?run=runs/first", look: Any = DESKTOP) -> None:
        self.browser.open(self.url + address, look)

    def value(self, expression: str) -> Any:
        return self.browser.value(expression)

    def rows(self, column: str) -> list[str]:
        cells = f"[...document.querySelectorAll('td[data-label=\"{column}\"]')]"
        return self.value(f"{cells}.map(cell => cell.textContent)")

    def wait_for(self, expression: str) -> None:
        """Until an expression is true on the page; what is waited for is bounded, not timed."""
        deadline = time.monotonic() + WAIT_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewed]:
    folder = tmp_path_factory.mktemp("viewer")
    runs = folder / "runs"
    contents = {
        "first": [episode(step, number) for step in (1, 2, 3) for number in range(6)],
        "second": [episode(3, number, reward=-0.5) for number in range(6)],
        "<b>third": [
            episode(1, 0, prompt=HOSTILE, answer=HOSTILE, refined=HOSTILE, problem_id=HOSTILE,
                    answer_tokens=[HOSTILE], refined_tokens=[HOSTILE], copied=[0], ce=[1.0],
                    verdict=HOSTILE, uid=HOSTILE)
        ],
    }  # fmt: skip
    for name, records in contents.items():
        (runs / name).mkdir(parents=True)
        text = "".join(json.dumps(record) + "\n" for record in records)
        (runs / name / "episodes.jsonl").write_text(text)
    command = [sys.executable, "-m", "recipe.analysis.view", str(runs), "--port", "0"]
    command += ["--cache", str(folder / "cache")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            line = server.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert address, line
            with browse.Browser(CHROMIUM, folder / "profile") as browser:
                found = Viewed(address.group(), runs, browser)
                found.open()
                state = "fetch('/state?run=runs/first').then(r => r.json())"
                found.value(f"setInterval(() => {state}.then(s => window.s = s), 200)")
                found.wait_for("window.s && window.s.episodes === 18")
                yield found
        finally:
            server.terminate()


def test_the_first_page_groups_rollouts_by_prompt(viewed: Viewed) -> None:
    viewed.open()
    assert viewed.value("document.querySelectorAll('section.group').length") == 9
    assert len(viewed.rows("gain")) == 18


def test_typing_a_search_and_enter_leaves_what_holds_the_words(viewed: Viewed) -> None:
    viewed.open()
    viewed.browser.press("/")
    for key in "needle":
        viewed.browser.press(key)
    viewed.browser.press("Enter", loads=True)
    assert len(viewed.rows("gain")) == 9
    assert "q=needle" in viewed.value("location.search")


def test_an_order_chosen_is_the_order_shown(viewed: Viewed) -> None:
    viewed.open()
    choose = "const s = document.querySelector('[name=sort]'); s.value = 'gain';"
    viewed.browser.do(choose + "s.dispatchEvent(new Event('change', {bubbles: true}))")
    gains = [float(text) for text in viewed.rows("gain")]
    assert len(gains) == 18 and gains == sorted(gains, reverse=True)


def test_a_filter_chosen_filters(viewed: Viewed) -> None:
    viewed.open()
    choose = "const s = document.querySelector('[name=verdict]'); s.value = 'wrong_answer';"
    viewed.browser.do(choose + "s.dispatchEvent(new Event('change', {bubbles: true}))")
    assert len(viewed.rows("gain")) == 9


def test_the_slider_and_its_keys_go_through_the_steps(viewed: Viewed) -> None:
    viewed.open()
    viewed.browser.press("]", loads=True)
    assert viewed.value("document.getElementById('step-value').textContent") == "1"
    assert len(viewed.rows("gain")) == 6
    slide = "const s = document.querySelector('[name=step]'); s.value = 3;"
    slide += "s.dispatchEvent(new Event('input', {bubbles: true}));"
    viewed.browser.do(slide + "s.dispatchEvent(new Event('change', {bubbles: true}))")
    assert "step=3" in viewed.value("location.search")
    viewed.browser.press("[", loads=True)
    viewed.browser.press("[", loads=True)
    viewed.browser.press("[", loads=True)
    assert viewed.value("document.getElementById('step-value').textContent") == "all"


def test_rollouts_are_reached_opened_and_gone_through_by_keys(viewed: Viewed) -> None:
    viewed.open("/?run=runs/first&sort=gain")
    viewed.browser.press("j")
    viewed.browser.press("j")
    viewed.browser.press("Enter", loads=True)
    second = viewed.value("location.search")
    viewed.browser.press("k", loads=True)
    assert viewed.value("location.search") != second
    viewed.browser.press("j", loads=True)
    assert viewed.value("location.search") == second
    viewed.browser.press("u", loads=True)
    assert viewed.value("location.search") == "?run=runs%2Ffirst&sort=gain"


def test_the_numbers_of_tokens_are_told_by_keys(viewed: Viewed) -> None:
    viewed.open("/?run=runs/first&sort=gain")
    viewed.browser.do("document.querySelector('a.open').click()")
    viewed.value("document.querySelectorAll('pre.tokens')[1].focus()")
    for _ in range(3):
        viewed.browser.press("ArrowRight")
    said = viewed.value("document.getElementById('token').textContent")
    assert said == "␣7  (token 3 of 5, new in a′): CE, teacher-forced 0.5 nats"
    viewed.value("document.querySelectorAll('pre.tokens')[0].focus()")
    viewed.browser.press("ArrowRight")
    said = viewed.value("document.getElementById('token').textContent")
    assert "advantage −1; entropy 0.3 nats" in said


def test_a_pointer_over_a_token_tells_its_number(viewed: Viewed) -> None:
    viewed.open("/?run=runs/first&sort=gain")
    viewed.browser.do("document.querySelector('a.open').click()")
    box = viewed.value(
        "(() => { const b = document.querySelectorAll('pre.tokens')[1]"
        ".querySelector('.t').getBoundingClientRect(); return [b.x + b.width / 2, b.y + 5]; })()"
    )
    viewed.browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
    viewed.wait_for("document.getElementById('token').textContent.includes('CE, teacher-forced')")


@pytest.mark.parametrize("colour", ["teacher_forcing", "advantage", "entropy"])
def test_tokens_have_the_colour_of_their_number(viewed: Viewed, colour: str) -> None:
    viewed.open("/?run=runs/first&sort=gain")
    viewed.browser.do("document.querySelector('a.open').click()")
    viewed.open(viewed.value("location.pathname + location.search") + f"&colour={colour}")
    colours = viewed.value(
        "[...new Set([...document.querySelectorAll('.t')]"
        ".map(token => getComputedStyle(token).backgroundColor))]"
    )
    assert len(colours) > 1


def test_two_runs_stand_side_by_side_and_each_slider_moves_its_own(viewed: Viewed) -> None:
    query = "problem=p1&left_run=runs/first&left_step=1&right_run=runs/second&right_step=3"
    viewed.open(f"/compare?{query}")
    titles = "[...document.querySelectorAll('.column h2')].map(title => title.textContent)"
    assert viewed.value(titles) == ["runs/first, step 1", "runs/second, step 3"]
    slide = "const s = document.querySelector('[name=left_step]'); s.value = 2;"
    viewed.browser.do(slide + "s.dispatchEvent(new Event('change', {bubbles: true}))")
    assert viewed.value(titles) == ["runs/first, step 2", "runs/second, step 3"]
    left, right = viewed.value(
        "[...document.querySelectorAll('.column')].map(c => c.getBoundingClientRect().x)"
    )
    assert left < right


@pytest.mark.parametrize("look", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", ["list", "episode", "compare"])
def test_nothing_is_wider_than_the_window_and_every_field_has_a_name(
    viewed: Viewed, page: str, look: Any
) -> None:
    address = "/?run=runs/first"
    if page == "compare":
        address = "/compare?problem=p1&left_run=runs/first&right_run=runs/second&right_step=3"
    viewed.open(address, look)
    if page == "episode":
        viewed.browser.do("document.querySelector('a.open').click()")
    assert viewed.value("document.documentElement.scrollWidth <= window.innerWidth")
    nameless = (
        "[...document.querySelectorAll('input:not([type=hidden]), select, [tabindex], pre')]"
        ".filter(e => !e.closest('label') && !e.getAttribute('aria-label')).map(e => e.outerHTML)"
    )
    assert viewed.value(nameless) == []


def test_a_phone_shows_every_column(viewed: Viewed) -> None:
    viewed.open("/?run=runs/first&sort=gain", PHONE)
    outside = (
        "[...document.querySelectorAll('tbody tr:first-child td')].filter(cell => {"
        "const b = cell.getBoundingClientRect(); return !b.width || b.right > innerWidth; }).length"
    )
    assert viewed.value(outside) == 0
    assert viewed.value("document.querySelectorAll('tbody tr:first-child td').length") == 10


def test_dark_is_dark_and_light_is_light(viewed: Viewed, tmp_path: Path) -> None:
    light, dark = (tmp_path / f"{scheme}.png" for scheme in ("light", "dark"))
    for path in (light, dark):
        viewed.open(look=browse.Look(1280, 900, path.stem))
        viewed.browser.screenshot(path)
    assert imread(light)[..., :3].mean() > 0.85 and imread(dark)[..., :3].mean() < 0.25


def test_nothing_that_a_model_or_a_folder_says_is_run(viewed: Viewed) -> None:
    viewed.open("/?run=runs%2F%3Cb%3Ethird")
    assert viewed.value("window.ran") is None
    assert viewed.value("document.querySelectorAll('b, img').length") == 0
    viewed.browser.do("document.querySelector('a.open').click()")
    assert "window.ran" in viewed.value("document.body.textContent")
    viewed.browser.do("document.querySelector('form.inline button').click()")
    viewed.wait_for("document.querySelectorAll('article').length === 2")
    assert viewed.value("window.ran") is None
    assert viewed.value("document.querySelectorAll('img').length") == 0


def test_what_the_run_gains_is_announced_and_shown_when_asked_for(viewed: Viewed) -> None:
    viewed.open("/?run=runs/second")
    before = len(viewed.rows("gain"))
    with (viewed.runs / "second" / "episodes.jsonl").open("a") as file:
        file.write(json.dumps(episode(4, 0)) + "\n")
    viewed.wait_for("document.querySelector('#more a') !== null")
    assert viewed.value("document.getElementById('more').textContent") == "Show 1 more."
    viewed.browser.do("document.querySelector('#more a').click()")
    assert len(viewed.rows("gain")) == before + 1


def test_no_page_loads_anything_from_elsewhere(viewed: Viewed) -> None:
    viewed.open()
    loaded = viewed.value("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded and all(name.startswith(viewed.url) for name in loaded)
