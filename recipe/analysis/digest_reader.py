"""Reading an episode file that may be growing, torn, or written again by a resumed run."""

from collections.abc import Sequence
from pathlib import Path

from recipe.analysis.episodes import EpisodeDigest, digest
from recipe.analysis.records import Finding, Line, Mark, condense, read_jsonl_from


class DigestReader:
    """Reads an `episodes.jsonl`, and when it is asked again only what has been added since.

    A file that was rewritten, as a resumed run does, is read from its beginning.
    """

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._mark = Mark()
        self._digests: list[EpisodeDigest] = []
        self._problems: list[tuple[int, str]] = []

    def read(self, path: Path) -> tuple[tuple[EpisodeDigest, ...], tuple[Finding, ...]]:
        """Digests of all episodes; a missing file, bad lines and void steps become findings."""
        try:
            if not self._mark.is_in(path):
                self._forget()
            digests, problems = self._read_on(path)
        except FileNotFoundError:
            message = "missing: no counts of refinements, no heat map from this run"
            return (), (Finding(path, message),)
        except OSError as error:
            return (), (Finding(path, f"cannot be read ({error.strerror})"),)
        kept, superseded = drop_superseded(digests)
        findings = condense(path, problems)
        if superseded:
            message = (
                f"{superseded} episodes of steps that a resume repeated; the later ones are used"
            )
            findings += (Finding(path, message),)
        return kept, findings

    def _read_on(self, path: Path) -> tuple[list[EpisodeDigest], list[tuple[int, str]]]:
        """All digests and problems; what a last, growing line gives is not kept for next time."""
        for line, mark in read_jsonl_from(path, self._mark):
            digests, problems = _digest_line(line)
            if mark.lines < line.number:
                return self._digests + digests, self._problems + problems
            self._digests += digests
            self._problems += problems
            self._mark = mark
        return self._digests, self._problems


def _digest_line(line: Line) -> tuple[list[EpisodeDigest], list[tuple[int, str]]]:
    """The digest of a line, if it has one, and what is amiss with it."""
    problems = [(line.number, line.problem)] if line.problem is not None else []
    if line.record is None:
        return [], problems
    item, problem = digest(line.record, line.offset)
    if problem is not None:
        problems.append((line.number, problem))
    return ([] if item is None else [item]), problems


def drop_superseded(digests: Sequence[EpisodeDigest]) -> tuple[tuple[EpisodeDigest, ...], int]:
    """Keep the last writing of each step, and count what is dropped.

    Episodes are written in the order of their steps, so a step lower than the one before it means
    that the run was resumed there, and that earlier lines at or beyond that step are void.
    """
    kept: list[EpisodeDigest] = []
    for item in digests:
        if kept and item.step < kept[-1].step:
            while kept and kept[-1].step >= item.step:
                kept.pop()
        kept.append(item)
    return tuple(kept), len(digests) - len(kept)
