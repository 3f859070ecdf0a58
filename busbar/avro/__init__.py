"""Avro in the Confluent wire format: what every value on every topic is written in.

`encode` and `decode` serve every schema; `meta_prefix`, `call_encoder` and `decode_call` are the hot path for the
CALLs of stations. Schemas and their ids come from `schemas/registry.lock.json`; no registry is asked at run time.
"""

from busbar.avro.calls import CallEncoder, call_encoder, decode_call, decode_packed_call, meta_prefix
from busbar.avro.codec import decode, encode
from busbar.avro.errors import InvalidAvro, SchemaError

__all__ = [
    "CallEncoder",
    "InvalidAvro",
    "SchemaError",
    "call_encoder",
    "decode",
    "decode_call",
    "decode_packed_call",
    "encode",
    "meta_prefix",
]
