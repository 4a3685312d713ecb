"""HumanEval-form problems: assertions in one process, the candidate in another.

    checker (test code, expected values) ──calls──> candidate (the program)
                                         <─results─

Both are confined children of the zygote; neither can reach the other but through this connection.
The test code sees plain values only (`codec`), so no object of the candidate's can claim to equal
an expected one, and the candidate cannot touch the assertions, their frames or the outcome. What
remains in its hands is what it answers. Arguments are copies; lists, dictionaries, sets and byte
arrays that the candidate changed in place are changed in the checker too.
"""

import builtins
import contextlib
import json
import os
import socket
import sys
import types
from collections import deque
from typing import Any, NoReturn

from reward.sandbox import codec, forms, runner, suite, wire
from reward.sandbox.errors import TEXT_LENGTH, Errors, awaited
from reward.sandbox.preamble import call_namespace
from reward.sandbox.process import read_all
from reward.sandbox.record import Record
from reward.sandbox.wire import DIED, PASSED, End

TEST_MODULE = "test_program"

_MUTABLE = (list, dict, set, bytearray, deque)


def serve_candidate(content: int, code_bytes: int, sock: socket.socket, record: Record) -> NoReturn:
    """Compile and run the program, then answer calls of its functions.

    Standard input is empty.
    """
    code = runner.compile_program(content, code_bytes, record)
    os.close(content)
    namespace = runner.fresh_main({})
    runner.fresh_streams()
    try:
        exec(code, namespace)
    except BaseException as error:  # whatever untrusted code raises
        memory = isinstance(error, MemoryError)
        record.end(0, End.MEMORY if memory else End.EXCEPTION, type(error).__name__)
        os._exit(1)
    wire.send_frame(sock, {"ready": True})
    while True:
        try:
            frame = wire.receive_frame(sock)
        except wire.ConnectionLost:
            os._exit(0)
        with contextlib.suppress(OSError):  # a program may have closed its standard error
            runner.empty(2)
        wire.send_frame(sock, _call(namespace, frame))


def _call(namespace: dict[str, Any], frame: dict[str, Any]) -> dict[str, Any]:
    name = frame["function"]
    try:
        if name not in namespace:
            raise NameError(f"name {name!r} is not defined")
        arguments, named = codec.loads(frame["arguments"])
        result = namespace[name](*arguments, **named)
        return {"result": codec.dumps(result), "arguments": codec.dumps(arguments)}
    except BaseException as error:  # whatever untrusted code raises
        names = [kind.__name__ for kind in type.mro(type(error))]
        return {"error": names, "text": _text(error), "arguments": _arguments(error)}


def _text(error: BaseException) -> str:
    try:
        return str(error)[:TEXT_LENGTH]
    except BaseException:  # an exception class of the program's own
        return ""


def _arguments(error: BaseException) -> str:
    try:
        return codec.dumps(error.args)
    except BaseException:  # as above
        return codec.dumps(())


def run_checker(content: int, entry: str, sock: socket.socket, output_fd: int) -> NoReturn:
    """Run the test program against the candidate behind `sock`.

    The outcome goes to `output_fd`, which the candidate's process does not have, as JSON: [End.OK,
    PASSED], [End.OK, what failed], another `End` where the candidate itself raised or died, or
    End.PROBLEM where the test itself is at fault.
    """
    parts = json.loads(read_all(content))
    os.close(content)
    line = Line(sock)
    runner.fresh_streams()
    try:
        line.receive()  # the program has been compiled and run to its end
        end, detail = _run_test(parts["prompt"], parts["test"], entry, line)
    except BaseException as error:  # an assertion, or the test code tripping over a wrong result
        end, detail = _failure(error, line)
    if line.died:  # whatever the test made of it
        end, detail = End.EXCEPTION, DIED
    os.write(output_fd, json.dumps([end, detail]).encode())
    os._exit(0)


def _run_test(prompt: str, test: str, entry: str, line: "Line") -> tuple[End, str]:
    namespace = runner.fresh_main(call_namespace(), TEST_MODULE)
    _run_prompt(prompt, namespace)
    code = compile(test, "<test>", "exec")
    names = names_in(code)
    unknown = names - namespace.keys() - vars(builtins).keys()
    line.errors = Errors(awaited(test, unknown - {entry}), names)
    for name in unknown | {entry}:
        namespace[name] = line.errors.own.get(name) or Candidate(line, name)
    forms.silence_main(names)
    _execute(code, namespace)
    check = namespace.get("check")
    if isinstance(check, types.FunctionType):
        if "check" in names_in(check.__code__):  # no test calls itself: the program's is meant
            namespace["check"] = Candidate(line, "check")
        check(namespace[entry])
    elif suite.wanted(names):
        suite.run(sys.modules[TEST_MODULE], lambda: line.calls)
    else:
        forms.run(namespace)
    if line.calls == 0:
        return End.PROBLEM, "the test never calls the program"
    return End.OK, PASSED


def _execute(code: types.CodeType, namespace: dict[str, Any]) -> None:
    """Run a test program's statements; one that ends by exiting with success has just ended."""
    try:
        exec(code, namespace)
    except SystemExit as error:
        if error.code not in (None, 0):
            raise


def _failure(error: BaseException, line: "Line") -> tuple[End, str]:
    """What a test that ended by `error` says."""
    name = type(error).__name__
    blamed = error.__cause__ if isinstance(error, forms.NotATest) else error
    if any(blamed is raised for raised in line.raised):
        return (End.MEMORY if isinstance(error, MemoryError) else End.EXCEPTION), name
    if isinstance(error, ImportError) and error.name == suite.NAME:
        return End.PROBLEM, suite.INSTALL
    if isinstance(error, ImportError | forms.NotATest) or suite.is_refusal(error):
        return End.PROBLEM, f"the test cannot be run: {name}: {error}"[:200]
    return End.OK, name


def _run_prompt(prompt: str, namespace: dict[str, Any]) -> None:
    """Define what the prompt defines beside the function to complete: helpers and imports.

    A prompt that stops inside a statement is run up to the last line where it does not.
    """
    lines = prompt.splitlines(keepends=True)
    for count in range(len(lines), 0, -1):
        with contextlib.suppress(SyntaxError):
            code = compile("".join(lines[:count]), "<prompt>", "exec")
            exec(code, namespace)
            return


class CandidateDied(BaseException):
    """The candidate's process ended in the middle of a call."""


class Line:
    """The connection to the candidate's process, and the exceptions that came over it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.calls = 0
        self.died = False
        self.raised: list[BaseException] = []
        self.errors = Errors()

    def receive(self) -> dict[str, Any]:
        try:
            return wire.receive_frame(self.sock)
        except wire.ConnectionLost as error:
            self.died = True
            raise CandidateDied from error

    def ask(self, frame: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        try:
            wire.send_frame(self.sock, frame)
        except OSError as error:
            self.died = True
            raise CandidateDied from error
        return self.receive()


class Candidate:
    """A function of the candidate's as the test code sees it."""

    def __init__(self, line: Line, name: str) -> None:
        self._line, self._name = line, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        sent = codec.dumps((arguments, named))
        reply = self._line.ask({"function": self._name, "arguments": sent})
        if "error" in reply:
            names = [str(name)[:TEXT_LENGTH] for name in reply["error"]]
            given = codec.loads(reply["arguments"])
            error = self._line.errors.build(names, str(reply["text"]), given)
            self._line.raised.append(error)
            raise error
        _write_back(arguments, codec.loads(reply["arguments"]))
        return codec.loads(reply["result"])


def names_in(code: types.CodeType) -> set[str]:
    """All names that `code` and the functions in it look up."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


def _write_back(arguments: tuple[Any, ...], after: list[Any]) -> None:
    """Repeat in `arguments` what the candidate did to its copies."""
    for mine, theirs in zip(arguments, after, strict=True):
        if type(mine) not in _MUTABLE or type(mine) is not type(theirs) or mine == theirs:
            continue
        mine.clear()
        if isinstance(mine, dict | set):
            mine.update(theirs)
        else:
            mine.extend(theirs)
