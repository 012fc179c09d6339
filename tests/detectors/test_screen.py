"""The screen runs every detector, hands on the config's action, and never hides a broken one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from rltrain.config.rewards import DetectorConfig, DetectorsConfig
from rltrain.detectors import DETECTORS, Screen, build_screen, resolve_detectors
from rltrain.errors import EnvironmentFault, JudgeFault, UserError
from tests.detectors.detector_fakes import OwnDetectors, Says, judged


def environment(**own: Any) -> Any:
    return cast(Any, OwnDetectors(own))


def test_findings_carry_the_configured_action_and_silence_makes_no_flag() -> None:
    screen = Screen(
        {"a": Says("seen"), "b": Says(None), "c": Says("too")},
        {"a": "keep", "b": "zero", "c": "drop"},
    )
    flags = screen(judged("x"))
    assert [(f.detector, f.evidence, f.action) for f in flags] == [
        ("a", "seen", "keep"),
        ("c", "too", "drop"),
    ]


def test_an_empty_string_is_a_finding_because_only_none_means_nothing_found() -> None:
    assert len(Screen({"a": Says("")}, {"a": "keep"})(judged("x"))) == 1


def test_a_detector_that_raises_is_an_environment_fault_that_names_it() -> None:
    with pytest.raises(EnvironmentFault, match=r"'broken'.*ZeroDivisionError: oops"):
        Screen({"broken": Says(ZeroDivisionError("oops"))}, {"broken": "keep"})(judged("x"))


def test_a_detector_that_returns_no_text_is_an_environment_fault() -> None:
    with pytest.raises(EnvironmentFault, match="returned bool"):
        Screen({"odd": Says(True)}, {"odd": "keep"})(judged("x"))


def test_a_system_fault_of_a_detector_keeps_its_kind() -> None:
    with pytest.raises(JudgeFault):
        Screen({"a": Says(JudgeFault("down"))}, {"a": "keep"})(judged("x"))


def test_long_evidence_is_shortened() -> None:
    assert len(Screen({"a": Says("x" * 9999)}, {"a": "keep"})(judged("x"))[0].evidence) <= 400


def test_every_detector_needs_one_known_action() -> None:
    with pytest.raises(UserError, match="unmatched: b"):
        Screen({"a": Says(None)}, {"a": "keep", "b": "zero"})
    with pytest.raises(UserError, match="keep, zero or drop"):
        Screen({"a": Says(None)}, {"a": "explode"})


def test_the_environments_own_detector_wins_over_a_generic_one_of_that_name() -> None:
    own = Says("mine")
    assert resolve_detectors(["refusal"], environment(refusal=own)) == {"refusal": own}
    assert resolve_detectors(["refusal"], environment())["refusal"] is DETECTORS["refusal"]


def test_an_unknown_detector_is_answered_with_the_closest_name_and_the_list() -> None:
    with pytest.raises(UserError) as caught:
        resolve_detectors(["judge_injecton"], environment(tag_catch_all=Says(None)))
    text = str(caught.value)
    assert "Did you mean 'judge_injection'?" in text and "tag_catch_all" in text


def test_a_screen_is_built_from_the_config_section() -> None:
    config = DetectorsConfig(rollout={"refusal": DetectorConfig(action="keep")})
    flags = build_screen(config, environment())(judged("I'm sorry, but I cannot do that."))
    assert [(f.detector, f.action) for f in flags] == [("refusal", "keep")]
