"""Templates: literal replacement, user files, and answers read back as the policy would have
written them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from refiner_worker.prompts import (
    RefineTemplate,
    builtin_templates,
    load_template,
    parse_refinement,
    render,
)
from reward import apps, dialogue, math_dapo

PROMPT = [{"role": "user", "content": "Print {answer} of the dict {0: 1}."}]
ANSWER = "```python\nprint({'{problem}': f'{1}'})\n```"


def test_builtin_templates_are_the_documented_ones() -> None:
    assert builtin_templates() == [
        *("code-blocks-v1", "code-feedback-v1", "code-v1", "dialogue-v1"),
        *("math-blocks-v1", "math-v1", "micro-v1"),
    ]


def test_what_precedes_a_block_and_what_the_judge_says_stand_where_the_template_has_them() -> None:
    template = RefineTemplate("all", 1, None, "{problem}|{before}|{answer}|{feedback}")
    (message,) = render(template, PROMPT[:1], "{before}", before="{feedback}", feedback="2 of 5")
    assert message["content"] == f"{PROMPT[0]['content']}|{{feedback}}|{{before}}|2 of 5"
    for name in ("code-blocks-v1", "math-blocks-v1"):
        assert load_template(name).takes("{before}")
    assert load_template("code-feedback-v1").takes("{feedback}")
    assert not load_template("code-v1").takes("{feedback}")


@pytest.mark.parametrize("name", builtin_templates())
def test_a_builtin_template_carries_its_own_name(name: str) -> None:
    assert load_template(name).name == name


@pytest.mark.parametrize("name", builtin_templates())
def test_problem_and_answer_appear_unchanged(name: str) -> None:
    user = render(load_template(name), PROMPT, ANSWER)[-1]["content"]
    assert PROMPT[0]["content"] in user
    assert ANSWER in user


def test_placeholders_inside_the_texts_are_not_replaced() -> None:
    template = RefineTemplate("t", 1, None, "{problem}|{answer}|{other}")
    messages = render(template, [{"role": "user", "content": "{answer}"}], "{problem}")
    assert messages == [{"role": "user", "content": "{answer}|{problem}|{other}"}]


def test_system_text_comes_first_where_the_template_has_one() -> None:
    template = RefineTemplate("t", 1, "Be careful.", "{problem}{answer}")
    assert [m["role"] for m in render(template, PROMPT, "")] == ["system", "user"]
    assert [m["role"] for m in render(load_template("micro-v1"), PROMPT, "")] == ["user"]


def test_a_conversation_is_shown_under_its_roles() -> None:
    template = RefineTemplate("t", 1, None, "{problem}#{answer}")
    prompt: list[dict[str, object]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
    ]
    user = render(template, prompt, "a")[0]["content"]
    assert user == "User: Hi\n\nAssistant: Hello\n\nUser: Bye#a"


@pytest.mark.parametrize("content", [None, [{"type": "image", "image": "x.png"}], 3])
def test_content_that_is_not_text_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="only text"):
        render(load_template("micro-v1"), [{"role": "user", "content": content}], "a")


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="no messages"):
        render(load_template("micro-v1"), [], "a")


@pytest.mark.parametrize("name", builtin_templates())
@pytest.mark.parametrize(
    "answer", [ANSWER, ANSWER + "\n", "  \n" + ANSWER, "", "prose </answer> prose"]
)
def test_a_plain_answer_is_read_back_untouched(name: str, answer: str) -> None:
    assert parse_refinement(load_template(name), answer) == answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"<answer>\n{ANSWER}\n</answer>", ANSWER),
        (f"\n<answer>\n{ANSWER}\n</answer>\n", ANSWER),
        (f"<answer>{ANSWER}</answer>", ANSWER),
        (f"<answer>\n{ANSWER}\n</answer>\nI changed nothing.", ANSWER),
        (f"<answer>\n{ANSWER}", ANSWER),
        ("<answer>\nprint('</answer>')\n</answer>", "print('</answer>')"),
    ],
)
def test_echoed_answer_marks_are_taken_off(text: str, expected: str) -> None:
    assert parse_refinement(load_template("code-v1"), text) == expected


def test_a_users_file_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('name: mine\nversion: 3\nuser: "P {problem} A {answer}"\n')
    assert load_template(path) == RefineTemplate("mine", 3, None, "P {problem} A {answer}")


def test_the_task_of_a_template_is_that_of_a_reward_and_may_be_left_out(tmp_path: Path) -> None:
    tasks = {name: load_template(name).task for name in builtin_templates()}
    declared = {apps.TRAITS.task, dialogue.TRAITS.task, math_dapo.TRAITS.task}
    assert set(tasks.values()) == {*declared, ""}
    assert [name for name, task in tasks.items() if not task] == ["micro-v1"]
    path = tmp_path / "proofs.yaml"
    path.write_text('name: p\nversion: 1\ntask: proofs\nuser: "P {problem} A {answer}"\n')
    assert load_template(path).task == "proofs"


def test_an_unknown_name_lists_the_options() -> None:
    with pytest.raises(ValueError, match=r"'code-v9'.*code-v1, dialogue-v1, .*micro-v1"):
        load_template("code-v9")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_template("nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nversion: 1\nuser: '{problem}'", r"lacks \{answer\}"),
        ("name: x\nversion: 1\nuser: 'nothing'", r"lacks \{problem\} and \{answer\}"),
        ("name: x\nversion: 1\nuser: '{problem}{answer}'\nanswer_open: '<a>'", "answer_close"),
        ("name: x\nversion: one\nuser: '{problem}{answer}'", "whole number"),
        ("name: x\nversion: 1\nuser: '{problem}{answer}'\nsytem: 'a'", "sytem"),
        ("version: 1\nuser: '{problem}{answer}'", "missing keys.*name"),
        ("name: x\nversion: 1\nuser: [1]", "must be text"),
        ("- a list", "expected a mapping"),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_a_malformed_file_is_refused_with_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_template(path)
