"""What a run leaves behind: metrics, facts, events and rollouts, each with one writer and reader.

    groups -> group_metrics -> FanOut -> metrics.jsonl (the record), wandb (a sink)
           -> write_rollouts -> rollouts/step-00001.parquet
    metrics.jsonl -> follow -> ProgressView
"""

from rltrain.track.console import ProgressView, follow
from rltrain.track.facts import read_fact, write_fact
from rltrain.track.fanout import FanOut
from rltrain.track.jsonl import JsonlTracker, append_event, read_jsonl, read_metrics
from rltrain.track.metrics import group_metrics, validity
from rltrain.track.rollouts import (
    cut_after,
    eval_path,
    read_rollouts,
    rollouts_path,
    to_rows,
    write_rollouts,
)
from rltrain.track.wandb import WandbTracker, finish_wandb

__all__ = [
    "FanOut", "JsonlTracker", "ProgressView", "WandbTracker", "append_event", "cut_after",
    "eval_path", "finish_wandb", "follow", "group_metrics", "read_fact", "read_jsonl",
    "read_metrics", "read_rollouts", "rollouts_path", "to_rows", "validity", "write_fact",
    "write_rollouts",
]
