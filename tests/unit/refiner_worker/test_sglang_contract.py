"""The client against SGLang, as far as no GPU is needed: verl's own server code between them.

What verl 0.9.1's SGLang server makes of our requests is run as it stands; only the engine behind it
is scripted, and answers in the form that SGLang's tokenizer manager gives its replies. The types
are SGLang's own where its files are at hand (installed, or unpacked at ONLINE_REFINER_SGLANG);
elsewhere they are stand-ins that know the recorded names of the locked release, and a request with
any other name fails. `sglang_types.json` is that record.
"""

import asyncio
import importlib
import importlib.abc
import importlib.util
import inspect
import json
import math
import os
import random
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from scripted_engine import Distribution, TableGenerator

from refiner_worker.acceptance import Sampling
from refiner_worker.client import RefineLimits
from refiner_worker.decoding import VerifySettings
from refiner_worker.engine import EXCLUDING_BIAS, Decoded, Engine

RECORD = json.loads(Path(__file__).with_name("sglang_types.json").read_text())
REAL = {
    "sglang.srt.managers.io_struct": "srt/managers/io_struct.py",
    "sglang.srt.sampling.sampling_params": "srt/sampling/sampling_params.py",
}
SERVER = "verl.workers.rollout.sglang_rollout.async_sglang_server"
END, VOCABULARY = 0, 10


def sglang_folder() -> Path | None:
    """SGLang's package folder; None where it is not at hand."""
    if given := os.environ.get("ONLINE_REFINER_SGLANG"):
        return Path(given) / "sglang"
    spec = importlib.util.find_spec("sglang")
    return Path(spec.origin).parent if spec and spec.origin else None


class AnyName(ModuleType):
    """A module of SGLang that is imported for its names only: each is a class of its own."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, type(name, (), {}))
        return self.__dict__[name]


class OnlyNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module of SGLang: those in REAL as they are, the others as `AnyName`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] != "sglang":
            return None
        if self._folder is not None and name in REAL:
            return importlib.util.spec_from_file_location(name, self._folder / REAL[name])
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = AnyName(spec.name)
        if spec.name == "sglang":
            module.__dict__["__version__"] = RECORD["version"]
        for kind, fields in RECORD["fields"].items():
            if self._folder is None and RECORD["modules"][kind] == spec.name:
                module.__dict__[kind] = recorded(kind, fields)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It is made of names, which come when they are asked for."""


def recorded(kind: str, names: Sequence[str]) -> type:
    """A stand-in that takes the recorded names and no other."""

    def take(self: Any, **given: Any) -> None:
        unknown = given.keys() - set(names)
        if unknown:
            raise TypeError(f"{kind} of SGLang {RECORD['version']} has no {sorted(unknown)}")
        self.__dict__.update(dict.fromkeys(names) | given)

    return type(kind, (), {"__init__": take})


@dataclass(frozen=True)
class Types:
    """verl's server, and SGLang's types as it sees them."""

    server: Any
    request: Any
    sampling: Any
    real: bool


@pytest.fixture(scope="module")
def types() -> Iterator[Types]:
    before = {name for name in sys.modules if name.partition(".")[0] == "sglang"}
    assert not before, "SGLang is imported already; run this file by itself"
    finder = OnlyNames(sglang_folder())
    sys.meta_path.insert(0, finder)
    known = set(sys.modules)
    try:
        server = importlib.import_module(SERVER)
        yield Types(
            server.SGLangHttpServer,
            importlib.import_module("sglang.srt.managers.io_struct").GenerateReqInput,
            importlib.import_module("sglang.srt.sampling.sampling_params").SamplingParams,
            real=sglang_folder() is not None,
        )
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - known:
            if "sglang" in name:
                del sys.modules[name]


@dataclass
class ScriptedSglang:
    """A model given by its distributions, in the place of SGLang's tokenizer manager.

    Replies have the form of `TokenizerManager._wait_one_response` with `skip_tokenizer_init`: log
    probabilities as (value, token id, None), the first prompt token without one, and the id of the
    vocabulary's last token replaced by 0, as the scheduler does (release 0.5.12).
    """

    types: Types
    table: TableGenerator
    sampled: list[Any] = field(default_factory=list)

    async def generate_request(self, request: Any, _: Any) -> AsyncIterator[dict[str, Any]]:
        sampling = self.types.sampling(**request.sampling_params)
        if self.types.real:
            request.normalize_batch_and_arguments()
            sampling.normalize(None)
            sampling.verify(VOCABULARY)
            assert (sampling.top_k == 1) == (request.sampling_params["temperature"] == 0)
        self.sampled.append(sampling)
        asked = {
            "temperature": request.sampling_params["temperature"],
            "max_tokens": sampling.max_new_tokens,
            "logit_bias": sampling.logit_bias or {},
        }
        output = self.table.answer(request.input_ids, asked).token_ids
        meta: dict[str, Any] = {"finish_reason": {"type": "stop"}}
        if request.return_logprob:
            meta |= self._log_probs(request, output)
        yield {"output_ids": output, "meta_info": meta}

    def _log_probs(self, request: Any, output: list[int]) -> dict[str, Any]:
        assert request.logprob_start_len == 0
        ids, most = request.input_ids, request.top_logprobs_num or 0
        own: list[Any] = [(None, ids[0], None)]
        top: list[Any] = [None]
        for at in range(1, len(ids)):
            model = self.table.model(tuple(ids[:at]))
            shown = ids[at] if ids[at] < VOCABULARY - 1 else 0
            own.append((math.log(model[ids[at]]), shown, None))
            best = sorted(model.items(), key=lambda item: -item[1])[:most]
            top.append([(math.log(p), token, None) for token, p in best])
        return {
            "input_token_logprobs": own,
            "input_top_logprobs": top,
            "output_token_logprobs": [(-1.0, token, None) for token in output],
        }


class Server:
    """verl's SGLang server of one replica, without its start: what its `generate` reads."""

    def __init__(self, types: Types, engine: ScriptedSglang, max_model_len: int = 64) -> None:
        self._types = types
        self._state = SimpleNamespace(
            config=SimpleNamespace(
                max_model_len=max_model_len,
                response_length=8,
                prompt_length=8,
                enable_rollout_routing_replay=False,
                mtp=None,
            ),
            tokenizer_manager=engine,
            lora_as_adapter=False,
            replica_rank=0,
            global_steps=3,
            _disaggregation_role="null",
            _pd_decode_peers=[],
        )

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        return await self._types.server.generate(
            self._state, prompt_ids, sampling_params, request_id
        )


def table(seed: int) -> TableGenerator:
    """A random model: each context has a distribution of its own."""
    source = random.Random(seed)

    def model(context: tuple[int, ...]) -> Distribution:
        weights = random.Random(hash((seed, *context))).choices(range(1, 50), k=VOCABULARY)
        return {token: weight / sum(weights) for token, weight in enumerate(weights)}

    def draw(distribution: Distribution) -> int:
        return source.choices(list(distribution), list(distribution.values()))[0]

    return TableGenerator(model, draw, end_ids=[END])


PROMPT = [7, 8]


def decode(
    types: Types, seed: int, temperature: float, draft: Sequence[int] | None
) -> tuple[Decoded, list[Any]]:
    """Decoded plainly where there is no draft, else by verify; and SGLang's sampling parameters."""
    engine = ScriptedSglang(types, table(seed))
    client = Engine(Server(types, engine), temperature)
    sampling = Sampling(temperature, vocabulary_size=VOCABULARY)
    how = VerifySettings(sampling, max_tokens=8, end_ids=frozenset({END}))
    work = client.plain(PROMPT, 8) if draft is None else client.verify(PROMPT, draft, how)
    return asyncio.run(work), engine.sampled


def test_plain_decoding_asks_for_the_whole_distribution(types: Types) -> None:
    got, (sampling,) = decode(types, 0, 1.0, None)
    assert sampling.max_new_tokens == 8
    assert sampling.temperature == sampling.top_p == 1.0
    assert sampling.top_k == (1 << 30 if types.real else -1)
    assert 1 <= len(got.token_ids) <= 8


def test_greedy_verification_through_sglang_is_plain_decoding(types: Types) -> None:
    rng = random.Random(0)
    for seed in range(60):
        plain, _ = decode(types, seed, 0.0, None)
        draft = list(plain.token_ids)
        for _ in range(rng.randrange(3)):
            draft[rng.randrange(len(draft))] = rng.randrange(VOCABULARY)
        verified, asked = decode(types, seed, 0.0, draft)
        assert verified.token_ids == plain.token_ids
        assert verified.engine_calls == len(asked)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_sampled_outputs_occur_as_often_as_in_plain_sampling(
    types: Types, temperature: float
) -> None:
    """Of the first token, 10 kinds: chi-square with 9 degrees of freedom, 99.9 % quantile 27.9."""
    runs = 400
    engine = ScriptedSglang(types, table(5))
    client = Engine(Server(types, engine), temperature)
    sampling = Sampling(temperature, vocabulary_size=VOCABULARY)
    how = VerifySettings(sampling, max_tokens=2, end_ids=frozenset({END}))
    draft = [VOCABULARY - 1, 4]  # the id that SGLang does not tell

    async def first_tokens() -> list[int]:
        done = [await client.verify(PROMPT, draft, how) for _ in range(runs)]
        return [one.token_ids[0] for one in done]

    seen = asyncio.run(first_tokens())
    weights = {t: p ** (1 / temperature) for t, p in engine.table.model(tuple(PROMPT)).items()}
    expected = {t: runs * weight / sum(weights.values()) for t, weight in weights.items()}
    assert sum((seen.count(t) - e) ** 2 / e for t, e in expected.items()) < 27.9


def test_a_rejected_token_is_excluded_by_a_bias_that_sglang_takes(types: Types) -> None:
    biases = [
        sampling.logit_bias
        for seed in range(20)
        for sampling in decode(types, seed, 1.0, [3, 4, 5])[1]
        if sampling.logit_bias
    ]
    assert biases
    assert all(list(bias.values()) == [EXCLUDING_BIAS] for bias in biases)


def test_the_longest_prompt_leaves_room_for_the_longest_output(types: Types) -> None:
    """verl keeps one place free on SGLang; an output cut there would be taken for a whole one."""
    limits = RefineLimits(
        max_prompt_tokens=6, max_response_tokens=4, deadline_s=1.0, max_concurrency=1
    )
    engine = ScriptedSglang(types, table(1))
    server = Server(types, engine, max_model_len=limits.context_tokens)
    asyncio.run(Engine(server, 0.0).plain([7] * 6, limits.max_output_tokens))
    assert engine.sampled[0].max_new_tokens == 4


def test_the_record_is_of_the_locked_release() -> None:
    lock = Path(__file__).resolve().parents[3] / "requirements" / "gpu-sglang.lock"
    assert f"\nsglang=={RECORD['version']} " in lock.read_text()


def test_the_record_names_what_sglang_takes(types: Types) -> None:
    if not types.real:
        pytest.skip("SGLang is not at hand: unpack its wheel and set ONLINE_REFINER_SGLANG")
    for kind, real in (("GenerateReqInput", types.request), ("SamplingParams", types.sampling)):
        assert list(inspect.signature(real).parameters) == RECORD["fields"][kind]
