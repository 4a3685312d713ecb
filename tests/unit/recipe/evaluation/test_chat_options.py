"""Options of the chat template: those of the training, those given, and where they are recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.evaluation.card import Evaluated, Trained, model_card
from recipe.evaluation.chat_options import PROVENANCE, chat_options, in_words, trained_with
from recipe.evaluation.compare import unequal
from recipe.evaluation.endpoint import EndpointEngine
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.folder import Asked, Folder, Record
from recipe.evaluation.generate import Sampling, render
from recipe.evaluation.kinds import Message
from recipe.evaluation.main import main
from recipe.evaluation.protocols import Prompt
from recipe.online_refiner.resolve.chat import policy_chat

THINKING = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
    "{% if not (thinks | default(true)) %}<none/>{% endif %}"
)
"""A template that writes another prompt if it is told that the model does not think."""
QUESTION = Prompt(messages=(Message("user", "Q"),))


@pytest.fixture
def tokenizer() -> Any:
    found = AutoTokenizer.from_pretrained(ensure_checkpoint())
    found.chat_template = THINKING
    return found


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as `publish` leaves it after a training without thinking."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / PROVENANCE).write_text(json.dumps({"chat_options": {"thinks": False, "level": 2}}))
    return folder


def test_a_trained_model_is_asked_as_it_was_trained(published: Path, tokenizer: Any) -> None:
    options = chat_options(str(published), [])
    assert render(QUESTION, tokenizer, "m", options) == ("<user>Q<assistant><none/>", False)
    assert render(QUESTION, tokenizer, "m") == ("<user>Q<assistant>", False)


def test_the_prompt_is_that_of_the_training(tokenizer: Any) -> None:
    from omegaconf import OmegaConf

    config = OmegaConf.create(
        {
            "data": {"apply_chat_template_kwargs": {"thinks": False}},
            "actor_rollout_ref": {"model": {"path": str(ensure_checkpoint())}},
        }
    )
    trained = policy_chat(config, tokenizer).prompt_ids([{"role": "user", "content": "Q"}])
    text, special = render(QUESTION, tokenizer, "m", {"thinks": False})
    assert tokenizer(text, add_special_tokens=special)["input_ids"] == list(trained)


def test_an_opening_follows_a_template_that_is_given_options(tokenizer: Any) -> None:
    tokenizer.chat_template = THINKING.replace("<{{ m.role }}>", "<{{ m.role }}{{ level }}>")
    prompt = Prompt(messages=QUESTION.messages, opening="Here:\n")
    assert render(prompt, tokenizer, "m", {"level": 3})[0] == "<user3>Q<assistant3>Here:\n"


def test_a_given_option_goes_before_that_of_the_training(published: Path) -> None:
    assert chat_options(str(published), ["thinks=true", "style=short"]) == {
        "thinks": True,
        "level": 2,
        "style": "short",
    }


@pytest.mark.parametrize("content", [None, "not JSON", "[]", '{"chat_options": null}', "{}"])
def test_a_folder_without_a_record_gives_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / PROVENANCE).write_text(content)
    assert trained_with(str(tmp_path)) == {}
    assert trained_with("OWNER/NAME") == {}


@pytest.mark.parametrize("word", ["thinks", "tokenize=true", "add_generation_prompt=false"])
def test_what_is_no_option_is_refused(word: str) -> None:
    with pytest.raises(EvaluationError, match="--chat-option"):
        chat_options("m", [word])


def test_a_bad_option_is_one_message_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, samples: Any, write_lines: Any
) -> None:
    file = write_lines("h.jsonl", samples["humaneval"])
    command = ["evaluate", "--model", "m", "--benchmark", f"humaneval={file}", "--out"]
    assert main([*command, str(tmp_path / "e"), "--chat-option", "thinks"]) == 2
    assert "error: --chat-option 'thinks': write KEY=VALUE" in capsys.readouterr().err


def test_an_endpoint_is_sent_what_the_options_make_of_a_chat(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    monkeypatch.setattr("recipe.evaluation.endpoint.load_tokenizer", lambda _: tokenizer)
    engine = EndpointEngine("http://h/v1", "m", None, chat={"thinks": False})
    assert engine.render(QUESTION) == ("<user>Q<assistant><none/>", False)


def test_samples_of_other_options_are_not_gone_on_with(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "samples").mkdir()

    def remember(options: dict[str, Any]) -> None:
        folder.remember(Asked("m", Sampling(), "all", None, {}, options), [])

    remember({"thinks": False})
    (tmp_path / "samples" / "humaneval.chat.jsonl").write_text("{}\n")
    remember({"thinks": False})
    with pytest.raises(EvaluationError, match="chat_options"):
        remember({"thinks": True})
    assert folder.record().chat_options == {"thinks": False}


def test_scores_of_other_options_are_called_out_beside_each_other() -> None:
    records = {
        "a": Record({"chat_options": {"thinks": False}}),
        "b": Record({}),
    }
    notes = unequal({arm: record.conditions() for arm, record in records.items()})
    assert any("chat template options" in note and "thinks=false" in note for note in notes)


def test_the_card_tells_the_options_of_training_and_evaluation() -> None:
    config = {"data": {"apply_chat_template_kwargs": {"enable_thinking": False}}}
    trained = Trained(1, {}, config, template="<user>{problem}")
    record = Record({"chat_options": {"enable_thinking": False}, "temperature": 0.0})
    card = model_card("m", trained, {"m": Evaluated([], record)})
    assert "and enable_thinking=false, as in training, gives:" in card
    assert "chat template with enable_thinking=false" in card
    assert in_words({}) == ""
