"""What the refiner changed: the token diff between a rollout and its refinement.

The alignment is the one of the Levenshtein distance (insertions, deletions and replacements of
whole tokens), computed by rapidfuzz in C++. Source: ours; the paper only says that the refiner
repeats correct content verbatim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rapidfuzz.distance import Levenshtein


@dataclass(frozen=True)
class TokenDiff:
    """The diff from an answer (T tokens) to its refinement (U tokens).

    Attributes:
        copied: U flags, 1 where the refined token stands in the answer at the aligned place.
        edit_distance: the number of token insertions, deletions and replacements.
        divergence: index of the first refined token that differs from the answer's token at the
            same index; U where the refinement is a prefix of the answer.
        sources: U half-open ranges of answer tokens: the one that a copied token repeats, those
            that its hunk replaces, or the one before an insertion (the first token at the start).
    """

    copied: tuple[int, ...]
    edit_distance: int
    divergence: int
    sources: tuple[tuple[int, int], ...]

    @property
    def copied_ratio(self) -> float:
        """Share of the refined tokens that were copied, in [0, 1]; 0 for an empty refinement."""
        return sum(self.copied) / len(self.copied) if self.copied else 0.0


def token_diff(answer_ids: Sequence[int], refined_ids: Sequence[int]) -> TokenDiff:
    """Align a refinement to the answer it was made from; see `TokenDiff`."""
    copied: list[int] = []
    sources: list[tuple[int, int]] = []
    opcodes = Levenshtein.opcodes(answer_ids, refined_ids)
    for is_equal, hunk in groupby(opcodes, key=lambda block: block.tag == "equal"):
        blocks = list(hunk)
        start, end = blocks[0].src_start, blocks[-1].src_end
        length = blocks[-1].dest_end - blocks[0].dest_start
        copied += [int(is_equal)] * length
        if is_equal:
            sources += [(index, index + 1) for index in range(start, end)]
        else:
            inserted_after = (max(start - 1, 0), max(start, 1))
            sources += [(start, end) if end > start else inserted_after] * length
    return TokenDiff(
        copied=tuple(copied),
        edit_distance=Levenshtein.distance(answer_ids, refined_ids),
        divergence=_common_prefix_length(answer_ids, refined_ids),
        sources=tuple(sources),
    )


def _common_prefix_length(a: Sequence[int], b: Sequence[int]) -> int:
    shared = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        shared += 1
    return shared
