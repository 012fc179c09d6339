"""The clauses that requests are made of: query text, the ways to say it, and what fills the slots.

A phrase follows "customers": "customers *who spent more than 100* and *from France*". Phrases and
queries share the slot's words or pair them ("France" / `FR`), so that one word decides one token
of the query. No phrase is used by two forms: a request has one meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rltrain_envs.segments.grammar import parse
from rltrain_envs.segments.stores import AMOUNTS, DAYS
from rltrain_envs.segments.syntax import Anniversary, Clause, Matches, Refusal, clauses


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One kind of clause."""

    kind: str
    """The attribute or function; no request uses one twice."""
    query: str
    """Query text with `{0}`, `{1}` for the slots."""
    phrases: tuple[str, ...]
    slots: tuple[str, ...] = ()
    """Names of the slots, keys of `SLOTS`."""


_COMPLEMENTS = {
    "=": "!=", "!=": "=", ">": "<=", ">=": "<", "<": ">=", "<=": ">", "CONTAINS": "NOT CONTAINS",
    "NOT CONTAINS": "CONTAINS", "IS NULL": "IS NOT NULL", "IS NOT NULL": "IS NULL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A form with its slots filled: ways to say one clause."""

    kind: str
    clause: Clause
    phrases: tuple[str, ...]


def _words(*values: str) -> tuple[tuple[str, str], ...]:
    """Enum values and how they are said: `AT_RISK` is "at risk"."""
    return tuple((value.lower().replace("_", " "), value) for value in values)


def _same(values: Sequence[object]) -> tuple[tuple[str, str], ...]:
    return tuple((str(value), str(value)) for value in values)


# NOT_SUBSCRIBED is left out: "status not subscribed" would also read as != 'SUBSCRIBED'.
SLOTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "amount": _same(AMOUNTS),
    "amounts": tuple(
        (f"{low} and {high}", f"{low} AND {high}")
        for low, high in ((50, 200), (100, 300), (100, 500), (200, 500))
    ),
    "count": (*_same((2, 3, 4, 5)), ("two", "2"), ("three", "3"), ("four", "4"), ("five", "5")),
    "span": (
        *((f"{days} days", f"{days}d") for days in (7, 10, 14, 30, 45, 60, 90)),
        ("2 weeks", "2w"), ("3 weeks", "3w"), ("1 month", "1m"), ("3 months", "3m"),
        ("6 months", "6m"),
    ),
    "day": _same(DAYS),
    "email": _words("SUBSCRIBED", "UNSUBSCRIBED", "PENDING", "INVALID"),
    "sms": _words("SUBSCRIBED", "UNSUBSCRIBED", "PENDING"),
    "account": _words("DECLINED", "DISABLED", "ENABLED", "INVITED"),
    "product_subscription": _words("ACTIVE", "CANCELLED", "EXPIRED", "PAUSED"),
    "tier": _words("HIGH", "MEDIUM", "LOW"),
    "rfm": _words("CHAMPIONS", "LOYAL", "NEW", "PROMISING", "AT_RISK", "DORMANT"),
    "country": (("Canada", "CA"), ("Germany", "DE"), ("Spain", "ES"), ("France", "FR"),
                ("Britain", "GB"), ("Italy", "IT"), ("Japan", "JP"), ("America", "US")),
    "tag": _same(("b2b", "gift", "influencer", "loyal", "newsletter", "press", "returns", "staff",
                  "vip", "wholesale")),
    "language": (("German", "de"), ("English", "en"), ("Spanish", "es"), ("French", "fr")),
    "domain": _same(("gmail.com", "yahoo.com", "outlook.com")),
    "product": _same(range(101, 113)),
}
"""Slot -> pairs of what the request says and what the query says."""


def _enum(attribute: str, name: str, slot: str, *, negated: bool = True) -> tuple[Form, ...]:
    """`=` and `!=` forms of an enum whose name is said as `name`."""
    equal = Form(kind=attribute, query=f"{attribute} = '{{0}}'", slots=(slot,),
                 phrases=(f"with {name} {{0}}", f"whose {name} is {{0}}"))
    other = Form(kind=attribute, query=f"{attribute} != '{{0}}'", slots=(slot,),
                 phrases=(f"with {name} not {{0}}", f"whose {name} is not {{0}}"))
    return (equal, other) if negated else (equal,)


def _form(query: str, *phrases: str, slots: str = "") -> Form:
    return Form(kind=query.split()[0], query=query, phrases=phrases, slots=tuple(slots.split()))


FORMS: tuple[Form, ...] = (
    _form("amount_spent > {0}", "who spent more than {0}", "with total spend over {0}",
          slots="amount"),
    _form("amount_spent < {0}", "who spent less than {0}", "with total spend under {0}",
          slots="amount"),
    _form("amount_spent >= {0}", "who spent at least {0}", "with total spend of {0} or more",
          slots="amount"),
    _form("amount_spent BETWEEN {0}", "who spent between {0}", "with total spend between {0}",
          slots="amounts"),
    _form("number_of_orders > {0}", "with more than {0} orders", "who ordered over {0} times",
          slots="count"),
    _form("number_of_orders = {0}", "with exactly {0} orders", "who ordered exactly {0} times",
          slots="count"),
    _form("number_of_orders < {0}", "with fewer than {0} orders", "who ordered under {0} times",
          slots="count"),
    _form("email_subscription_status = 'SUBSCRIBED'", "subscribed to email", "who get our emails"),
    *_enum("email_subscription_status", "email status", "email"),
    *_enum("sms_subscription_status", "sms status", "sms"),
    *_enum("customer_account_status", "account status", "account"),
    *_enum("product_subscription_status", "product subscription", "product_subscription",
           negated=False),
    *_enum("rfm_group", "rfm group", "rfm"),
    *_enum("predicted_spend_tier", "spend tier", "tier", negated=False),
    _form("predicted_spend_tier IS NULL", "without a spend tier", "whose spend tier is unknown"),
    _form("customer_countries CONTAINS '{0}'", "from {0}", "living in {0}", slots="country"),
    _form("customer_countries NOT CONTAINS '{0}'", "not from {0}", "living outside {0}",
          slots="country"),
    _form("customer_tags CONTAINS '{0}'", "tagged {0}", "with the tag {0}", slots="tag"),
    _form("customer_tags NOT CONTAINS '{0}'", "not tagged {0}", "without the tag {0}",
          slots="tag"),
    _form("customer_language = '{0}'", "who speak {0}", "whose language is {0}",
          slots="language"),
    _form("customer_language != '{0}'", "who do not speak {0}", "whose language is not {0}",
          slots="language"),
    _form("customer_email_domain = '{0}'", "with a {0} address", "who use {0}", slots="domain"),
    _form("customer_added_date >= -{0}", "who joined in the last {0}",
          "added in the last {0}", slots="span"),
    _form("customer_added_date < -{0}", "who joined more than {0} ago",
          "added more than {0} ago", slots="span"),
    _form("last_order_date >= -{0}", "who ordered in the last {0}",
          "whose last order was in the last {0}", slots="span"),
    _form("last_order_date < -{0}", "whose last order was more than {0} ago", slots="span"),
    _form("last_order_date IS NULL", "who never ordered", "without any order"),
    _form("first_order_date < {0}", "who first ordered before {0}",
          "whose first order was before {0}", slots="day"),
    _form("first_order_date >= {0}", "who first ordered since {0}",
          "whose first order was since {0}", slots="day"),
    _form("abandoned_checkout_date >= -{0}", "who abandoned a checkout in the last {0}",
          slots="span"),
    _form("abandoned_checkout_date IS NULL", "who never abandoned a checkout",
          "without abandoned checkouts"),
    _form("products_purchased MATCHES (id = {0})", "who bought product {0}", slots="product"),
    _form("products_purchased NOT MATCHES (id = {0})", "who never bought product {0}",
          slots="product"),
    _form("products_purchased MATCHES (id = {0}, date >= -{1})",
          "who bought product {0} in the last {1}", slots="product span"),
    _form("orders_placed MATCHES (amount > {0})", "with an order over {0}",
          "who placed an order over {0}", slots="amount"),
    _form("orders_placed MATCHES (date >= -{1}, count >= {0})",
          "with at least {0} orders in the last {1}", slots="count span"),
    _form("shopify_email.opened MATCHES (date >= -{0})",
          "who opened an email in the last {0}", slots="span"),
    _form("shopify_email.opened MATCHES (count >= {0})", "who opened at least {0} emails",
          slots="count"),
    _form("shopify_email.opened NOT MATCHES ()", "who never opened an email"),
    _form("shopify_email.clicked MATCHES (date >= -{0})", "who clicked an email in the last {0}",
          slots="span"),
    _form("shopify_email.clicked NOT MATCHES ()", "who never clicked an email"),
    _form("storefront.product_viewed MATCHES (id = {0})", "who viewed product {0}",
          slots="product"),
    _form("storefront.product_viewed MATCHES (id = {0}, date >= -{1})",
          "who viewed product {0} in the last {1}", slots="product span"),
)

UNKNOWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("shoe size", ("whose shoe size is 42", "with shoe size 38")),
    ("favourite colour", ("whose favourite colour is blue", "with favourite colour red")),
    ("star sign", ("whose star sign is leo", "with star sign virgo")),
    ("height", ("taller than 180 cm", "whose height is over 170 cm")),
    ("job", ("who work as teachers", "whose job is nurse")),
    ("pet", ("who own a dog", "who have a cat")),
    ("car", ("who drive a van", "who own a car")),
    ("marriage", ("who are married", "who are not married")),
    ("mood", ("who are happy today", "whose mood is bad")),
    ("hobby", ("who play chess", "whose hobby is tennis")),
)
"""Things that the stores do not know about a customer, and how requests name them."""

BROAD = ("all customers", "every customer", "everyone in the store", "the whole customer list")
"""Requests that rightly ask for everybody."""
BROAD_QUERY = "customer_added_date <= today"


def complement(clause: Clause) -> Clause | None:
    """The clause that selects exactly everybody else, or None if one clause cannot.

    A comparison of a column that may be NULL has none: both it and its opposite leave NULL out."""
    if isinstance(clause, Matches):
        return replace(clause, negated=not clause.negated)
    if isinstance(clause, Anniversary) or clause.operator not in _COMPLEMENTS:
        return None
    ordered = clause.operator in (">", ">=", "<", "<=")
    if ordered and clause.name not in ("amount_spent", "number_of_orders"):
        return None
    return replace(clause, operator=_COMPLEMENTS[clause.operator])


def clause_of(text: str) -> Clause:
    """Parse text that is one clause."""
    answer = parse(text)
    assert not isinstance(answer, Refusal)
    (clause,) = clauses(answer)
    return clause


def fill(form: Form) -> tuple[Filled, ...]:
    """Every way to fill a form's slots."""
    combinations: list[tuple[tuple[str, str], ...]] = [()]
    for slot in form.slots:
        combinations = [(*head, pair) for head in combinations for pair in SLOTS[slot]]
    return tuple(
        Filled(
            kind=form.kind,
            clause=clause_of(form.query.format(*(query for _, query in pairs))),
            phrases=tuple(
                phrase.format(*(word for word, _ in pairs)) for phrase in form.phrases
            ),
        )
        for pairs in combinations
    )
