"""`python -m reward.serve`: the judge as an HTTP service, for programs that cannot import it.

It speaks the request forms of SandboxFusion's `run_code` and `submit`, so that clients of that work
unchanged, and `judge`, which gives the library's own verdict. What does not fit into the queue is
answered with 429. There is no authentication: it listens on the loopback unless told otherwise.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence

from aiohttp import web

from reward.config import JudgeConfig, JudgeConfigError, add_settings_option, parse_settings
from reward.judge import Judge
from reward.sandbox.client import SandboxError
from reward.service import MAX_BODY_BYTES, Service


def application(judge: Judge, max_queue: int) -> web.Application:
    """The service over a judge that its caller closes; at most `max_queue` requests at once."""
    service = Service(judge, max_queue)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/run_code", service.run_code)
    app.router.add_post("/submit", service.submit)
    app.router.add_post("/judge", service.judge_program)
    app.router.add_get("/health", service.health)
    app.router.add_get("/v1/ping", service.ping)
    app.router.add_get("/metrics", service.metrics)
    return app


async def _serve(judge: Judge, options: argparse.Namespace) -> None:
    runner = web.AppRunner(application(judge, options.max_queue), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port)
    await site.start()
    for address in runner.addresses:
        print(f"judging at http://{address[0]}:{address[1]}", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; 1 if the judge or the address cannot be had."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    try:
        config = JudgeConfig.from_mapping(parse_settings(options.set))
        with Judge(config) as judge:
            asyncio.run(_serve(judge, options))
    except KeyboardInterrupt:
        return 0
    except (JudgeConfigError, SandboxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reward.serve", description="Serve the judge over HTTP."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (the loopback)")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument(
        "--max-queue",
        type=int,
        default=1024,
        help="requests that wait or run at once; others are answered with 429",
    )
    add_settings_option(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
