"""The parser and the canonical printer."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rltrain_envs.segments.grammar import QuerySyntaxError, clean_prefix, parse
from rltrain_envs.segments.syntax import (
    And,
    Anniversary,
    Condition,
    Day,
    Matches,
    Number,
    Offset,
    Or,
    Query,
    Refusal,
    RefusalReason,
    Text,
    conjunction,
    disjunction,
    offset,
    print_answer,
    skeleton,
)
from rltrain_envs.segments.tokens import KEYWORDS

NAMES = st.from_regex(r"\A[a-z][a-z_]{0,8}(\.[a-z]{1,5})?\Z").filter(
    lambda name: name.upper() not in KEYWORDS and name != "anniversary"
)
STRINGS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8).map(
    lambda text: Text(value=text)
)
NUMBERS = st.one_of(
    st.integers(-(10**12) + 1, 10**12 - 1),
    st.integers(1, 10**9).filter(lambda cents: cents % 100).map(lambda cents: cents / 100),
).map(lambda number: Number(value=number))
DATES = st.one_of(
    st.dates(date(1000, 1, 1)).map(lambda day: Day(value=day)),
    st.builds(offset, st.integers(-9999, 9999), st.sampled_from("dwmy")),
)
VALUES = st.one_of(STRINGS, NUMBERS, DATES)


def conditions(*, inside_function: bool) -> st.SearchStrategy[Condition]:
    compare = st.builds(
        lambda name, word, value: Condition(name=name, operator=word, values=(value,)),
        NAMES, st.sampled_from(["=", "!=", ">", ">=", "<", "<="]), VALUES,
    )
    between = st.builds(
        lambda name, low, high: Condition(name=name, operator="BETWEEN", values=(low, high)),
        NAMES, VALUES, VALUES,
    )
    contains = st.builds(
        lambda name, word, value: Condition(name=name, operator=word, values=(value,)),
        NAMES, st.sampled_from(["CONTAINS", "NOT CONTAINS"]), STRINGS,
    )
    null = st.builds(
        lambda name, word: Condition(name=name, operator=word),
        NAMES, st.sampled_from(["IS NULL", "IS NOT NULL"]),
    )
    among = st.builds(
        lambda name, word, values: Condition(name=name, operator=word, values=tuple(values)),
        NAMES, st.sampled_from(["IN", "NOT IN"]), st.lists(VALUES, min_size=1, max_size=3),
    )
    return compare | between | (among if inside_function else contains | null)


CLAUSES = st.one_of(
    conditions(inside_function=False),
    st.builds(
        lambda name, items, negated: Matches(
            function=name, parameters=tuple(items), negated=negated
        ),
        NAMES, st.lists(conditions(inside_function=True), max_size=3), st.booleans(),
    ),
    st.builds(
        lambda text, day: Anniversary(metafield=text.value, operator="=", values=(day,)),
        STRINGS, DATES,
    ),
)
QUERIES: st.SearchStrategy[Query] = st.recursive(
    CLAUSES,
    lambda inner: st.builds(
        lambda join, items: join(items),
        st.sampled_from([conjunction, disjunction]), st.lists(inner, min_size=2, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(QUERIES)
def test_a_printed_query_parses_back_to_the_same_tree(query: Query) -> None:
    assert parse(print_answer(query)) == query


@settings(max_examples=200, deadline=None)
@given(st.text("()', ANDORabc=<>!1-d.\n", max_size=40))
def test_any_text_either_parses_or_is_a_syntax_error_inside_the_text(text: str) -> None:
    try:
        parse(text)
    except QuerySyntaxError as error:
        assert 0 <= error.position <= len(text)
        assert error.expected


def test_and_binds_tighter_than_or() -> None:
    assert parse("a = 1 OR b = 2 AND c = 3") == parse("a = 1 OR (b = 2 AND c = 3)")
    grouped = parse("(a = 1 OR b = 2) AND c = 3")
    assert isinstance(grouped, And) and isinstance(grouped.items[0], Or)


def test_the_and_of_a_between_belongs_to_the_between() -> None:
    query = parse("a BETWEEN 1 AND 2 AND b = 3")
    assert isinstance(query, And)
    assert [len(item.values) for item in query.items if isinstance(item, Condition)] == [2, 1]


def test_needless_brackets_do_not_change_the_tree() -> None:
    assert parse("((a = 1) AND (b = 2 AND (c = 3)))") == parse("a = 1 AND b = 2 AND c = 3")


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "an attribute, a function or '('"),
        ("amount_spent", 12, "an operator"),
        ("amount_spent > ", 15, "a value"),
        ("amount_spent > AND", 15, "a value"),
        ("amount_spent > 1 AND", 20, "an attribute, a function or '('"),
        ("amount_spent > 1 amount_spent < 2", 17, "AND, OR or the end"),
        ("(amount_spent > 1", 17, "')'"),
        ("a BETWEEN 1 OR 2", 12, "'AND'"),
        ("a CONTAINS 5", 11, "a string"),
        ("a IS 5", 5, "'NULL'"),
        ("a NOT = 5", 6, "CONTAINS or MATCHES"),
        ("f MATCHES (id = 1 date = today)", 18, "',' or ')'"),
        ("f MATCHES id = 1", 10, "'('"),
        ("a = 'open", 4, "a value"),
        ("a = 2025-02-30", 4, "a day of the calendar"),
        ("a = 1234567890123", 4, "a value"),
        ("a = 12abc", 4, "a value"),
        ("CANNOT: be_bothered", 8, "one of no_such_attribute, not_a_segment"),
        ("CANNOT: not_a_segment sorry", 8, "one of no_such_attribute, not_a_segment"),
    ],
)
def test_a_syntax_error_says_where_and_what_was_expected(
    text: str, position: int, expected: str
) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse(text)
    assert (caught.value.position, caught.value.expected) == (position, expected)
    assert f"at {position}" in str(caught.value)


def test_a_thousand_brackets_are_a_syntax_error_and_not_a_stack_overflow() -> None:
    with pytest.raises(QuerySyntaxError, match="nested brackets"):
        parse("(" * 1000 + "a = 1" + ")" * 1000)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("a is  not null and b=2", "a IS NOT NULL AND b = 2"),
        ("a = -1d OR a = 0w", "a = yesterday OR a = today"),
        ("a = 3d", "a = +3d"),
        ("a >= 30_days_ago", "a >= -30d"),
        ("a = 10.50 OR a = 10.0", "a = 10.5 OR a = 10"),
        (r"a = 'it\'s'", r"a = 'it\'s'"),
        ("f NOT_MATCHES ( )", "f NOT MATCHES ()"),
        ("storefront_event.product_viewed MATCHES (id=1)",
         "storefront.product_viewed MATCHES (id = 1)"),
        ("CANNOT:  not_a_segment", "CANNOT: not_a_segment"),
    ],
)
def test_spellings_seen_in_the_wild_are_read_and_one_is_printed(written: str, printed: str) -> None:
    assert print_answer(parse(written)) == printed


def test_a_refusal_is_an_answer_with_a_reason() -> None:
    wanted = Refusal(reason=RefusalReason.NO_SUCH_ATTRIBUTE)
    assert parse("CANNOT: no_such_attribute") == wanted


def test_zero_offsets_of_all_units_are_today() -> None:
    assert offset(0, "y") == Offset(count=0, unit="d")


def test_the_clean_prefix_ends_after_the_last_complete_clause() -> None:
    assert clean_prefix("a = 1 AND b = 2 and that is all") == len("a = 1 AND b = 2")
    assert clean_prefix("(a = 1 AND b") == 0
    assert clean_prefix("nothing here") == 0


def test_a_skeleton_forgets_values_and_clause_order() -> None:
    one = parse("f MATCHES (id = 1, date > -3d) AND (a = 1 OR b CONTAINS 'x')")
    other = parse("(b CONTAINS 'y' OR a = 2) AND f MATCHES (date > today, id = 9)")
    assert not isinstance(one, Refusal) and not isinstance(other, Refusal)
    assert skeleton(one) == skeleton(other)
    assert not re.search(r"\d|'", skeleton(one))
    assert skeleton(one) != skeleton(conjunction([one, conjunction([one])]))
