"""From a merchant's words to a customer-segment query.

    request -> policy -> answer
      format (one line, nothing else) -> syntax (`grammar`) -> schema (`schema`)
        -> execution (`execute`: the same customers as the gold query, in four synthetic stores)

`forms` and `generator` make the tasks, `detectors` recognise reward hacks without the gold query,
`agents` attack all of it, `demos` makes warm-up data for a policy and labelled pairs for a judge.
The stores speak a dialect of Shopify's segment query language: our own frozen schema, no claim to
be bit-exact. Entry point: `rltrain_envs.segments:build`.
"""

from rltrain_envs.segments.demos import demonstrations, judge_examples
from rltrain_envs.segments.env import Segments, build

__all__ = ["Segments", "build", "demonstrations", "judge_examples"]
