"""One small run with secrets in its environment: they are in no file. Then it is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.integration.conftest import SMALL, Run
from tests.integration.test_bad_input import children_of_runs, error_of

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.usefixtures("models")]

SECRETS = {
    "SHOP_API_KEY": "planted-shop-key-51c07", "HF_TOKEN": "hf_plantedTokenOfTheHub00",
    "WANDB_API_KEY": "a1b2" * 10, "AWS_SECRET_ACCESS_KEY": "planted/aws/secret/9f2e1",
    "DB_PASSWORD": "planted-password-77", "RLTRAIN_JUDGE_API_KEY": "planted-judge-key-3301",
}  # fmt: skip
ARGS = (*SMALL, "name=damaged", "rewards=executed", "max_steps=2", "track.wandb=offline")


@pytest.fixture(scope="module")
def run(rltrain: Run, workplace: Path) -> Path:
    done = rltrain("train", *ARGS, **SECRETS)
    assert done.returncode == 0, done.stderr[-3000:]
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
    return workplace / "runs" / "damaged"


def test_no_secret_of_the_environment_is_in_any_file_of_the_run(run: Path) -> None:
    paths = [path for path in run.rglob("*") if path.is_file()]
    names = {path.relative_to(run).parts[0] for path in paths}
    assert {"config.yaml", "logs", "wandb", "report.html", "facts", "rollouts"} <= names
    for path in paths:
        content = path.read_bytes()
        found = [name for name, secret in SECRETS.items() if secret.encode() in content]
        assert found == [], path


def test_a_sound_run_passes_the_audit(run: Path, rltrain: Run) -> None:
    done = rltrain("audit", str(run))
    found = json.loads(done.stdout)
    assert (done.returncode, found["problems"]) == (0, [])
    assert found["state"] == "finished" and found["in_flight"] == 0
    assert found["consumed"] + sum(found["dropped"].values()) == found["issued"] > 0


def test_a_run_whose_ledger_was_cut_is_not_continued(
    run: Path, rltrain: Run, workplace: Path
) -> None:
    (run / "facts" / "timing.json").unlink()  # as if it had not ended
    (run / "facts" / "eval_after.json").unlink()
    ledger = run / "ledger.sqlite"
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    os.truncate(ledger, ledger.stat().st_size // 3)
    done = rltrain("train", *ARGS, "resume=auto")
    assert done.returncode in (2, 3), (done.stdout[-500:], done.stderr[-2000:])
    assert "ledger.sqlite" in error_of(done)
    assert children_of_runs(workplace) == []
    assert rltrain("audit", str(run)).returncode == 3
