"""Look at every episode of runs: `python -m recipe.analysis.view RUN [RUN …]`.

Serves pages on this machine alone, from an index that is made on the first visit and follows the
runs while they go on. The runs are only read.
"""

import argparse
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from recipe.analysis.viewer.app import create_app
from recipe.analysis.viewer.index import cache_folder
from recipe.analysis.viewer.library import Library, Updater

HOST, PORT = "127.0.0.1", 8765


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; the exit status is 1 if no RUN exists or the port is taken."""
    options = build_parser().parse_args(arguments)
    absent = [path for path in options.runs if not path.exists()]
    if absent:
        print(f"{absent[0]}: does not exist; pass run folders, or a folder that holds some",
              file=sys.stderr)  # fmt: skip
        return 1
    cache = options.cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    library = Library(options.runs, cache)
    library.find()
    try:
        listener = socket.create_server((HOST, options.port))
    except OSError as error:
        print(f"--port {options.port}: {error.strerror}; choose another, or 0 for any free one",
              file=sys.stderr)  # fmt: skip
        return 1
    url = f"http://{HOST}:{listener.getsockname()[1]}/"
    print(f"{len(library.names)} runs at {url} (Ctrl-C ends it)", flush=True)
    if options.open:
        webbrowser.open(url)
    server = uvicorn.Server(uvicorn.Config(create_app(library), log_level="warning"))
    with listener, Updater(library):
        server.run(sockets=[listener])
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.analysis.view",
        description="Browse, search and compare every episode of runs, in a browser on this "
        "machine.",
        epilog="An index is kept in a cache folder and follows the runs; the runs are only read.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN",
        help="a run folder, or a folder that holds some"
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=PORT, help=f"default {PORT}; 0 takes any free one"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR",
        help="where the index is kept (default: online-refiner/viewer in the user's cache folder)",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
