"""What a person and a machine read when a run is over: report.html and summary.json.

    metrics.jsonl, facts/, rollouts/, eval/, events.jsonl -> summary.json, report.html
"""

from rltrain.report.build import write_report
from rltrain.report.png import screenshot, write_headline_png
from rltrain.report.stats import paired_bootstrap, wilson
from rltrain.report.summary import summarize, write_summary

__all__ = [
    "paired_bootstrap", "screenshot", "summarize", "wilson", "write_headline_png", "write_report",
    "write_summary",
]
