"""What is known to be wrong with scorers, found by `python scripts/audit_reasoning_gym.py`.

Package: reasoning-gym 0.1.25. A scorer that pays for any text teaches to write any text. One that
raises on a wrong answer is worse than it looks: the rollout is lost to a fault instead of counting
as wrong, so that only the better half of a group is trained on.
"""

from __future__ import annotations

UNSOUND = {
    "boxnet": "its scorer raises on answers such as '0'",
    "coin_flip": "nine in ten of its answers are '0'",
    "game_of_life_halting": "its scorer pays 1.0 for any text",
    "prime_factorization": "its scorer raises on answers that are no product of numbers",
}
"""Dataset -> why no policy should be trained on it as it is."""
