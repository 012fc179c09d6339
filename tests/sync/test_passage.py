"""The folder of a push: private while it is used, gone afterwards, even after SIGKILL."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

from rltrain.config.rollout import SyncConfig
from rltrain.sync.passage import LOCK, PREFIX, passage, remove_abandoned

OWNER = """
import sys, time
from pathlib import Path
from rltrain.config.rollout import SyncConfig
from rltrain.sync.passage import passage
with passage(SyncConfig(folder=sys.argv[1]), Path(sys.argv[1])) as folder:
    (Path(folder) / "weights").write_text("much memory")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_private_while_used_and_gone_after(tmp_path: Path) -> None:
    config = SyncConfig(folder=str(tmp_path))
    with passage(config, tmp_path) as folder:
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        assert remove_abandoned(tmp_path) == [], "a folder in use was taken for abandoned"
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_the_folder_of_a_killed_owner_goes_with_the_next_push(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert remove_abandoned(tmp_path) == [], "its owner lives"
        owner.send_signal(signal.SIGKILL)
    assert (folder / "weights").exists()
    with passage(SyncConfig(folder=str(tmp_path)), tmp_path):
        assert not folder.exists()


def test_a_folder_that_is_just_being_made_is_left_alone(tmp_path: Path) -> None:
    young = tmp_path / f"{PREFIX}young"
    young.mkdir()
    assert remove_abandoned(tmp_path) == []
    (young / LOCK).touch()
    assert remove_abandoned(tmp_path) == [young]
