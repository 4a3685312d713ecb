"""The viewer's pages over HTTP: search, order, filters, tokens, comparisons, hostile content."""

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from recipe.analysis.viewer.app import create_app
from recipe.analysis.viewer.library import Library
from recipe.analysis.viewer.pages import list_page, neighbour
from recipe.analysis.viewer.query import SORTS, Question, match_expression

MakeEpisode = Callable[..., dict[str, Any]]
HOSTILE = "</pre><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e"


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}


def tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


@pytest.fixture
def library(tmp_path: Path, new_episode: MakeEpisode) -> Library:
    """A run of two steps with four rollouts each of two prompts, and one of hostile content."""
    records = []
    for step in (1, 2):
        for number in range(4):
            answer = f"def solve(x): return x {'+' * (number + 1)} {number}"
            refined = answer.replace("return", "yield") if number else answer
            new = [int(a == b) for a, b in zip(tokens(answer), tokens(refined), strict=True)]
            records.append(
                new_episode(
                    step=step,
                    uid=f"{step}-{number // 2}",
                    problem_id=f"p{number // 2}",
                    answer=answer,
                    refined=refined,
                    answer_tokens=tokens(answer),
                    refined_tokens=tokens(refined),
                    copied=new,
                    ce=[number + 0.5] * len(new) if number else None,
                    refined_reward=-0.3 + number / 10,
                    verbatim=not number,
                    accepted=bool(number),
                    entropy=[0.1 * index for index in range(len(new))] if step == 2 else None,
                    advantage=-1.5,
                )
            )
    hostile = new_episode(
        prompt=HOSTILE, answer=HOSTILE, refined=HOSTILE, problem_id=HOSTILE, verdict=HOSTILE,
        answer_tokens=[HOSTILE, "x"], refined_tokens=["y", HOSTILE], copied=[0, 1], ce=[9.0, 0.1],
        uid=HOSTILE,
    )  # fmt: skip
    for name, lines in (("good", records), ("<i>bad", [hostile])):
        (tmp_path / "runs" / name).mkdir(parents=True)
        text = "".join(json.dumps(record) + "\n" for record in lines)
        (tmp_path / "runs" / name / "episodes.jsonl").write_text(text)
    (tmp_path / "cache").mkdir()
    found = Library([tmp_path / "runs"], tmp_path / "cache")
    found.find()
    found.update()
    return found


@pytest.fixture
def client(library: Library) -> Iterator[TestClient]:
    with TestClient(create_app(library), base_url="http://127.0.0.1") as made:
        yield made


def listed(library: Library, **changes: Any) -> list[tuple[int, str, float | None]]:
    question = Question(run="runs/good", **changes)
    listing = list_page(library["runs/good"], question)
    return [(row["step"], row["problem"], row["gain"]) for group in listing.groups for row in group]


def test_rollouts_stand_in_the_groups_of_their_prompts(library: Library) -> None:
    listing = list_page(library["runs/good"], Question())
    assert [len(group) for group in listing.groups] == [2, 2, 2, 2]
    assert listing.total == 8 and listing.pages == 1


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"step": 2}, 4),
        ({"problem": "p1"}, 4),
        ({"outcome": "verbatim"}, 2),
        ({"accepted": "no"}, 2),
        ({"verdict": "wrong_answer", "refined_verdict": "accepted"}, 8),
        ({"verdict": "runtime_error"}, 0),
        ({"q": "yield"}, 6),
        ({"q": "yie"}, 6),
        ({"q": '"yie"'}, 0),
        ({"q": "solve(x)"}, 8),
        ({"q": '"return x"'}, 8),
        ({"q": '"return x" absent'}, 0),
        ({"q": "yield 17"}, 6),
        ({"q": "yield", "step": 1, "problem": "p0"}, 1),
        ({"q": "+++"}, 8),
        ({"q": 'x" OR "y* NEAR(a b) -'}, 0),
    ],
)
def test_filters_and_search_leave_what_fits(
    library: Library, changes: dict[str, Any], count: int
) -> None:
    assert len(listed(library, **changes)) == count


def test_a_term_without_a_word_is_named_as_not_searched_for() -> None:
    assert match_expression('+++ "== x" foo*bar') == ('"== x" "foo*bar"*', ["+++"])


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("sort", [key for key in SORTS if key])
def test_an_order_holds_all_rollouts_by_value_and_those_without_one_last(
    library: Library, sort: str, up: bool
) -> None:
    index = library["runs/good"]
    listing = list_page(index, Question(sort=sort, up=up))
    values = [row[sort] for row in listing.groups[0]]
    known = [value for value in values if value is not None]
    assert len(values) == 8
    assert known == sorted(known, reverse=not up)
    assert values[len(known) :] == [None] * (8 - len(known))


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("sort", list(SORTS))
def test_next_and_previous_go_through_the_whole_list(library: Library, sort: str, up: bool) -> None:
    index, question = library["runs/good"], Question(sort=sort, up=up, q="solve")
    rows = [row for group in list_page(index, question).groups for row in group]
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        found = neighbour(index, row, question, forward=True)
        assert (found and found["id"]) == (following and following["id"])
        if following is not None:
            back = neighbour(index, following, question, forward=False)
            assert back is not None and back["id"] == row["id"]


def test_an_address_holds_the_whole_question() -> None:
    question = Question("a/b", 3, "p&q", "improved", "", "accepted", "yes", '"a b"', "ce", True, 2)
    pairs = dict(re.findall(r"(\w+)=([^&]*)", question.parameters()))
    client = TestClient(create_app(Library([], Path())))
    values = client.build_request("GET", f"/?{question.parameters()}").url.params
    assert Question.read(values) == question
    assert "verdict" not in pairs


@pytest.mark.parametrize(
    "query",
    ["step=x", "page=-4", "sort=id;drop", "accepted=perhaps", "step=9" + "9" * 30, "page=9" * 9],
)
def test_an_address_without_sense_is_a_list_all_the_same(client: TestClient, query: str) -> None:
    assert client.get(f"/?run=runs/good&{query}").status_code == 200


def first_link(text: str) -> str:
    match = re.search(r'class="open" href="([^"]+)"', text)
    assert match
    return match.group(1).replace("&amp;", "&")


def test_a_rollout_has_an_address_of_its_own_that_does_not_depend_on_the_index(
    client: TestClient, library: Library
) -> None:
    link = first_link(client.get("/?run=runs/good&sort=gain").text)
    before = client.get(link).text
    for name in library.names:
        library[name].query("SELECT 1")
        with library[name].connect() as connection:
            connection.execute("DELETE FROM marks")
            connection.execute("DELETE FROM episodes")
    library.update()
    assert client.get(link).text == before


@pytest.mark.parametrize(
    ("colour", "words", "style"),
    [
        ("teacher_forcing", "CE, teacher-forced 3.5 nats", "h20"),
        ("advantage", "advantage −1.5", "n10"),
        ("entropy", "entropy 0.4 nats", "h8"),
    ],
)
def test_tokens_are_coloured_by_the_reading_that_was_chosen(
    client: TestClient, colour: str, words: str, style: str
) -> None:
    link = first_link(client.get("/?run=runs/good&step=2&sort=gain").text)
    text = client.get(f"{link}&colour={colour}").text
    assert re.search(rf'class="t {style}" data-v="[^"]*{re.escape(words)}', text)
    assert re.search(rf'colour={colour}" aria-current="true"', text)


def test_a_reading_that_was_not_logged_is_said_to_be_absent(client: TestClient) -> None:
    text = client.get(first_link(client.get("/?run=runs/good&step=1").text)).text
    assert "CE, self-fed (not logged for this episode)" in text
    assert "entropy (not logged for this episode)" in text


def test_edits_are_marked_in_both_texts(client: TestClient) -> None:
    text = client.get(first_link(client.get("/?run=runs/good&sort=gain").text)).text
    assert re.search(r"<del [^>]*> return</del>", text)
    assert re.search(r"<ins [^>]*> yield</ins>", text)


def test_two_steps_of_a_problem_stand_side_by_side_on_one_scale(client: TestClient) -> None:
    query = "problem=p1&left_run=runs/good&right_run=runs/good&left_step=1&right_step=2"
    text = client.get(f"/compare?{query}").text
    assert "runs/good, step 1" in text and "runs/good, step 2" in text
    assert text.count("<article>") == 4
    assert set(re.findall(r'class="bar" aria-hidden="true"></span>([\d.]+)', text)) == {"3.5"}


def test_the_nearest_step_stands_for_one_without_the_problem(client: TestClient) -> None:
    text = client.get("/compare?problem=p1&left_run=runs/good&left_step=40&right_step=40").text
    assert "runs/good, step 2" in text and "which has not met this problem" in text


@pytest.mark.parametrize("path", ["/", "/episode", "/compare"])
def test_what_a_model_wrote_or_a_folder_is_called_is_shown_and_never_obeyed(
    client: TestClient, path: str
) -> None:
    name = "runs/<i>bad"
    link = first_link(client.get("/", params={"run": name}).text)
    query = {"problem": HOSTILE, "left_run": name, "right_run": name, "q": HOSTILE, "run": name}
    text = client.get(link).text if path == "/episode" else client.get(path, params=query).text
    assert "alert(1)" in text
    assert "\u202e" not in text.split("<main")[1]
    elements = Elements()
    elements.feed(text)
    assert elements.names.count("script") == 1
    assert not {"img", "i", "style", "iframe"} & set(elements.names)
    assert not [name for name in elements.attributes if name.startswith("on")]


def test_only_our_own_script_may_run_and_only_loopback_is_answered(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/").status_code == 405


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/?run=absent", 404),
        ("/episode?run=runs/good", 404),
        ("/episode?run=runs/good&file=x&at=0", 404),
        ("/episode?run=runs/good&at=1", 404),
        ("/episode?run=runs/good&at=" + "9" * 40, 404),
        ("/episode?run=runs/good&at=²", 404),
        ("/compare?left_run=absent", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_and_not_an_error(
    client: TestClient, address: str, status: int
) -> None:
    assert client.get(address).status_code == status


def test_a_file_that_changed_since_is_said(client: TestClient, library: Library) -> None:
    link = first_link(client.get("/?run=runs/good").text)
    (library["runs/good"].run / "episodes.jsonl").write_text("gone")
    answer = client.get(link)
    assert answer.status_code == 409 and "changed while it was read" in answer.text


def test_the_state_counts_what_a_run_has_gained(
    client: TestClient, library: Library, new_episode: MakeEpisode
) -> None:
    assert client.get("/state?run=runs/good").json()["episodes"] == 8
    with (library["runs/good"].run / "episodes.jsonl").open("a") as file:
        file.write(json.dumps(new_episode(step=9)) + "\n")
    library.update()
    found = client.get("/state?run=runs/good").json()
    assert (found["episodes"], found["last_step"], found["behind_bytes"]) == (9, 9, 0)


def test_very_long_texts_are_cut_and_can_be_shown_whole(
    client: TestClient, library: Library, new_episode: MakeEpisode
) -> None:
    words = [" x"] * 5000
    record = new_episode(step=9, problem_id="long", answer_tokens=words, answer="".join(words))
    with (library["runs/good"].run / "episodes.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    library.update()
    link = first_link(client.get("/?run=runs/good&problem=long").text)
    assert "1000 further tokens are not shown" in client.get(link).text
    assert "further tokens" not in client.get(f"{link}&all=1").text


@pytest.fixture
def with_perfect(library: Library, client: TestClient) -> TestClient:
    """The client of a run that also holds a rollout that was perfect."""
    record = {
        "step": 2, "uid": "2-1", "problem_id": "p1", "prompt": "Solve it.", "answer": "ab",
        "answer_tokens": ["a", "b"], "reward": 1.0, "verdict": "accepted",
        "outcome": "skipped_perfect", "advantage": 0.25, "entropy": [0.5, 2.0],
    }  # fmt: skip
    (library["runs/good"].run / "rollouts.jsonl").write_text(json.dumps(record) + "\n")
    library.update()
    return client


def test_a_perfect_rollout_stands_in_its_group_and_has_its_numbers(
    with_perfect: TestClient,
) -> None:
    text = with_perfect.get("/?run=runs/good&step=2").text
    assert text.count('class="row"') == 5 and "perfect, not refined</td>" in text
    link = first_link(with_perfect.get("/?run=runs/good&outcome=skipped_perfect").text)
    page = with_perfect.get(link).text
    assert "Perfect, not refined." in page and "a′ inserts text here" not in page
    # A quarter of the scale, which reaches to one at least: no advantage looks extreme by itself.
    assert re.search(r'class="t p2" data-v="advantage 0.25; entropy 0.5 nats"', page)
    assert "CE, teacher-forced (not logged for this episode)" in page


def test_all_that_stands_side_by_side_is_coloured_by_one_number(with_perfect: TestClient) -> None:
    query = "problem=p1&left_run=runs/good&right_run=runs/good&left_step=2&right_step=2"
    text = with_perfect.get(f"/compare?{query}").text
    assert text.count('class="note scale"') == 1 and "advantage:" not in text
    assert text.count("CE, teacher-forced: not logged for this episode") == 2
    text = with_perfect.get(f"/compare?{query}&colour=entropy").text
    assert "entropy (nats)" in text and "not logged" not in text
    text = with_perfect.get(f"/compare?{query}&colour=self_feeding").text
    assert "No rollout here has such numbers." in text
