"""The config: Hydra outside, pydantic inside.

`compose` turns command-line overrides into a plain dict, `RunConfig` validates it once; below
that line nobody sees a `DictConfig`, and each part gets its own section.
"""

from rltrain.config.run import RunConfig

__all__ = ["RunConfig"]
