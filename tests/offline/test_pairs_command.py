"""`rltrain pairs` and `algo.data=run:…` over a run directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rltrain.commands.pairs import main
from rltrain.errors import UserError
from rltrain.launch.offline_data import read_source
from rltrain.rundir import RunDir
from rltrain.track import rollouts_path, write_rollouts
from tests.offline.offline_makers import ASKED, make_config, make_source


@pytest.fixture(scope="module")
def source(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return make_source(tmp_path_factory.mktemp("source"), policy)


def rewritten(source: RunDir, folder: Path, change: Callable[[pa.Table], pa.Table]) -> RunDir:
    """A copy of the run whose store was changed."""
    shutil.copytree(source.path, folder)
    path = rollouts_path(folder, 1)
    pq.write_table(change(pq.read_table(path)), path)
    return RunDir(folder)


def test_pairs_are_written_and_summed_up(
    source: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.jsonl"
    main([str(source.path), "--out", str(out)])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len(ASKED)
    assert {row["group"]["run"] for row in rows} == {"source"}
    assert rows[0]["chosen_ids"] and rows[0]["prompt_ids"]
    said = capsys.readouterr().out
    assert "40 pairs from 40 of 40 groups (80 rollouts)" in said


def test_answers_for_sft_and_what_was_left_out(
    source: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(source.path), "--sft", "--out", str(tmp_path / "sft.jsonl")])
    said = capsys.readouterr().out
    assert "40 answers from 40 of 40 groups" in said
    assert "below min_reward" in said


def test_a_run_as_the_source_gives_the_same_rows_as_the_command(
    source: RunDir, policy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.jsonl"
    main([str(source.path), "--out", str(out), "--min-margin", "0.5", "--seed", "3"])

    def read(*overrides: str) -> tuple[list[Any], dict[str, Any]]:
        return read_source(make_config(tmp_path, policy, "algo=dpo", "seed=3", *overrides))

    rows, facts = read(f"algo.data=run:{source.path}", "algo.select.min_margin=0.5")
    assert rows == [json.loads(line) for line in out.read_text().splitlines()]
    assert facts["groups"] == 40 and facts["select"]["min_margin"] == 0.5
    assert read(f"algo.data={out}") == (rows, {"source": str(out), "rows": 40})
    with pytest.raises(UserError, match=r"algo.select chooses from a run's rollouts"):
        read(f"algo.data={out}", "algo.select.min_margin=0.5")


def test_what_is_no_run_or_has_no_rollouts_is_one_sentence(source: RunDir, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run directory"):
        main([str(tmp_path), "--out", str(tmp_path / "x")])
    shutil.copytree(source.path, tmp_path / "copy")
    path = rollouts_path(tmp_path / "copy", 1)
    write_rollouts(path, [], step=1, version=0)
    with pytest.raises(UserError, match="has no stored rollouts; it never finished a training"):
        main([str(tmp_path / "copy"), "--out", str(tmp_path / "x")])
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"step-00001.parquet cannot be read"):
        main([str(tmp_path / "copy"), "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()


def test_nothing_to_select_says_what_happened_to_the_rest(source: RunDir, tmp_path: Path) -> None:
    args = [str(source.path), "--out", str(tmp_path / "x"), "--min-margin", "1.5"]
    with pytest.raises(UserError, match=r"80 rollouts in 40 groups of .*: 40 below min_margin"):
        main(args)
    with pytest.raises(UserError, match=r"--max-per-group: .*greater than 0 \(given: 0\)"):
        main([*args[:3], "--max-per-group", "0"])


NEW = ["prompt", "completion", "prompt_ids", "completion_ids"]


def test_an_older_store_is_read_where_nothing_is_made_up(source: RunDir, tmp_path: Path) -> None:
    old = rewritten(source, tmp_path / "old", lambda table: table.drop_columns(NEW))
    out = tmp_path / "pairs.jsonl"
    main([str(old.path), "--out", str(out)])  # the prompts of `segments` are one user message
    row = json.loads(out.read_text().splitlines()[0])
    assert row["prompt"][0]["content"].startswith("customers number") and "chosen_ids" not in row
    config = (old.path / "config.yaml").read_text()
    (old.path / "config.yaml").write_text(config.replace("max_turns: 1", "max_turns: 3"))
    with pytest.raises(UserError, match="made by a version that did not store prompts"):
        main([str(old.path), "--out", str(out)])
