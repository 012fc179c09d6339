"""A group as bytes: everything that training on it again needs, bit for bit."""

from __future__ import annotations

import zlib

import msgspec

from rltrain.errors import UserError
from rltrain.types import Group

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Group).decode


def pack(group: Group) -> bytes:
    """Compressed MessagePack; log-probabilities stay 64-bit floats, NaN included."""
    return zlib.compress(_encode(group), level=1)


def unpack(body: bytes) -> Group:
    """The group that was packed. Raises `UserError` if the bytes are damaged."""
    try:
        return _decode(zlib.decompress(body))
    except (zlib.error, msgspec.DecodeError) as error:
        raise UserError(
            f"the ledger holds a damaged group ({error}); restore ledger.sqlite from a copy, or "
            "start a new run under another name"
        ) from error
