"""The viewer's pages over HTTP, for one reader on the same machine.

Every page is made on the server from the index and the run's files; the only script is our own.
Addresses hold the whole state, so that any view can be passed on as a link. Only requests that name
a loopback host are answered, since any page in a reader's browser could otherwise reach the server
under a name of its own.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from recipe.analysis.page import environment, style_values
from recipe.analysis.reading import WORDS
from recipe.analysis.viewer.cards import MAX_TOKENS
from recipe.analysis.viewer.index import RunIndex
from recipe.analysis.viewer.library import Library
from recipe.analysis.viewer.pages import Side, compare_page, episode_page, find_row, list_page
from recipe.analysis.viewer.query import SORTS, Question
from recipe.analysis.viewer.rows import Source

HOSTS = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
EVERY_TOKEN = 10**9


class NotFound(Exception):
    """Something that an address names is not there; the message is for the reader."""


class Viewer:
    """The endpoints over a library of runs."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def list(self, request: Request) -> Response:
        """Prompts as groups of rollouts, or rollouts in an order."""
        question = Question.read(request.query_params)
        if not self._library.names:
            return self._render("viewer_empty.html.jinja", status=404)
        if not question.run:
            question = Question.read({**request.query_params, "run": self._library.names[0]})
        index = self._index(question.run)
        listing = list_page(index, question)
        return self._render(
            "viewer_list.html.jinja", question=question, listing=listing, sorts=SORTS
        )

    def episode(self, request: Request) -> Response:
        """One rollout and its refinement."""
        values = request.query_params
        question = Question.read(values)
        index = self._index(question.run)
        source, offset = _place(values)
        row = find_row(index, source, offset)
        if row is None:
            raise NotFound("This rollout is not in the index: the run's file may have changed.")
        most = EVERY_TOKEN if values.get("all") == "1" else MAX_TOKENS
        colour = values.get("colour", "")
        page = episode_page(index, row, question, colour, most)
        return self._render(
            "viewer_episode.html.jinja", question=question, page=page, colour=colour
        )

    def compare(self, request: Request) -> Response:
        """Two runs, or two steps of one, on the same problem."""
        values = request.query_params
        problem, colour = values.get("problem", ""), values.get("colour", "")
        sides = []
        for side in ("left", "right"):
            run = values.get(f"{side}_run", "") or self._first()
            step = Question.read({"step": values.get(f"{side}_step", "")}).step
            sides.append(Side(run, self._index(run), step))
        columns = compare_page(sides, problem, colour, MAX_TOKENS)
        return self._render(
            "viewer_compare.html.jinja", problem=problem, columns=columns, colour=colour
        )

    def state(self, request: Request) -> Response:
        """How far a run is, for the page to say that there is more."""
        run = request.query_params.get("run", "") or self._first()
        state = self._index(run).state()
        return JSONResponse(
            {
                "episodes": state.episodes,
                "last_step": state.last_step,
                "behind_bytes": state.behind_bytes,
                "runs": len(self._library.names),
            }
        )

    def style(self, _: Request) -> Response:
        """The style sheet, with the report's colours."""
        text = environment().get_template("viewer.css.jinja").render(style_values())
        return Response(text, media_type="text/css")

    def script(self, _: Request) -> Response:
        """The script: keys, sliders, and asking whether there is more."""
        text = environment().get_template("viewer.js.jinja").render()
        return Response(text, media_type="text/javascript")

    def missing(self, _: Request, error: Exception) -> Response:
        """A page that says what is not there."""
        return self._render("viewer_missing.html.jinja", status=404, message=str(error))

    def changed(self, _: Request, error: Exception) -> Response:
        """A file changed between the index and the reading of it."""
        message = f"The run's file changed while it was read; go back and reload. ({error})"
        return self._render("viewer_missing.html.jinja", status=409, message=message)

    def _first(self) -> str:
        if not self._library.names:
            raise NotFound("There is no run here yet.")
        return self._library.names[0]

    def _index(self, name: str) -> RunIndex:
        if name not in self._library:
            raise NotFound(f"No run is called “{name}” here.")
        return self._library[name]

    def _render(self, template: str, status: int = 200, **values: Any) -> Response:
        values |= {
            "ce_words": WORDS,
            "runs": self._library.names,
            "error": self._library.error,
            "address": address,
        }
        text = environment().get_template(template).render(values)
        return HTMLResponse(text.encode("utf-8", "replace"), status)


def address(path: str, query: str = "", **values: object) -> str:
    """An address on this server: a path, a query that is already encoded, and further values."""
    more = urlencode({key: str(value) for key, value in values.items() if value not in ("", None)})
    joined = "&".join(part for part in (query, more) if part)
    return f"{path}?{joined}" if joined else path


def _place(values: Mapping[str, str]) -> tuple[Source, int]:
    """The file and the byte at which a rollout is logged."""
    name, offset = values.get("file", "episodes").upper(), values.get("at", "")
    if name not in Source.__members__ or not offset.isascii() or not offset.isdecimal():
        raise NotFound(
            "The address names no rollout: it needs file=episodes or rollouts, and at=…."
        )
    return Source[name], min(int(offset[:19]), 2**62)


async def _with_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    response = await call_next(request)
    response.headers.update(HEADERS)
    return response


def create_app(library: Library) -> Starlette:
    """The application over the runs of a library."""
    viewer = Viewer(library)
    for name in environment().list_templates(filter_func=lambda name: name.startswith("viewer")):
        # Compiled here, so that the first visit does not wait for it.
        environment().get_template(name)
    return Starlette(
        routes=[
            Route("/", viewer.list),
            Route("/episode", viewer.episode),
            Route("/compare", viewer.compare),
            Route("/state", viewer.state),
            Route("/viewer.css", viewer.style),
            Route("/viewer.js", viewer.script),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS)),
            Middleware(BaseHTTPMiddleware, dispatch=_with_headers),
        ],
        exception_handlers={
            NotFound: viewer.missing,
            OSError: viewer.changed,
            ValueError: viewer.changed,
        },
    )
