"""Precision of both sides on real engines: three of them, one of each dtype, for the file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rltrain.bench.mismatch import compare, learner_of, measured, sample
from rltrain.config.precision import PrecisionConfig
from rltrain.errors import UserError
from rltrain.rollout.engine_server import EngineServer
from rltrain.sync.dtypes import audit
from rltrain.track import read_metrics
from rltrain.train.precision import Precision
from tests.loop.real_engines import client, config, engines, place_of, run_learner

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PROMPTS = [[2, 4 + i % 10, 4 + i // 10, 0, 3] for i in range(48)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EngineServer]]:
    with engines(tmp_path_factory.mktemp("engines"), list(DTYPES.values())) as servers:
        yield servers


def events(folder: Path, kind: str) -> list[str]:
    rows = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [row["text"] for row in rows if row["kind"] == kind]


def test_a_finer_mantissa_brings_learner_and_engine_closer(
    served: dict[str, EngineServer], tmp_path: Path
) -> None:
    """fp32 has 24 bits, fp16 11, bf16 8: mismatch falls by about as much."""
    found: dict[str, Any] = {}
    for name, dtype in DTYPES.items():
        run = config(tmp_path, name)
        engine = client(served[dtype], run, place_of(served[dtype], run))

        async def ask(engine: Any = engine) -> Any:
            try:
                return await sample(engine, PROMPTS, 24)
            finally:
                await engine.aclose()

        scored = asyncio.run(ask())
        model, precision = learner_of(str(served[dtype].spec.model), run, run.precision)
        pairs = compare(model, precision, scored, 256)
        found[name] = [measured(pair) for pair in pairs]
        assert found[name][0]["tokens"] == sum(len(s.turn.completion_ids) for s in scored) > 300
    for name, (sampled, prefill, _) in found.items():
        print(name, {k: sampled[k] for k in ("mean_abs_logprob", "k3", "equal")})
        for metric in ("mean_abs_logprob", "p99_abs_logprob"):
            assert prefill[metric] == pytest.approx(sampled[metric], rel=0.5, abs=1e-6)
    fp32, fp16, bf16 = (found[name][0] for name in DTYPES)
    assert fp32["mean_abs_logprob"] < 1e-6
    assert fp32["mean_abs_logprob_ci95"][1] * 20 < fp16["mean_abs_logprob_ci95"][0]
    assert fp16["mean_abs_logprob_ci95"][1] * 2 < bf16["mean_abs_logprob_ci95"][0]
    assert fp32["k3"] < fp16["k3"] < bf16["k3"]


def test_the_audit_names_the_layer_and_both_dtypes(
    served: dict[str, EngineServer], tmp_path: Path
) -> None:
    def compared(learner: str, engine: str, allow: bool = False, **more: Any) -> Any:
        run = config(tmp_path, learner)
        server = served[DTYPES[engine]]
        chosen = PrecisionConfig.model_validate({"compute": learner, **more})
        model, precision = learner_of(str(server.spec.model), run, chosen)
        assert isinstance(precision, Precision)

        async def ask() -> Any:
            engine = client(server, run, place_of(server, run))
            try:
                return await audit(engine, model, precision.compute, [2, 5, 0, 3], allow=allow)
            finally:
                await engine.aclose()

        return asyncio.run(ask())

    for same in DTYPES:
        facts = compared(same, same).facts()
        assert facts["different"] == [] and facts["compared"] == 7 + 3  # head, model, cache
        assert facts["learner"] == {DTYPES[same]: 10}
        assert facts["engine"] == {DTYPES[same]: 10}
    with pytest.raises(UserError) as raised:
        compared("fp32", "bf16")
    text = str(raised.value)
    assert "computes model.layers.0.self_attn.q_proj in bfloat16 and the learner in float32" in text
    assert "9 more of 10 layers" in text and "precision.allow_mismatch=true" in text
    assert len(compared("fp32", "bf16", allow=True).different) == 10
    with pytest.raises(UserError, match="computes lm_head in bfloat16 and the learner in float32;"):
        compared("bf16", "bf16", head="fp32")


def test_fp16_trains_through_the_real_loop_and_goes_on_with_its_scale(
    served: dict[str, EngineServer], tmp_path: Path
) -> None:
    """Both sides in fp16. A first scale far too large overflows until it fits, and is kept."""
    huge = {"compute": "fp16", "scale": {"init": 2.0**24, "growth_interval": 2}}
    settings = config(tmp_path, "fp16", precision=huge, max_steps=4)
    run, done = run_learner(served["float16"], settings)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_metrics(run.metrics).rows
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert sum(row["train/skipped"] for row in rows) == rows[-1]["precision/overflows"] > 0
    assert all(row["mismatch/mean_abs_logprob/lag_0"] < 5e-3 for row in rows)
    assert all(row["time/push_probe_mean_abs"] < 5e-3 for row in rows)
    told = events(run.path, "overflow")
    assert len(told) == rows[-1]["precision/overflows"]
    assert "overflowed first (loss scale 1.67772e+07)" in told[0]
    facts = json.loads((run.path / "facts" / "precision.json").read_text())
    assert facts["different"] == [] and facts["engine"] == {"float16": 10}
    state = torch.load(run.checkpoints / "step-00004" / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] == rows[-1]["precision/loss_scale"]
    assert state["scaler"]["overflows"] == len(told)


@pytest.mark.slow
def test_an_engine_of_another_dtype_is_refused_and_if_allowed_stopped_by_the_gate(
    served: dict[str, EngineServer], tmp_path: Path
) -> None:
    """The learner in fp32 on an engine in bf16: what a wrong flag of a launcher does."""
    limits = {"stop": {"lag_0": 2e-5}, "warn": {"p99_abs_logprob": 1e-5}, "patience": 2,
              "correct": {"max_abs_logprob": 1e-5}}  # fmt: skip
    common: dict[str, Any] = {
        "mismatch": limits, "max_steps": 6, "train": {"checkpoint_every": 0},
        "algo": {"correction": "none"},
    }  # fmt: skip
    wrong = served["bfloat16"]
    settings = config(tmp_path, "fp32", **common)
    run, done = run_learner(wrong, settings)  # the config claims float32: nobody said so
    assert done.returncode == 2
    assert "computes model.layers.0.self_attn.q_proj in bfloat16" in done.stderr
    assert not read_metrics(run.metrics).rows

    allowed = {"compute": "fp32", "allow_mismatch": True}
    settings = config(
        tmp_path, "fp32", **common, precision=allowed, engine={"dtype": "bfloat16"}, name="allowed"
    )
    run, done = run_learner(wrong, settings)
    assert done.returncode == 3, done.stderr[-2000:]
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert "another policy than the learner: step 2: mismatch/mean_abs_logprob/lag_0 is" in line
    assert [row["step"] for row in read_metrics(run.metrics).rows] == [1, 2]
    assert (run.checkpoints / "step-00002" / "COMPLETE.json").is_file()
    warned, corrected, stopped = events(run.path, "mismatch")
    assert "(mismatch.warn)" in warned and "token_tis is on" in corrected and stopped in line
    assert len(events(run.path, "precision")) == 1

    # It goes on from there with a limit that it meets, and with the correction that was on.
    settings = settings.model_copy(
        update={"mismatch": settings.mismatch.model_validate({**limits, "stop": {}}),
                "max_steps": 3}
    )  # fmt: skip
    run.config_file.write_text(json.dumps(settings.model_dump(mode="json")))
    run, done = run_learner(wrong, settings, run)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_metrics(run.metrics).rows
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["mismatch/corrected"] for row in rows] == [0, 0, 1]
