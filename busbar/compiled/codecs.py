"""The codecs that are compiled with the hot modules: those that a service makes for the schemas of most records.

They are generated at run time, from the schemas in use. What is compiled is the very text that is run otherwise, under
a name that is made of it; so a process finds the codec of its own schema and generator, or none and runs the text.
"""

from __future__ import annotations

from busbar.avro import calls, codec
from busbar.avro.source import recorded
from busbar.ocpp.versions import Version
from services.billing import decoding as billing

ACTIONS = {
    Version.V16: ("Authorize", "Heartbeat", "MeterValues", "StartTransaction", "StatusNotification", "StopTransaction"),
    Version.V201: ("Authorize", "Heartbeat", "MeterValues", "StatusNotification", "TransactionEvent"),
    Version.V21: ("Authorize", "Heartbeat", "MeterValues", "StatusNotification", "TransactionEvent"),
}
"""What stations send all the time: the edge encodes it, the processors decode it."""
VALUES = ("csms.OutboundMessage", "csms.Cdr")
"""What services encode and decode for each answer."""


def codecs() -> dict[str, str]:
    """The texts of the codecs, by module name. They are those that this process has not made yet: call it once."""
    with recorded() as texts:
        for version, actions in ACTIONS.items():
            for action in actions:
                calls.call_encoder(version, action)
                calls.call_decoder(codec.newest(f"ocpp.{version.label}.{action}"), packed_samples=True)
        for name in VALUES:
            codec.encoder_of(name)
            codec.decoder_of(codec.header_of(codec.newest(name)))
        billing.decoders()
    return {name: text for name, text in sorted(texts.items()) if not name.startswith("busbar_codec_default_")}
