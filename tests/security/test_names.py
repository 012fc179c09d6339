"""Names in a config become folders and files: none leads out of the run directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltrain.config.compose import load_config
from rltrain.errors import UserError
from rltrain.rundir import create_run
from rltrain.track import append_event, read_fact, read_jsonl, write_fact

SMALL = ("experiment=segments_cpu", "max_steps=2")
BAD = ("../evil", "..", ".", "/tmp/evil", "a/b", "a\\..\\b", ".hidden", "", "a\x00b", "a\nb", "-rf",
       "~", "a b", "ä", "x" * 300)  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_run_cannot_be_named_so_that_it_leaves_its_folder(name: str, tmp_path: Path) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    with pytest.raises(UserError) as said:
        create_run(load_config([*SMALL, f'name="{quoted}"', f"runs_dir={tmp_path}"]))
    assert "\n" not in str(said.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("part", ["../evil", "/etc/passwd", "run/../../x", "RUN", ""])
def test_a_fact_is_one_of_those_that_are_known(part: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such fact"):
        write_fact(tmp_path, part, {})
    with pytest.raises(ValueError, match="no such fact"):
        read_fact(tmp_path, part)


def test_an_entry_is_an_import_path_and_nothing_else() -> None:
    for entry in ("../x:build", "os:system;ls", "x.y", "a:b:c", "a b:c", "__import__('os')"):
        with pytest.raises(UserError):
            load_config([*SMALL, f'environment.entry="{entry}"'])


def test_a_value_of_a_secret_variable_is_refused_in_a_config(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "planted-key-of-the-shop")
    with pytest.raises(UserError) as said:
        load_config([*SMALL, "+environment.args.key=${oc.env:SHOP_API_KEY}"])
    assert "environment.args.key" in str(said.value) and "SHOP_API_KEY" in str(said.value)
    assert "planted-key" not in str(said.value)
    load_config([*SMALL, "+environment.args.key=SHOP_API_KEY"])  # the name is fine
    with pytest.raises(UserError, match=r"rewards\.judge\.endpoint holds"):
        endpoint = "rewards.judge.endpoint='http://h/v1?k=${oc.env:SHOP_API_KEY}'"
        load_config([*SMALL, endpoint])


def test_events_do_not_quote_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_KEY", "planted-key-of-the-shop")
    text = "GET http://user:hunter22@shop/?k=planted-key-of-the-shop failed"
    append_event(tmp_path, process="worker-0", kind="fault:environment", text=text)
    rows, _ = read_jsonl(tmp_path / "events.jsonl")
    assert "planted-key" not in str(rows) and "hunter22" not in str(rows)
    assert "failed" in rows[0]["text"]
