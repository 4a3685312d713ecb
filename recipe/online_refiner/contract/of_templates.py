"""What every refiner template must hold, checked on problems and responses full of traps.

In a test of your own: `assert template_violations("path/to/mine.yaml") == []`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from refiner_worker.prompts import (
    BEFORE,
    FEEDBACK,
    RefineTemplate,
    load_template,
    parse_refinement,
    render,
)

PROBLEM = "Print {answer} and {problem}, then {'a': 1}."
RESPONSE = "```python\nprint({'b': 2})  # {before} {feedback}\n```"
WRITTEN, TOLD = "written so far {0}", "told {1}"


def template_violations(reference: str, settings: Sequence[str] = ()) -> list[str]:
    """What is wrong with the template, a sentence each; empty if it keeps the contract.

    Args:
        reference: a built-in name, or the path of a YAML file. settings: none are known.
    """
    if settings:
        return [f"a template has no settings: {' '.join(settings)}"]
    try:
        template = load_template(reference)
    except (ValueError, OSError) as error:
        return [str(error)]
    return list(_violations(template))


def _violations(template: RefineTemplate) -> Iterator[str]:
    messages = render(template, [{"role": "user", "content": PROBLEM}], RESPONSE, WRITTEN, TOLD)
    shown = messages[-1]["content"]
    for what, text in (("problem", PROBLEM), ("response", RESPONSE)):
        if shown.count(text) != 1:
            yield f"the refiner must be shown the {what} once, as it is"
    for placeholder, text in ((BEFORE, WRITTEN), (FEEDBACK, TOLD)):
        if template.takes(placeholder) != (text in shown):
            yield f"what stands for {placeholder} must be shown, and only then"
    if parse_refinement(template, RESPONSE) != RESPONSE:
        yield "an output without the template's marks must be read back unchanged"
    marked = f"{template.answer_open}{RESPONSE}{template.answer_close}"
    if parse_refinement(template, marked).strip("\n") != RESPONSE:
        yield "a response that the refiner repeats within the marks must be read back unchanged"
    if template.version < 1:
        yield f"version {template.version}: versions count from 1"
