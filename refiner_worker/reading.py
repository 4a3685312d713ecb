"""Reads the refiner's output back to tokens as the policy would have written them."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from refiner_worker.blocks import fit_seams
from refiner_worker.outcome import Outcome, RefinerReply
from refiner_worker.prompts import RefineTemplate, parse_refinement
from refiner_worker.repetition import loops


class AnswerReader:
    """Turns outputs of one refiner into refinements.

    Args:
        tokenizer: the policy's, which is the refiner's as well.
        template: whose answer marks are taken off where the refiner echoes them.
        end_ids: tokens beside the tokenizer's EOS that end an output.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: RefineTemplate,
        end_ids: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.end_ids = frozenset({tokenizer.eos_token_id, *end_ids})

    def text(self, token_ids: Sequence[int]) -> str:
        """The tokens' text, special tokens left out."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def ends_line(self, token_id: int) -> bool:
        """Whether the token's text ends with a line break."""
        return self.text([token_id]).endswith("\n")

    def without_end(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The tokens up to the first that ends an output."""
        ends = (at for at, token in enumerate(token_ids) if token in self.end_ids)
        return tuple(token_ids[: next(ends, len(token_ids))])

    def answer(
        self, output_ids: Sequence[int], answer_ids: Sequence[int], max_tokens: int
    ) -> RefinerReply:
        """What the refiner made of the whole answer; at most `max_tokens` tokens, EOS included."""
        if refused := self._unfinished(output_ids, max_tokens):
            return RefinerReply(refused)
        text = self.text(output_ids)
        parsed = parse_refinement(self._template, text)
        if not parsed.strip():
            return RefinerReply(Outcome.EMPTY)
        if parsed == self.text(answer_ids):
            return RefinerReply(Outcome.VERBATIM, tuple(answer_ids))
        return self.ended(output_ids if parsed == text else self._encode(parsed), max_tokens)

    def block(
        self,
        output_ids: Sequence[int],
        block_ids: Sequence[int],
        max_tokens: int,
        *,
        first: bool,
        last: bool,
    ) -> RefinerReply:
        """What the refiner made of one block: tokens without EOS, the block's own if verbatim."""
        if refused := self._unfinished(output_ids, max_tokens):
            return RefinerReply(refused)
        text, block = self.text(output_ids), self.text(block_ids)
        parsed = parse_refinement(self._template, text)
        if not parsed.strip():
            return RefinerReply(Outcome.EMPTY)
        fitted = fit_seams(block, parsed, first=first, last=last)
        if fitted == block:
            return RefinerReply(Outcome.VERBATIM, tuple(block_ids))
        kept = self.without_end(output_ids) if fitted == text else self._encode(fitted)
        return RefinerReply(Outcome.REFINED, tuple(kept))

    def ended(self, token_ids: Sequence[int], max_tokens: int) -> RefinerReply:
        """The refinement of these tokens, ended as the policy ends its answers."""
        if not self._ends(token_ids):
            token_ids = [*token_ids, self._tokenizer.eos_token_id]
        if len(token_ids) > max_tokens:
            return RefinerReply(Outcome.TRUNCATED)
        return RefinerReply(Outcome.REFINED, tuple(token_ids))

    def _unfinished(self, output_ids: Sequence[int], max_tokens: int) -> Outcome | None:
        if self._ends(output_ids) or len(output_ids) < max_tokens:
            return None
        return Outcome.REPETITIVE if loops(output_ids) else Outcome.TRUNCATED

    def _ends(self, token_ids: Sequence[int]) -> bool:
        return bool(token_ids) and token_ids[-1] in self.end_ids

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)
