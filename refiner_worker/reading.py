"""Reads the refiner's output back to tokens as the policy would have written them."""

from bisect import bisect_right
from collections.abc import Collection, Sequence

from refiner_worker.blocks import fit_seams
from refiner_worker.chat import Chat
from refiner_worker.outcome import Outcome, RefinerReply, Written
from refiner_worker.prompts import RefineTemplate, parse_refinement
from refiner_worker.reasoning import reasoning_length, response_text
from refiner_worker.repetition import loops


class AnswerReader:
    """Turns outputs of one refiner into refinements.

    Args:
        chat: how the policy's chats are written.
        template: whose answer marks are taken off if the refiner echoes them.
        end_ids: tokens beside the policy's at which the refiner's engine stops.
    """

    def __init__(self, chat: Chat, template: RefineTemplate, end_ids: Collection[int] = ()) -> None:
        self._chat = chat
        self._template = template
        self.end_ids = chat.end.stop_ids.union(end_ids)

    def text(self, token_ids: Sequence[int]) -> str:
        """The tokens' text, special tokens and the one that ends it left out."""
        shown = token_ids[:-1] if self._ends(token_ids) else token_ids
        return self._chat.tokenizer.decode(list(shown), skip_special_tokens=True)

    def ends_line(self, token_id: int) -> bool:
        """Whether the token's text ends with a line break."""
        return self.text([token_id]).endswith("\n")

    def without_end(self, token_ids: Sequence[int]) -> tuple[int, ...]:
        """The tokens up to the first that ends an output."""
        ends = (at for at, token in enumerate(token_ids) if token in self.end_ids)
        return tuple(token_ids[: next(ends, len(token_ids))])

    def reasoning(self, answer_ids: Sequence[int]) -> tuple[int, ...] | None:
        """The reasoning that begins a rollout; None if it is all that the rollout has."""
        length = reasoning_length(answer_ids, self.text, opened=self._chat.opens_reasoning)
        return None if length is None else tuple(answer_ids[:length])

    def answer(
        self, output_ids: Sequence[int], answer_ids: Sequence[int], max_tokens: int
    ) -> RefinerReply:
        """What the refiner made of the whole response, `max_tokens` tokens at most with EOS."""
        if refused := self._unfinished(output_ids, max_tokens):
            return RefinerReply(refused)
        text = self.text(output_ids)
        parsed = self._parsed(text)
        if not parsed.strip():
            return RefinerReply(Outcome.EMPTY)
        if parsed == self.text(answer_ids):
            return RefinerReply(Outcome.VERBATIM, tuple(answer_ids))
        return self.ended(output_ids if parsed == text else self._chat.encode(parsed), max_tokens)

    def written(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], token_ids: Sequence[int]
    ) -> Written | None:
        """How a whole refinement was written; None if it begins within a token of the output.

        Args:
            prompt_ids: of the refiner. output_ids: what it wrote. token_ids: the refinement read
                from it.
        """
        text = self.text(output_ids)
        refined = self._parsed(text)
        before = text[: text.rfind(refined)]
        lengths = range(len(output_ids) + 1)
        lead = bisect_right(lengths, len(before), key=lambda n: len(self.text(output_ids[:n]))) - 1
        if self.text(output_ids[:lead]) != before:
            return None
        ended = token_ids[-1] not in self.end_ids or (
            output_ids[-1] == token_ids[-1] and before + refined == text
        )
        return Written((*prompt_ids, *output_ids[:lead]), start=0, ended=ended)

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
        parsed = self._parsed(text)
        if not parsed.strip():
            return RefinerReply(Outcome.EMPTY)
        fitted = fit_seams(block, parsed, first=first, last=last)
        if fitted == block:
            return RefinerReply(Outcome.VERBATIM, tuple(block_ids))
        kept = self.without_end(output_ids) if fitted == text else self._chat.encode(fitted)
        return RefinerReply(Outcome.REFINED, tuple(kept))

    def _parsed(self, text: str) -> str:
        """The refined response in an output, without the refiner's reasoning and its echoes."""
        response = response_text(text, opened=self._chat.opens_reasoning)
        return "" if response is None else parse_refinement(self._template, response)

    def ended(self, token_ids: Sequence[int], max_tokens: int) -> RefinerReply:
        """The refinement of these tokens, ended as the policy's responses end."""
        token_ids = [*self.without_end(token_ids), self._chat.end.id]
        if len(token_ids) > max_tokens:
            return RefinerReply(Outcome.TRUNCATED)
        return RefinerReply(Outcome.REFINED, tuple(token_ids))

    def _unfinished(self, output_ids: Sequence[int], max_tokens: int) -> Outcome | None:
        if self._ends(output_ids) or len(output_ids) < max_tokens:
            return None
        return Outcome.REPETITIVE if loops(output_ids) else Outcome.TRUNCATED

    def _ends(self, token_ids: Sequence[int]) -> bool:
        return bool(token_ids) and token_ids[-1] in self.end_ids
