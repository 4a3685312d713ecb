"""What `refiner.decoding: auto` stands for on each engine."""

import pytest

from refiner_worker.choice import EngineAtHand, choose
from refiner_worker.engine import server_overrides


@pytest.mark.parametrize(
    ("engine", "decoding", "why"),
    [
        (EngineAtHand("vllm", "0.28.0", "cpu", 0.0), "copy", "vLLM 0.28.0"),
        (EngineAtHand("vllm", "0.24.0+cpu", "cpu", 1.0), "copy", "vLLM 0.24.0"),
        (EngineAtHand("vllm", "0.27.1", "cpu", 1.0), "copy", "vLLM 0.27.1"),
        (EngineAtHand("vllm", "0.24.0", "cuda", 0.0), "copy", "vLLM 0.24.0 takes our proposer"),
        (EngineAtHand("vllm", "0.28.1", "cuda", 1.0), "ngram", "scripts/gpu_acceptance.py"),
        (
            EngineAtHand("vllm", "0.25.0", "cuda", 0.0),
            "ngram",
            "vLLM 0.25.0 takes our proposer too",
        ),
        (EngineAtHand("vllm", "0.24.0", "rocm", 0.0), "ngram", "on rocm"),
        (EngineAtHand("vllm", "0.23.0", "cpu", 0.0), "ngram", "written for 0.24 to 0.28"),
        (EngineAtHand("vllm", "0.280.0", "cpu", 0.0), "ngram", "written for 0.24 to 0.28"),
        (EngineAtHand("vllm", None, "cuda", 0.0), "ngram", "not known"),
        (EngineAtHand("sglang", "0.5.12", "cuda", 1.0), "ngram", "SGLang"),
        (EngineAtHand("sglang", "0.5.12", "cpu", 0.0), "plain", "on cpu"),
        (EngineAtHand("sglang", "0.5.12", "rocm", 0.0), "ngram", "SGLang"),
        (EngineAtHand("sglang", "0.5.12", "rocm", 1.0), "plain", "greedily"),
        (EngineAtHand("trtllm", None, "cuda", 0.0), "plain", "trtllm"),
        (EngineAtHand("vllm", "0.28.0", "cpu", 0.0, "MTP heads"), "plain", "MTP heads"),
    ],
)
def test_the_fastest_exact_way_is_chosen_with_its_reason(
    engine: EngineAtHand, decoding: str, why: str
) -> None:
    choice = choose(engine)
    assert choice.decoding == decoding
    assert why in choice.why
    if engine.name in ("vllm", "sglang"):
        server_overrides(choice.decoding, engine.name)


def test_without_a_compiler_for_our_proposer_the_engines_own_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("refiner_worker.choice.importlib.util.find_spec", lambda name: None)
    choice = choose(EngineAtHand("vllm", "0.28.0", "cpu", 0.0))
    assert choice.decoding == "ngram" and "numba" in choice.why
