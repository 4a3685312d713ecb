"""Block-wise refinement: the plan by property, and the whole loop on a scripted engine."""

import asyncio
import random
from typing import Any

import pytest
from scripted_engine import FakeGenerator, FakeOutput
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from refiner_worker.blocks import fit_seams, plan_blocks
from refiner_worker.chat import Chat
from refiner_worker.client import Outcome, RefineLimits, RefinerClient, RefinerReply, RefineTask
from refiner_worker.prompts import RefineTemplate

NEWLINE = 0
TEMPLATE = RefineTemplate("blocks", 1, None, "{problem}|{before}|{answer}")
MESSAGES = [{"role": "user", "content": "sum"}]


def ends_line(token: int) -> bool:
    return token == NEWLINE


@pytest.mark.parametrize(
    ("answer", "size", "blocks"),
    [
        ([], 4, [()]),
        ([5, 6], 2, [(5, 6)]),  # fits
        ([5, 6, 7], 2, [(5, 6), (7,)]),  # no line ends: cut when full
        ([5, 6, 0, 7, 8], 4, [(5, 6, 0), (7, 8)]),  # the line's end in the second half
        ([0, 5, 6, 7, 8], 4, [(0, 5, 6, 7), (8,)]),  # ... not in the first: blocks would be short
        ([5, 0, 6, 0, 7, 8], 4, [(5, 0, 6, 0), (7, 8)]),  # the last of several
        ([5, 6, 7], 1, [(5,), (6,), (7,)]),
    ],
)
def test_a_block_ends_with_a_line_where_it_can(
    answer: list[int], size: int, blocks: list[tuple[int, ...]]
) -> None:
    assert plan_blocks(answer, size, ends_line) == blocks


def test_blocks_make_up_the_answer_and_are_neither_empty_nor_too_long() -> None:
    rng = random.Random(0)
    for _ in range(500):
        answer = [rng.randrange(4) for _ in range(rng.randrange(1, 40))]
        size = rng.randrange(1, 12)
        blocks = plan_blocks(answer, size, ends_line)
        assert [token for block in blocks for token in block] == answer
        assert all(1 <= len(block) <= size for block in blocks)
        assert all(len(block) >= (size + 1) // 2 for block in blocks[:-1])


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (True, True, "y = 2"),  # one block: what the refiner writes stands
        (True, False, "y = 2\n"),
        (False, True, "    y = 2"),
        (False, False, "    y = 2\n"),
    ],
)
def test_blanks_at_a_seam_are_the_answers(first: bool, last: bool, expected: str) -> None:
    assert fit_seams("    x = 1\n", "y = 2", first=first, last=last) == expected


def test_a_verbatim_block_fits_as_it_is() -> None:
    for block in ("    x = 1\n", "\n\n", " a", "a"):
        for first in (True, False):
            for last in (True, False):
                assert fit_seams(block, block, first=first, last=last) == block


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and `<eos>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}>"
    return made


class Editor:
    """A refiner that replaces letters of the part it is shown, and drops the blanks around it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, edits: dict[str, str]) -> None:
        self._tokenizer = tokenizer
        self._edits = str.maketrans(edits)
        self.seen: list[tuple[str, str]] = []

    def __call__(self, prompt_ids: list[int]) -> list[int]:
        _, before, part = self._tokenizer.decode(prompt_ids).removesuffix(">").split("|")
        self.seen.append((before, part))
        text = part.translate(self._edits).strip()
        return [*encode(self._tokenizer, text), self._tokenizer.eos_token_id]


class Limited(FakeGenerator):
    """Stops at the longest output that a request allows."""

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> FakeOutput:
        output = await super().generate(
            request_id, prompt_ids=prompt_ids, sampling_params=sampling_params
        )
        return FakeOutput(output.token_ids[: sampling_params["max_tokens"]])


def encode(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def refine(
    tokenizer: PreTrainedTokenizerFast,
    editor: Editor,
    answer: str,
    limits: RefineLimits,
    generator: FakeGenerator | None = None,
) -> RefinerReply:
    async def call() -> RefinerReply:
        engine = generator or Limited(editor)
        client = RefinerClient(engine, Chat.of(tokenizer), TEMPLATE, limits, 0.0)
        ids = [*encode(tokenizer, answer), tokenizer.eos_token_id]
        return await client.refine(RefineTask(MESSAGES, ids))

    return asyncio.run(call())


def limits(block_tokens: int, prompt: int = 100, response: int = 64) -> RefineLimits:
    return RefineLimits(prompt, response, 5.0, 2, block_tokens)


def test_each_block_is_refined_once_given_what_became_of_those_before_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    editor = Editor(tokenizer, {"x": "y"})
    got = refine(tokenizer, editor, "ab\n  cx\nd", limits(block_tokens=4))
    assert editor.seen == [("", "ab\n"), ("ab\n", "  cx"), ("ab\n  cy", "\nd")]
    assert tokenizer.decode(got.token_ids, skip_special_tokens=True) == "ab\n  cy\nd"
    assert got.token_ids[-1] == tokenizer.eos_token_id
    assert (got.outcome, got.engine_calls) == (Outcome.REFINED, 3)


def test_an_edit_touches_no_other_block_and_no_edit_is_verbatim(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rng = random.Random(1)
    for _ in range(100):
        letters = "ab \nx" if rng.random() < 0.5 else "ab \n"
        answer = "a" + "".join(rng.choice(letters) for _ in range(rng.randrange(30))) + "b"
        size = rng.randrange(2, 9)
        editor = Editor(tokenizer, {"x": "y"})
        got = refine(tokenizer, editor, answer, limits(size))
        text = tokenizer.decode(got.token_ids, skip_special_tokens=True)
        assert text == answer.replace("x", "y")
        verbatim = "x" not in answer
        assert got.outcome is (Outcome.VERBATIM if verbatim else Outcome.REFINED)


def test_what_is_written_already_is_cut_to_the_prompts_budget(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """The budget of 12 tokens holds `sum||>` (6), a block of 2, and 4 tokens before it."""
    editor = Editor(tokenizer, {})
    got = refine(tokenizer, editor, "abcdefgh", limits(block_tokens=2, prompt=12))
    assert got.outcome is Outcome.VERBATIM
    assert editor.seen[-1] == ("cdef", "gh")


def test_a_block_that_does_not_fit_beside_the_problem_is_never_sent(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    editor = Editor(tokenizer, {})
    got = refine(tokenizer, editor, "abcdefgh", limits(block_tokens=4, prompt=9))
    assert (got.outcome, editor.seen) == (Outcome.TOO_LONG, [])


def test_one_failing_block_fails_the_answer_and_its_cost_is_counted(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    editor = Editor(tokenizer, {"c": " ", "d": " "})
    got = refine(tokenizer, editor, "abcdef", limits(block_tokens=2))
    assert got == RefinerReply(Outcome.EMPTY, generated_tokens=3 + 1, engine_calls=2)


def test_a_block_may_grow_to_twice_its_size_and_no_further(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    double = Editor(tokenizer, {"a": "abc", "b": ""})  # "ab" becomes "abc" and the end token: 4
    assert refine(tokenizer, double, "abzz", limits(2)).outcome is Outcome.REFINED
    triple = Editor(tokenizer, {"a": "aaaa", "b": ""})
    assert refine(tokenizer, triple, "abzz", limits(2)).outcome is Outcome.TRUNCATED


def test_blocks_together_keep_to_the_longest_response(tokenizer: PreTrainedTokenizerFast) -> None:
    editor = Editor(tokenizer, {"a": "abc"})
    got = refine(tokenizer, editor, "azaz", limits(block_tokens=2, response=8))
    assert got.outcome is Outcome.TRUNCATED


def test_the_deadline_holds_for_all_blocks(tokenizer: PreTrainedTokenizerFast) -> None:
    class HangsAtTheSecondBlock(Limited):
        async def generate(self, request_id: str, **request: Any) -> FakeOutput:
            if self.requests:
                await asyncio.Event().wait()
            return await super().generate(request_id, **request)

    editor = Editor(tokenizer, {})
    generator = HangsAtTheSecondBlock(editor)
    bound = RefineLimits(100, 64, deadline_s=0.05, max_concurrency=2, block_tokens=2)
    got = refine(tokenizer, editor, "abcd", bound, generator)
    assert got == RefinerReply(Outcome.DEADLINE, generated_tokens=3, engine_calls=1)
