"""What a browser hides is no program, and what it shows is one, by tags and their attributes."""

import time

import pytest

from reward.extract import extract, python_blocks
from reward.tags import hides, read

BLOCK = "```python\nprint(1)\n```"

STARTS = {
    "the attribute": "<div hidden>",
    "the attribute in capitals": "<DIV HIDDEN>",
    "the attribute with a value": "<div hidden=''>",
    "the attribute that says no": "<div hidden=false>",
    "the attribute that is found": "<div hidden='until-found'>",
    "the attribute among others": "<div id=a title='b > c' hidden lang=\"en\">",
    "the attribute after a slash": "<div/hidden>",
    "a start that looks like an end": "<div hidden/>",
    "the attribute over lines": "<div\n  id='a'\n  hidden\n>",
    "a value over lines": "<div title='\na' hidden>",
    "quotation marks that are none": '<div "a b" hidden>',
    "a popover": "<div popover>",
    "no display": "<div style='display:none'>",
    "no display, unquoted": "<div style=display:none>",
    "no display in capitals": "<DIV STYLE='DISPLAY : NONE'>",
    "no display as an entity": "<div style='display&#58;none'>",
    "no display with an escape": "<div style='d\\69splay:none'>",
    "no display with a comment": "<div style='display/**/:none'>",
    "no display behind another": "<div style='text-align:left; display:none'>",
    "no display, important": "<div style='display: none !important'>",
    "contents that are not visible": "<div style='visibility:hidden'>",
    "collapsed contents": "<div style='visibility:collapse'>",
    "no opacity": "<div style='opacity:0'>",
    "little opacity": "<div style='opacity:.01'>",
    "no size of letters": "<div style='font-size:0'>",
    "no height": "<div style='height:0;overflow:hidden'>",
    "no greatest height": "<div style='max-height:0;overflow:hidden'>",
    "out of the window": "<div style='position:absolute;left:-9999px'>",
    "out of the window by a margin": "<div style='margin-left:-9999px'>",
    "out of the window by an indent": "<div style='text-indent:-9999px'>",
    "cut off": "<div style='clip-path:inset(50%)'>",
    "shrunk": "<div style='transform:scale(0)'>",
    "not laid out": "<div style='content-visibility:hidden'>",
    "white on white": "<div style='color:white'>",
    "a white font": "<font color=white>",
    "a variable": "<div style='display:var(--x)'>",
    "a class for readers of screens": "<div class='sr-only'>",
    "a class of hidden things": "<div class='box hidden'>",
    "within a line": "Some <span hidden> text",
    "within a line that goes on": "Some <span\nhidden> text",
    "within a heading": "# A <b hidden> heading",
    "in a quote": "> <div hidden>",
    "over the lines of a quote": "> <div\n> hidden>",
    "over lines within a quote": "> x <span\n> hidden>",
    "in an item": "- <div hidden>",
    "in a paragraph": "<p hidden>",
    "in a section": "<section hidden>",
    "in a table": "<table hidden><tr><td>",
    "in an element of one's own": "<my-box hidden>",
    "after a comment": "<!-- a --> <div hidden>",
    "behind a comment that ends at once": "<!--> <div hidden> -->",
    "behind a comment that ends otherwise": "<!-- a --!> <div hidden> -->",
    "behind an instruction that ends at once": "<? > <div hidden> ?>",
    "behind a link's quotation marks": "[a](/u '`') <div hidden> `b`",
    "behind a label's": "x [a][`b] <span hidden> `c`",
    "behind an element that is not": '<div title="<b>" hidden>',
    "behind a value in a value": "<a title='<b id=\"'> <div hidden>",
    "a formula": "<math><semantics><mtext>a</mtext><mtext>",
    "a drawing of no size": "<svg><foreignObject>",
    "what moves": "<marquee>",
    "what goes from right to left": "<bdo dir=rtl>",
    "a value that does not end": '<div title="a\n',
    "an attribute that the next block gives": '<div "\n\n<p hidden>\n</p>',
    "a value that the next block ends": '<div title=\n\n<p x="a\n',
    "what is never shown, unfinished": "<div>\n<template x",
    "a tag in what is hidden, unfinished": "<div hidden>\n<b x\n\n</div>",
    "an end tag whose value does not end": '<div>\n</div title="a\n',
    "nested ones": "<div hidden><div></div>",
    "nested ones that are badly nested": "<div hidden><b><i></b></i></div>",
    "an end tag in code": "<div hidden>\n\nx `</div>`",
    "an end tag in a block of code": "<div hidden>\n\n```\n</div>\n```",
    "an end tag in raw code": "<div hidden>\n```\n</div>\n```",
    "an end tag by indentation": "<div hidden>\n\n    </div>",
    "an end tag that is escaped": "<div hidden>\n\nx \\</div>",
    "an end tag in a title": "<div hidden>\n\n[a](/u '</div>')",
    "an end tag in a label": "<div hidden>\n\n[</div>]: /u",
    "an end tag in an attribute": "<div hidden>\n<a title='</div>'></a>",
    "an end tag in a comment": "<div hidden>\n<!-- </div> -->",
    "an end tag in a paragraph": "<div>\nx <span hidden>\n\ny </span> z",
    "an end tag in a cell": "<div hidden>\n\n|a|\n|-|\n|</div>|",
    "an end tag in a table": "<div hidden><table><tr><td></div>",
    "an end tag in a formula": "<div hidden>\n\nx $</div>$",
    "an end tag in text as it stands": "<div hidden><xmp></div></xmp></div>",
    "an end tag after all tags": "<div hidden><plaintext></plaintext></div>",
    "an end tag of another": "<div hidden></span></div>",
    "an end tag of another's letters": "<mark hidden>\n</mar\u212a>",
    "an end tag deeper down": "<b hidden>\n\n> </b>",
    "an end of what is never shown, in an attribute": "<template><a title='</template>'>",
    "what is never shown in what is hidden": "<div hidden><textarea></div></textarea></div>",
}
"""Each hides all that comes after it."""

REACHING = {
    "a style sheet": "<style>pre { display: none }</style>",
    "a style sheet that never ends": "x <style> pre{display:none}",
    "a style sheet in a hidden element": "<div hidden><style>pre{display:none}</style></div>",
    "a style sheet elsewhere": "<link rel=stylesheet href='//example.org/a.css'>",
    "a script": "<script>document.body.remove()</script>",
    "a script elsewhere": "<script src='//example.org/a.js'></script>",
    "a handler": "<img src=x onerror='document.body.remove()'>",
    "a handler within a line": 'x <b onclick="a()">y</b>',
    "a frame with a script": "<iframe srcdoc='<script>parent.document.body.remove()</script>'>",
    "the page's body": "<body hidden>",
    "the page": "<html style='display:none'>",
    "a root in the shadows": "<template shadowrootmode=open></template>",
    "another page": "<meta http-equiv=refresh content='0;url=//example.org'>",
}
"""Each may hide all of the page, what comes before it as well."""

SHOWING = {
    "a comparison": "If a < b and c > d:",
    "a comparison without blanks": "Since i<n and n>0 it ends.",
    "generics": "A List<int>, a vector<int> or a Map<String, List<T>>.",
    "a placeholder": "The first line has <n> and <hidden>.",
    "thoughts": "<think>\nWe need i<n and\nj <m\n\nSo it is.\n</think>",
    "thoughts with a tag that is none": "<think>\nSince i<n and j <m\n\n</think>",
    "thoughts that end within a line": "<think>a < b</think>",
    "an answer": "<answer>",
    "an answer to code": '<answer>\n```text\nif a<b:\n    print("x")\n```\n</answer>',
    "a span of code": "Use `<div hidden>` and `<script>`.",
    "an escape": "Use \\<div hidden>.",
    "a block of code": "```html\n<div hidden>\n<script src='a'></script>\n```",
    "code by indentation": "Text\n\n    <div hidden>",
    "a link": "See [the `hidden` attribute](https://example.org/a) or <https://example.org/?hidden>.",
    "a fold": "<details>\n<summary>Solution</summary>",
    "a centred box": "<div align='center' style='text-align: center; margin: 0 auto'>",
    "a break": "a<br>b<br/>c<hr hidden>",
    "a picture": "<img src='a.png' style='display:none' alt='hidden'>",
    "an attribute of another name": "<div data-hidden aria-hidden='true' title='hidden'>",
    "an attribute's value": "<div title='<div hidden>'>",
    "a table": "<table><tr><td>1</td></tr></table>",
    "colours": "Some <span style='color:red'>red</span> text.",
    "a note": "<span hidden>a note</span> Text.",
    "hidden ones": "<div hidden>\n\n```python\nprint(2)\n```\n\n</div>",
    "hidden ones in hidden ones": (
        "<div hidden>\n<div>\n\n```python\nprint(2)\n```\n\n</div><br>\n</div>"
    ),
    "hidden ones in a list": "- <b hidden>x</b>\n- y",
    "hidden ones over paragraphs": "x <span style='opacity:0'>\n\ny </span> z",
    "an end tag": "</div>",
    "a tag that is cut off": "We have <div hidden",
    "what is never shown": "the <title>x</title> tag",
    "an odd comment": "<!-- a -- b -->",
}
"""None of them hides what comes after it."""

AFTER = {
    "a style sheet that is only named": "That is the <style> tag.",
    "a script that is only named": "It removes <script> tags.",
    "a link that is no style sheet": "<link rel=icon href=a>",
    "an element without contents": "<div hidden>",
    "a handler in code": "Use `<b onclick=f()>`.",
}
"""None of them hides what comes before it."""


@pytest.mark.parametrize("form", STARTS)
def test_nothing_in_a_hidden_element_is_run(form: str) -> None:
    assert extract(f"{STARTS[form]}\n\n{BLOCK}\n") is None
    assert extract(f"{STARTS[form]}\n{BLOCK}\n") is None


@pytest.mark.parametrize("form", REACHING)
def test_nothing_on_a_page_that_may_be_hidden_whole_is_run(form: str) -> None:
    assert extract(f"{REACHING[form]}\n\n{BLOCK}\n") is None
    assert extract(f"{BLOCK}\n\n{REACHING[form]}\n") is None


@pytest.mark.parametrize("form", SHOWING)
def test_ordinary_text_hides_nothing(form: str) -> None:
    assert extract(f"{SHOWING[form]}\n\n{BLOCK}\n") == "print(1)\n"


@pytest.mark.parametrize("form", [*SHOWING, *AFTER])
def test_what_comes_after_a_program_seldom_hides_it(form: str) -> None:
    text = SHOWING.get(form) or AFTER[form]
    assert "print(1)\n" in python_blocks(f"{BLOCK}\n\n{text}\n")


def test_the_tables_hold_many_forms() -> None:
    assert len(STARTS) >= 70
    assert len(SHOWING) >= 25


@pytest.mark.parametrize(
    "style",
    [
        "",
        ";",
        "text-align:center",
        "TEXT-ALIGN : Center ;",
        "display:block; margin: 0 auto; padding:10px 5%",
        "width:50%",
        "max-width: 800px",
        "font-size:14px; font-weight:bold; font-family:'Courier New', monospace",
        "border:1px solid #ccc; border-radius:5px",
    ],
)
def test_harmless_styles_hide_nothing(style: str) -> None:
    assert not hides(read(f'<div style="{style}">', 0))


@pytest.mark.parametrize(
    "style",
    [
        "margin:-9px",
        "margin:999px",
        "width:0px",
        "width:1px",
        "font-size:1px",
        "font-size:0em",
        "display:contents; content-visibility:hidden",
        "text-align:center;;;x",
        "text-align:center}",
        "border:99999px solid white",
    ],
)
def test_a_style_of_which_that_is_not_known_may_hide(style: str) -> None:
    assert hides(read(f'<div style="{style}">', 0))


HOSTILE = {
    "comments": "<!--",
    "comments that end otherwise": "x <!-- --!>",
    "comments within lines": "x <!-- --> <!",
    "instructions": "x <?",
    "instructions that end at once": "x <? >",
    "sections": "x <![CDATA[",
    "tags": "x <a ",
    "tags over lines": "x <a \nb ",
    "tags with values": "x <a b='<a c=\"",
    "tags with attributes": " a=b",
    "hidden elements": "<div hidden>",
    "hidden elements within lines": "x <b hidden> ",
    "elements in one another": "<div hidden><div>",
    "elements that end": "x <span hidden>y</span> ",
    "elements that are never shown": "x <template>",
    "never shown ones that end": "x <title></title> ",
    "quotation marks": "x ` <b hidden> `` ",
    "links": "](<",
    "labels": "][\n",
    "blanks": " ",
    "end tags": "</",
    "style sheets": "<style>",
    "classes": "<p class='hidde' ",
    "styles": "<p style='a:b;",
}
_SIZES = (1 << 13, 1 << 16)


def _seconds(text: str) -> float:
    start = time.process_time()
    extract(f"<div>\n{text}\n\n{text}\n\n{BLOCK}\n")
    return time.process_time() - start


@pytest.mark.parametrize("form", HOSTILE)
def test_the_time_grows_as_the_text(form: str) -> None:
    """Eight times the text: in quadratic time it would take 64 times as long."""
    piece = HOSTILE[form]
    small, large = (min(_seconds(piece * (n // len(piece))) for _ in range(2)) for n in _SIZES)
    assert large < 20 * max(small, 0.002)
