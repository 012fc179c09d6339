"""Rollouts: the engine that samples, the client that asks it, and the episodes made of its turns.

`engine_server` owns a vLLM process and never leaves one behind (`engine_boot` is what runs first
inside it); `engine_client` speaks token ids to it and stamps every turn with the policy version
that sampled it. Nothing here imports torch or vLLM, so a rollout worker starts in a moment.
"""
