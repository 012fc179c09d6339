"""The presets of configs/algo: each composes, and means what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rltrain import build
from rltrain.config.compose import load_config
from rltrain.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "algo"
ONLINE = sorted(p.stem for p in FOLDER.glob("*.yaml") if "\nmethod:" not in "\n" + p.read_text())


def test_the_family_is_there() -> None:
    assert {"grpo", "dapo", "dr_grpo", "gspo", "cispo", "rloo", "scalerl"} <= set(ONLINE)


@pytest.mark.parametrize("name", ONLINE)
def test_a_preset_composes_and_every_name_and_argument_in_it_exists(name: str) -> None:
    config = load_config(["experiment=segments_cpu", f"algo={name}"])
    build.check_names(config)


def test_several_corrections_come_from_a_list() -> None:
    config = load_config(["experiment=segments_cpu", "algo=guarded"])
    assert config.algo.corrections == ("token_tis", "veto", "k3_rejection", "opsm")
    assert load_config(["experiment=segments_cpu"]).algo.corrections == ("token_tis",)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("algo.correction=tis", "algo.correction: 'tis' is not one of none, token_tis"),
        ("algo.correction=[token_tis,icepop]", "token_tis and icepop both weigh"),
        ("+algo.loss_args.clip=0.2", "clip is no argument of cispo"),
        ("+algo.correction_args.kap=2", r"kap is no argument of token_tis \(cap\)"),
        ("algo.kl.estimator=k4", "algo.kl.estimator: 'k4' is not one of k1, k2, k3, k3_is"),
        ("algo.proximal=old", "algo.proximal: 'old' is not one of recompute, behaviour"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_starts(override: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build.check_names(load_config(["experiment=segments_cpu", override]))
