"""Embedded models, built on this machine because a first try must not need a download.

A small Qwen3-architecture policy with its own tokenizer and chat template, warmed up on an
environment's demonstrations, and a small judge of the same architecture that reads request and
canonical answer and says yes or no. Both are made with TRL's `SFTTrainer`, are deterministic for a
config, and are kept in the cache by a hash of everything that went into them.
"""
