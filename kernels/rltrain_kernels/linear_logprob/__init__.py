"""Token log-probabilities, entropy and log-sum-exp of an output head, [N, V] never held.

    function.py   the autograd function: what is saved, chunks, dtypes, ranks
    chunked.py    both passes over a chunk in torch, for any device
    fused.py      the same in Triton
    reference.py  the plain oracle
"""

from __future__ import annotations

from rltrain_kernels.linear_logprob.function import TokenScores, linear_logprob
from rltrain_kernels.linear_logprob.reference import linear_logprob_reference

__all__ = ["TokenScores", "linear_logprob", "linear_logprob_reference"]
