"""What the refiner changed: the token diff between a rollout and its refinement.

The alignment is the one of the Levenshtein distance (insertions, deletions and replacements of
whole tokens), computed by rapidfuzz in C++. Source: ours; the paper only says that the refiner
repeats correct content verbatim.

The work is bounded for any input. An alignment of T by U tokens fills a table of T·U cells, 64 at a
time; what the texts share at both ends costs no table. If the rest still needs more than
`MAX_CELLS`, it is aligned window by window, in time linear in T + U: copied tokens are still
true copies, but the alignment may no longer be the shortest.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rapidfuzz.distance import Levenshtein

MAX_CELLS = 2**28
"""16,384 by 16,384 tokens, about 0.2 s."""
WINDOW_TOKENS = 2048

Block = tuple[bool, int, int, int, int]
"""Whether the tokens are equal, then the half-open ranges of response and of refinement."""


@dataclass(frozen=True)
class TokenDiff:
    """The diff from a response (T tokens) to its refinement (U tokens).

    Attributes:
        copied: U flags, 1 if the refined token is in the rollout at the aligned place.
        edit_distance: the number of token insertions, deletions and replacements; an upper bound of
            the smallest number for texts beyond `MAX_CELLS`.
        divergence: index of the first refined token that differs from the response's token at the
            same index; U if the refinement is a prefix of the response.
        sources: U half-open ranges of response tokens: the one that a copied token repeats, those
            that its hunk replaces, or the one before an insertion (the first token at the start).
        hunks: what is not copied, in order: half-open ranges of response tokens that are dropped
            and of refined tokens that are new; one of the two may be empty.
    """

    copied: tuple[int, ...]
    edit_distance: int
    divergence: int
    sources: tuple[tuple[int, int], ...]
    hunks: tuple[tuple[tuple[int, int], tuple[int, int]], ...]

    @property
    def copied_ratio(self) -> float:
        """Share of the refined tokens that were copied, in [0, 1]; 0 for an empty refinement."""
        return sum(self.copied) / len(self.copied) if self.copied else 0.0


def token_diff(answer_ids: Sequence[Hashable], refined_ids: Sequence[Hashable]) -> TokenDiff:
    """Align a refinement to the response it was made from; see `TokenDiff`."""
    copied: list[int] = []
    sources: list[tuple[int, int]] = []
    hunks: list[tuple[tuple[int, int], tuple[int, int]]] = []
    edits = 0
    for is_equal, group in groupby(_align(answer_ids, refined_ids), key=lambda block: block[0]):
        blocks = list(group)
        start, end = blocks[0][1], blocks[-1][2]
        first, last = blocks[0][3], blocks[-1][4]
        copied += [int(is_equal)] * (last - first)
        if is_equal:
            sources += [(index, index + 1) for index in range(start, end)]
            continue
        inserted_after = (max(start - 1, 0), max(start, 1))
        sources += [(start, end) if end > start else inserted_after] * (last - first)
        hunks.append(((start, end), (first, last)))
        edits += sum(max(b[2] - b[1], b[4] - b[3]) for b in blocks)
    return TokenDiff(
        copied=tuple(copied),
        edit_distance=edits,
        divergence=_common_prefix_length(answer_ids, refined_ids),
        sources=tuple(sources),
        hunks=tuple(hunks),
    )


def _align(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[Block]:
    """Blocks that cover both texts in order: whole if the table is small enough, else by
    windows.
    """
    prefix = _common_prefix_length(a, b)
    rest_a, rest_b = a[prefix:], b[prefix:]
    suffix = _common_prefix_length(rest_a[::-1], rest_b[::-1])
    cells = (len(rest_a) - suffix) * (len(rest_b) - suffix)
    if cells <= MAX_CELLS:
        yield from _blocks(a, b, 0, 0)
        return
    yield True, 0, prefix, 0, prefix
    yield from _align_by_windows(a, b, prefix, (len(a) - suffix, len(b) - suffix))
    yield True, len(a) - suffix, len(a), len(b) - suffix, len(b)


def _blocks(
    a: Sequence[Hashable], b: Sequence[Hashable], offset_a: int, offset_b: int
) -> Iterator[Block]:
    """The shortest alignment of two texts, its ranges moved by the offsets."""
    for block in Levenshtein.opcodes(a, b):
        yield (
            block.tag == "equal",
            block.src_start + offset_a,
            block.src_end + offset_a,
            block.dest_start + offset_b,
            block.dest_end + offset_b,
        )


def _align_by_windows(
    a: Sequence[Hashable], b: Sequence[Hashable], start: int, ends: tuple[int, int]
) -> Iterator[Block]:
    """Align the next `WINDOW_TOKENS` of both texts, accept the blocks of the first half, go on from
    there; the last window is accepted whole.
    """
    at_a = at_b = start
    while at_a < ends[0] or at_b < ends[1]:
        until_a, until_b = min(at_a + WINDOW_TOKENS, ends[0]), min(at_b + WINDOW_TOKENS, ends[1])
        is_last = until_a == ends[0] and until_b == ends[1]
        enough = WINDOW_TOKENS if is_last else WINDOW_TOKENS // 2
        from_a, from_b = at_a, at_b
        for block in _blocks(a[at_a:until_a], b[at_b:until_b], at_a, at_b):
            is_equal, start_a, end_a, start_b, end_b = _cut(block, from_a, from_b, enough)
            yield is_equal, start_a, end_a, start_b, end_b
            at_a, at_b = end_a, end_b
            if not is_last and max(at_a - from_a, at_b - from_b) >= enough:
                break


def _cut(block: Block, from_a: int, from_b: int, enough: int) -> Block:
    """The block, ended where either text has gone `enough` tokens beyond its start."""
    is_equal, start_a, end_a, start_b, end_b = block
    room = min(
        from_a + enough - start_a if end_a > start_a else enough,
        from_b + enough - start_b if end_b > start_b else enough,
    )
    return is_equal, start_a, min(end_a, start_a + room), start_b, min(end_b, start_b + room)


def _common_prefix_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    shared = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        shared += 1
    return shared
