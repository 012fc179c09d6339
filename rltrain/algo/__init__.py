"""The algorithms, as pure functions on tensors: no models, no processes, no config.

Choices that are independent of each other, each a dict from name to function (docs/algorithms.md
lists them all): `advantages.ADVANTAGES` (rewards of a step -> one number per sibling),
`losses.LOSSES` (the policy loss per token), `corrections.CORRECTIONS` (what is done when the engine
that sampled is not the policy that trains), `proximal.PROXIMAL` (where the loss's ratio starts
from), `kl.KL` (how the policy is held to a reference) and `aggregation.AGGREGATIONS` (what the sum
of token losses is divided by).

Shapes: `G` siblings of a group, `N` trained tokens of a micro-batch laid end to end, `S` sequences.
`seq` [N] says which sequence a token belongs to; a sequence is never split over micro-batches.
"""
