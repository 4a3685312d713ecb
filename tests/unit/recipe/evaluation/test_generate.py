"""What is asked of the engine, and what is on disk after it was interrupted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.files import Log, only_writer, read_log
from recipe.evaluation.generate import Sampling, generate_missing, missing, render, seed_of
from recipe.evaluation.kinds import Benchmark, EvalProblem, Message
from recipe.evaluation.problems import load_problems
from recipe.evaluation.protocols import PROTOCOLS, Prompt

BIGCODE = PROTOCOLS["bigcode"]


class Template:
    """A tokenizer with a chat template that ends every message, the last one too."""

    chat_template: Any = "any"

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> str:
        text = "".join(f"<{m['role']}>{m['content'].strip()}</>" for m in conversation)
        return f"<s>{text}<assistant>" if options.get("add_generation_prompt") else f"<s>{text}"


@pytest.fixture
def problems(
    samples: dict[str, dict[str, Any]], write_lines: Callable[..., Path]
) -> tuple[EvalProblem, ...]:
    records = [samples["humaneval"] | {"task_id": f"HumanEval/{n}"} for n in range(3)]
    return load_problems(Benchmark.HUMANEVAL, write_lines("h.jsonl", *records)).problems


def test_an_interrupted_generation_goes_on_without_asking_twice(
    problems: tuple[EvalProblem, ...], tmp_path: Path, table_engine: Any
) -> None:
    sampling = Sampling(samples=2, temperature=0.8)
    answers = {problem.problem_id: ["first", "second"] for problem in problems}
    log = Log(tmp_path / "s.jsonl")
    dying, resumed = table_engine(answers, limit=4), table_engine(answers)
    with pytest.raises(KeyboardInterrupt):
        generate_missing(missing(problems, 2, log), BIGCODE, sampling, dying, log, "t")
    with log.path.open("ab") as file:
        file.write(b'{"problem_id": "HumanEval/1", "samp')
    again = Log(log.path)
    assert again.torn
    generate_missing(missing(problems, 2, again), BIGCODE, sampling, resumed, again, "t")
    assert not set(dying.asked) & set(resumed.asked)
    found = [(record["problem_id"], record["sample"]) for record in again.records()]
    assert sorted(found) == [(f"HumanEval/{n}", k) for n in range(3) for k in range(2)]
    assert missing(problems, 2, again) == []


def test_first_samples_of_all_problems_come_before_second_ones(
    problems: tuple[EvalProblem, ...], tmp_path: Path
) -> None:
    wanted = missing(problems, 2, Log(tmp_path / "s.jsonl"))
    assert [sample for _, sample in wanted] == [0, 0, 0, 1, 1, 1]


def test_a_sample_is_saved_before_the_next_is_asked_for(
    problems: tuple[EvalProblem, ...], tmp_path: Path, table_engine: Any
) -> None:
    log = Log(tmp_path / "s.jsonl")
    engine = table_engine({problem.problem_id: ["x"] for problem in problems}, limit=2)
    with pytest.raises(KeyboardInterrupt):
        generate_missing(missing(problems, 1, log), BIGCODE, Sampling(), engine, log, "t")
    assert [record["problem_id"] for record in log.records()] == ["HumanEval/0", "HumanEval/1"]


def test_a_seed_depends_on_problem_and_sample_and_nothing_else() -> None:
    seeds = {seed_of(0, f"p{n}", k) for n in range(100) for k in range(10)}
    assert len(seeds) == 1000
    assert seed_of(0, "p1", 2) == seed_of(0, "p1", 2) != seed_of(1, "p1", 2)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_chat_ends_in_the_opening_of_the_answer_and_adds_no_special_tokens() -> None:
    prompt = Prompt(messages=(Message("user", "Q"),), opening="Here:\n```python\n")
    assert render(prompt, Template(), "m") == (
        "<s><user>Q</><assistant>Here:\n```python\n",
        False,
    )


def test_a_chat_without_opening_ends_where_the_template_lets_the_model_speak() -> None:
    prompt = Prompt(messages=(Message("user", "Q"),))
    assert render(prompt, Template(), "m") == ("<s><user>Q</><assistant>", False)


def test_text_is_sent_as_it_is_and_needs_no_template() -> None:
    bare = Template()
    bare.chat_template = None
    assert render(Prompt("def f():\n"), bare, "m") == ("def f():\n", True)
    with pytest.raises(EvaluationError, match="no chat template; use --protocol bigcode"):
        render(Prompt(messages=(Message("user", "Q"),)), bare, "m")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "--samples 0: use 1 or more"),
        ({"temperature": -0.1}, "--temperature -0.1: use 0"),
        ({"top_p": 0.0}, "--top-p 0.0: use a share above 0"),
        ({"max_tokens": 0}, "--max-tokens 0: use 1 or more"),
        ({"samples": 5}, "--samples 5 with --temperature 0 gives the same response"),
    ],
)
def test_impossible_sampling_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Sampling(**settings)


def test_only_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_log(path) == [{"a": 1}, {"a": 2}]
    assert path.read_text().endswith('{"a"')  # reading changes nothing
    log = Log(path)
    log.append({"a": 3})
    assert [record["a"] for record in log.records()] == [1, 2, 3]
    path.write_text('{"a": 1}\nbroken\n{"a": 2}\n')
    with pytest.raises(EvaluationError, match=r"log\.jsonl:2: not JSON.*delete that line"):
        Log(path).records()


def test_a_record_that_ends_without_a_line_break_is_torn_even_if_it_parses(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"tokens": 12}))
    assert Log(path).records() == []


def test_two_evaluations_cannot_write_into_one_folder(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path),
        pytest.raises(EvaluationError, match="another evaluation"),
        only_writer(tmp_path),
    ):
        pass
    with only_writer(tmp_path):
        pass
