"""Reads the refiner's output back to tokens as the policy would have written them."""

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from refiner_worker.blocks import fit_seams
from refiner_worker.outcome import Outcome, Refinement
from refiner_worker.prompts import RefineTemplate, parse_refinement
from refiner_worker.repetition import loops
from refiner_worker.turn_end import TurnEnd


class AnswerReader:
    """Turns outputs of one refiner into refinements.

    Args:
        tokenizer: the policy's, which is the refiner's as well.
        template: whose answer marks are taken off where the refiner echoes them.
        end: how the policy's responses end.
        end_ids: tokens beside the policy's at which the refiner's engine stops.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: RefineTemplate,
        end: TurnEnd,
        end_ids: Collection[int] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._end_id = end.id
        self.end_ids = end.stop_ids.union(end_ids)

    def text(self, token_ids: Sequence[int]) -> str:
        """The tokens' text, special tokens and the one that ends it left out."""
        shown = token_ids[:-1] if self._ends(token_ids) else token_ids
        return self._tokenizer.decode(list(shown), skip_special_tokens=True)

    def ends_line(self, token_id: int) -> bool:
        """Whether the token's text ends with a line break."""
        return self.text([token_id]).endswith("\n")

    def without_end(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The tokens up to the first that ends an output."""
        ends = (at for at, token in enumerate(token_ids) if token in self.end_ids)
        return tuple(token_ids[: next(ends, len(token_ids))])

    def answer(
        self, output_ids: Sequence[int], answer_ids: Sequence[int], max_tokens: int
    ) -> Refinement:
        """What the refiner made of the whole answer; at most `max_tokens` tokens, EOS included."""
        if refused := self._unfinished(output_ids, max_tokens):
            return Refinement(refused)
        text = self.text(output_ids)
        parsed = parse_refinement(self._template, text)
        if not parsed.strip():
            return Refinement(Outcome.EMPTY)
        if parsed == self.text(answer_ids):
            return Refinement(Outcome.VERBATIM, tuple(answer_ids))
        return self.ended(output_ids if parsed == text else self._encode(parsed), max_tokens)

    def block(
        self,
        output_ids: Sequence[int],
        block_ids: Sequence[int],
        max_tokens: int,
        *,
        first: bool,
        last: bool,
    ) -> Refinement:
        """What the refiner made of one block: tokens without EOS, the block's own if verbatim."""
        if refused := self._unfinished(output_ids, max_tokens):
            return Refinement(refused)
        text, block = self.text(output_ids), self.text(block_ids)
        parsed = parse_refinement(self._template, text)
        if not parsed.strip():
            return Refinement(Outcome.EMPTY)
        fitted = fit_seams(block, parsed, first=first, last=last)
        if fitted == block:
            return Refinement(Outcome.VERBATIM, tuple(block_ids))
        kept = self.without_end(output_ids) if fitted == text else self._encode(fitted)
        return Refinement(Outcome.REFINED, tuple(kept))

    def ended(self, token_ids: Sequence[int], max_tokens: int) -> Refinement:
        """The refinement of these tokens, ended as the policy's responses end."""
        token_ids = [*self.without_end(token_ids), self._end_id]
        if len(token_ids) > max_tokens:
            return Refinement(Outcome.TRUNCATED)
        return Refinement(Outcome.REFINED, tuple(token_ids))

    def _unfinished(self, output_ids: Sequence[int], max_tokens: int) -> Outcome | None:
        if self._ends(output_ids) or len(output_ids) < max_tokens:
            return None
        return Outcome.REPETITIVE if loops(output_ids) else Outcome.TRUNCATED

    def _ends(self, token_ids: Sequence[int]) -> bool:
        return bool(token_ids) and token_ids[-1] in self.end_ids

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)
