"""A pretrained model on the real stack: its tokenizer, its chat template, the ends of its turns."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from steps import rollout, step_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.pretrained_model import TURN_END, TURN_START, ensure_smollm2
from recipe.cpu.taught_smollm2 import write_taught
from recipe.cpu.tiny_model_examples import draw_example
from recipe.cpu.tiny_model_train import WarmStart, collate, weighted_loss
from recipe.online_refiner.method.chord import demonstrations
from recipe.online_refiner.resolve.refiner_engine import end_ids
from refiner_worker.chat import Chat
from refiner_worker.prompts import load_template, render

pytestmark = pytest.mark.timeout(1200)

MAX_TOKENS = 96
BRIEF = (
    "Write a Python program that prints the word {}. "
    "Reply with one ```python block and with nothing else."
)
KV_CACHE_BYTES = 268435456  # 5,800 tokens of this model's keys and values in float32
LARGEST_TENSOR_MIB = 128  # the embedding has 108 MiB in float32
WORDS = (
    "lamp river seven orange cloud piano ticket garden "
    "window stone bread rocket pencil tiger market button "
)
CODE = '''def total(values):
    """Sum of 10 numbers, e.g. 3.14."""
    return sum(values[:10])  # don't , stop
'''


@pytest.fixture(scope="module")
def folder() -> Path:
    return ensure_smollm2()


@pytest.fixture(scope="module")
def chat(folder: Path) -> Chat:
    """The model's chats, from what is in its folder."""
    return Chat.of(AutoTokenizer.from_pretrained(folder), {}, end_ids(str(folder)))


class TestTheConvertedFolder:
    def test_text_comes_back_as_it_was_and_digits_stand_alone(self, chat: Chat) -> None:
        ids = chat.encode(CODE)
        assert chat.tokenizer.decode(ids) == CODE
        tokens = chat.tokenizer.convert_ids_to_tokens(ids)
        assert all(len(token) == 1 for token in tokens if any(c.isdigit() for c in token))
        # As the model was trained: blanks before a digit are one token, not two.
        assert chat.tokenizer.tokenize("\n    12") == ["ĊĠĠĠĠ", "1", "2"]

    def test_all_that_names_the_end_of_a_turn_agrees(self, folder: Path, chat: Chat) -> None:
        tokenizer = chat.tokenizer
        assert (tokenizer.eos_token, tokenizer.pad_token) == (TURN_END, TURN_END)
        assert chat.end.id == chat.end.template_id == tokenizer.eos_token_id == 2
        assert chat.end.stop_ids == {2}
        config = json.loads((folder / "config.json").read_text())
        assert (config["eos_token_id"], config["pad_token_id"]) == (2, 2)

    def test_a_prompt_is_written_as_the_model_was_taught(self, chat: Chat) -> None:
        text = chat.prompt([{"role": "user", "content": "Hi"}])
        assert text.startswith(f"{TURN_START}system\n")
        assert text.endswith(f"{TURN_END}\n{TURN_START}user\nHi{TURN_END}\n{TURN_START}assistant\n")
        assert chat.prompt_ids([{"role": "user", "content": "Hi"}]).count(chat.end.id) == 2

    def test_the_weights_copy_from_the_context(self, folder: Path, chat: Chat) -> None:
        """The mean loss of a list's third reading: 0.6 nats a token, and 7.5 if the rows of queries
        and keys stand in the GGUF file's order."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ids = torch.tensor([chat.encode(WORDS) * 3])
        labels = ids.clone()
        labels[:, : 2 * ids.shape[1] // 3] = -100
        with torch.no_grad():
            assert model(ids, labels=labels).loss.item() < 1.5

    def test_demonstrations_end_as_the_models_turns_end(self, chat: Chat) -> None:
        step = step_of([rollout("a_0", (3,), reference="print(1)\n")], chat=chat)
        ((_, learnt),) = demonstrations(step)
        assert chat.tokenizer.decode(learnt) == f"```python\nprint(1)\n```{TURN_END}"


class TestTheLessons:
    def test_a_few_steps_teach_it_the_form(self, folder: Path, chat: Chat, tmp_path: Path) -> None:
        """From 0.87 nats a token to 0.57 on lessons that it was not shown."""
        settings = WarmStart(
            steps=4, batch_size=4, learning_rate=2e-4, prompt_loss_weight=0.0, warmup_steps=1
        )
        write_taught(folder, tmp_path / "taught", settings)
        rng = random.Random("other lessons")
        rows = [draw_example(chat.tokenizer, rng) for _ in range(8)]
        batch = collate(rows, chat.tokenizer.pad_token_id, 0.0)
        before, after = (
            self._loss(AutoModelForCausalLM.from_pretrained(one, dtype=torch.float32), batch)
            for one in (folder, tmp_path / "taught")
        )
        assert after < 0.8 * before

    def test_what_names_the_end_of_a_turn_stays(self, folder: Path, tmp_path: Path) -> None:
        write_taught(folder, tmp_path / "taught", WarmStart(steps=1, batch_size=1))
        assert end_ids(str(tmp_path / "taught")) == end_ids(str(folder))
        first, second = (
            AutoTokenizer.from_pretrained(one) for one in (folder, tmp_path / "taught")
        )
        assert first.chat_template == second.chat_template
        assert first.get_vocab() == second.get_vocab()

    @staticmethod
    def _loss(model: Any, batch: Any) -> float:
        with torch.inference_mode():
            return weighted_loss(model, batch).item()


class TestATrainingStep:
    """DAPO's loss with the differentiable term on every refinement, whatever its reward."""

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Tasks whose responses and refinements are short, and so end, for a small model too.

        The tests are those of other problems, so that no response is perfect and each is refined.
        """
        train, _ = prepare_micro_apps(tmp_path_factory.mktemp("data"), 4, 1)
        rows = pq.read_table(train).to_pylist()
        for row, word in zip(rows, WORDS.split(), strict=False):
            row["prompt"][-1]["content"] = BRIEF.format(word)
        pq.write_table(pa.Table.from_pylist(rows), train)
        return train

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Callable[..., Any], folder: Path, rows: Path) -> Any:
        cache = "engine_kwargs.vllm.kv_cache_memory_bytes"
        run = module_training(
            f"actor_rollout_ref.model.path={folder}",
            *(f"data.train_files={rows}", f"data.val_files={rows}", "trainer.save_freq=-1"),
            *("trainer.total_training_steps=1", "monitor.kl_to_reference=false"),
            *("data.train_batch_size=4", "actor_rollout_ref.actor.ppo_mini_batch_size=4"),
            *("actor_rollout_ref.rollout.n=2", "actor_rollout_ref.rollout.temperature=0.6"),
            *("data.max_prompt_length=192", f"data.max_response_length={MAX_TOKENS}"),
            *("refiner.template=code-v1", "refiner.max_prompt_length=640"),
            *("refiner.temperature=0.7", "constraint.inject=sft", "constraint.filter=off"),
            *("actor_rollout_ref.actor.optim.lr=1e-5", "refiner.deadline_s=600"),
            "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1024",
            f"actor_rollout_ref.rollout.{cache}={KV_CACHE_BYTES}",
            "actor_rollout_ref.rollout.max_model_len=512",
            "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes="
            f"{LARGEST_TENSOR_MIB}",
        )
        run.start()
        run.finish()
        return run

    def test_every_metric_is_finite_and_the_engines_agree(self, run: Any) -> None:
        (data,) = run.metrics().values()
        assert all(math.isfinite(value) for value in data.values())
        assert data["monitor/rollout_logprob_diff_max"] < 1e-3
        assert data["actor/grad_norm"] > 0
        assert data["judge/failed_total"] == 0
        assert data["refiner/engine_error_total"] == 0

    def test_rollouts_and_refinements_end_with_the_turn(self, run: Any) -> None:
        episodes = run.records("episodes.jsonl")
        assert episodes, "nothing was refined"
        ended = [one for one in episodes if one["answer_tokens"][-1] == TURN_END]
        assert ended, "no rollout ended within the limit"
        for one in episodes:
            if one not in ended:
                assert len(one["answer_tokens"]) == MAX_TOKENS
            if not one["verbatim"]:
                assert one["refined_tokens"][-1] == TURN_END
            assert TURN_END not in (*one["answer_tokens"][:-1], *one["refined_tokens"][:-1])

    def test_the_refinements_are_learnt_as_the_loss_measures_them(self, run: Any) -> None:
        (data,) = run.metrics().values()
        learnt = [one for one in run.records("episodes.jsonl") if one["accepted"]]
        assert learnt
        for one in learnt:
            assert len(one["ce"]) == len(one["refined_tokens"])
            assert all(0 <= value < 30 for value in one["ce"])
        assert data["actor/sft_loss"] == pytest.approx(data["constraint/penalty_mean"], rel=1e-2)

    def test_the_prompt_is_the_models_own(self, run: Any, chat: Chat, rows: Path) -> None:
        asked = pq.read_table(rows)["prompt"].to_pylist()
        written = {
            chat.tokenizer.decode(chat.prompt_ids(messages), skip_special_tokens=True)
            for messages in asked
        }
        assert {one["prompt"] for one in run.records("episodes.jsonl")} <= written

    def test_the_refiners_prompt_fits(self, run: Any, chat: Chat, rows: Path) -> None:
        template = load_template("code-v1")
        (data,) = run.metrics().values()
        assert data["refiner/too_long_total"] == 0
        for one in run.records("episodes.jsonl"):
            messages = render(template, [{"role": "user", "content": "x"}], one["answer"])
            assert len(chat.prompt_ids(messages)) < 640
