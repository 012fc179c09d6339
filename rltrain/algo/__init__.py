"""The algorithms, as pure functions on tensors: no models, no processes, no config.

Four choices that are independent of each other, each a dict from name to function:
`advantages.ADVANTAGES` (rewards of a group -> one number per sibling), `losses.LOSSES` (the policy
loss per token), `corrections.CORRECTIONS` (what is done when the engine that sampled is not the
policy that trains) and `aggregation.AGGREGATIONS` (what the sum of token losses is divided by).

Shapes: `G` siblings of a group, `N` trained tokens of a micro-batch laid end to end, `S` sequences.
`seq` [N] says which sequence a token belongs to; a sequence is never split over micro-batches.
"""
