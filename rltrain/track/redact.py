"""Nothing secret reaches wandb or a report: by name of the key, by shape, and by value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rltrain.config.secrets import SECRET_NAME, secret_values

HIDDEN = "(hidden)"
# A count of tokens is not a secret; a string under such a name is.
_URL_LOGIN = re.compile(r"(?P<scheme>[a-zA-Z][\w+.-]*://)[^/\s:@]+:[^/\s@]+@")


def redact(value: Any) -> Any:
    """A copy of plain JSON values without secrets. Names of environment variables stay."""
    if isinstance(value, Mapping):
        return {key: _entry(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def _entry(key: str, item: Any) -> Any:
    if isinstance(item, str) and item and SECRET_NAME.search(key):
        return HIDDEN
    return redact(item)


def redact_text(text: str) -> str:
    """Text without logins in URLs and without the value of any secret environment variable."""
    text = _URL_LOGIN.sub(rf"\g<scheme>{HIDDEN}@", text)
    for _, value in secret_values():
        text = text.replace(value, HIDDEN)
    return text
