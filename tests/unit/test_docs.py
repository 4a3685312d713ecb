"""Links between the project's documents lead somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

REPO_ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".venv", ".venv-gpu", ".git", "runs", "node_modules", ".pytest_cache"}
# [text](target "title"), ![text](target), [label]: target, <img src="target">
LINK = re.compile(
    r"""\]\(\s*<?([^)\s>]+)>?(?:\s+"[^"]*")?\s*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)="([^"]+)\"""",
    re.MULTILINE,
)
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def documents() -> list[Path]:
    found = REPO_ROOT.rglob("*.md")
    return sorted(path for path in found if not SKIPPED & set(path.relative_to(REPO_ROOT).parts))


def link_targets(text: str) -> list[str]:
    """Targets of the links that stay inside the repository."""
    targets = ["".join(match) for match in LINK.findall(CODE.sub("", text))]
    return [target for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|//", target)]


def anchors(text: str) -> set[str]:
    """GitHub's anchors of the headings: lower case, punctuation dropped, spaces to hyphens."""
    headings = HEADING.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def is_dead(document: Path, target: str) -> bool:
    """Whether neither file, line of code (#L12) nor heading is at the target."""
    path, _, fragment = unquote(target).partition("#")
    file = (document.parent / path).resolve() if path else document
    if not file.exists() or not file.is_relative_to(REPO_ROOT):
        return True
    lines = re.fullmatch(r"L(\d+)(?:-L(\d+))?", fragment)
    if lines:
        return int(lines[2] or lines[1]) > len(file.read_text().splitlines())
    return bool(fragment) and file.suffix == ".md" and fragment not in anchors(file.read_text())


def test_links_of_each_form_are_found_and_those_in_code_are_not() -> None:
    text = (
        '[a](b.md) ![c](d.png "e") <img src="f.svg"> `[g](h)` [i](https://j.k)\n[l]: m.md#n\n'
        "```\n[o](p)\n```\n"
    )
    assert link_targets(text) == ["b.md", "d.png", "f.svg", "m.md#n"]


def test_anchors_are_those_of_github() -> None:
    assert anchors("# One training step\n## `λ` and (its) limits\n") == {
        "one-training-step",
        "λ-and-its-limits",
    }


def test_a_link_is_dead_when_file_line_or_heading_is_missing(tmp_path: Path) -> None:
    document = REPO_ROOT / "CONTRIBUTING.md"
    assert not is_dead(document, "LICENSE#L1-L3")
    assert is_dead(document, "LICENSE#L99999")
    assert is_dead(document, "no-such-file.md")
    assert is_dead(document, "CONTRIBUTING.md#no-such-heading")
    assert is_dead(document, str(tmp_path))


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.name))
def test_relative_links_lead_somewhere(document: Path) -> None:
    dead = [target for target in link_targets(document.read_text()) if is_dead(document, target)]
    assert dead == [], f"{document.relative_to(REPO_ROOT)} links to what is not there"
