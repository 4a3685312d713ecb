"""Which stretches of a long response are refined one after the other (`refiner.block_tokens`).

The blocks make up the answer, and their boundaries are boundaries of its tokens, so that a block
that comes back unchanged keeps the policy's own tokens. Ours; the paper (arXiv 2603.18088) names
block-wise refinement as future work.
"""

from collections.abc import Callable, Sequence


def plan_blocks(
    token_ids: Sequence[int], block_tokens: int, ends_line: Callable[[int], bool]
) -> list[tuple[int, ...]]:
    """Consecutive blocks of 1 to `block_tokens` tokens; one empty block of an empty response.

    A block ends after the last token of its second half that ends a line, and if there is none,
    when it is full. What fits into one block is not divided.

    Args:
        token_ids: the response without its end token.
        block_tokens: the longest block.
        ends_line: whether a token's text ends with a line break.
    """
    blocks: list[tuple[int, ...]] = []
    rest = tuple(token_ids)
    while len(rest) > block_tokens:
        half = (block_tokens + 1) // 2
        ends = [at for at in range(half, block_tokens + 1) if ends_line(rest[at - 1])]
        cut = ends[-1] if ends else block_tokens
        blocks.append(rest[:cut])
        rest = rest[cut:]
    return [*blocks, rest]


def fit_seams(block: str, refined: str, *, first: bool, last: bool) -> str:
    """`refined` with the block's own blanks where it meets the next and the previous block.

    Chat models drop the blanks around what they write; at a seam that would join two lines or lose
    an indentation. At the two ends of the response what the refiner writes stands.
    """
    if not first:
        refined = block[: len(block) - len(block.lstrip())] + refined.lstrip()
    if not last:
        refined = refined.rstrip() + block[len(block.rstrip()) :]
    return refined
