"""What a model that has never seen the language is told of it."""

from __future__ import annotations

from itertools import islice

from rltrain.types import Message
from rltrain_envs.segments import build
from rltrain_envs.segments.env import Segments
from rltrain_envs.segments.instructions import EXAMPLE, instructions
from rltrain_envs.segments.verify import Verifier


def test_everything_that_the_schema_allows_is_named_and_the_example_is_valid(
    verifier: Verifier,
) -> None:
    text = instructions(verifier.schema)
    names = {*verifier.schema.attributes, *verifier.schema.functions, *verifier.schema.metafields}
    values = {v for field in verifier.schema.attributes.values() for v in field.values}
    assert not [name for name in names | values | verifier.schema.tags if name not in text]
    assert verifier.valid_query(EXAMPLE) is not None


def test_instructions_change_the_prompt_and_nothing_else(environment: Segments) -> None:
    told = build(instructions=True)
    for split in ("train", "test"):
        pairs = zip(told.tasks(split, 0), islice(environment.tasks(split, 0), 50), strict=False)
        for with_them, without in pairs:
            assert isinstance(with_them.prompt[0], Message) and with_them.prompt[0].role == "system"
            assert with_them.prompt[1:] == without.prompt
            assert (with_them.id, with_them.data) == (without.id, without.data)
