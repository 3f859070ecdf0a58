"""`docs/asyncapi.yaml`: the topics as an AsyncAPI 3.0 document, for those who generate clients, catalogues or pages.

Schemas stand in it as the lock has them, so the document needs no other file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from busbar import __version__
from busbar.avro.lock import Lock
from busbar.topics import Topic, all_topics, topic_configuration

_AVRO = "application/vnd.apache.avro+json;version=1.9.0"
_BINDING = "0.5.0"
_REPLICAS = 3
_LISTS = {"cleanup.policy"}
_STANDARD = {"cleanup.policy", "retention.ms", "delete.retention.ms", "max.message.bytes"}
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def asyncapi_document(lock: Lock) -> str:
    """The text of `docs/asyncapi.yaml`."""
    topics = all_topics()
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Busbar",
            "version": __version__,
            "description": (
                "The event streams of a charging station management system. Values are Avro in the Confluent wire "
                "format; ids and texts of the schemas are in schemas/registry.lock.json. See docs/topics.md."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/vnd.apache.avro",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "HOST:PORT of a broker."}},
            }
        },
        "channels": {name: _channel(topic) for name, topic in topics.items()},
        "operations": dict(_operations()),
        "components": {"messages": {topic.schema: _message(topic, lock) for topic in topics.values()}},
    }
    head = "# Made by `make schemas` from schemas/topics.toml and the lock: change those.\n"
    return head + "\n".join(_lines(document, 0)) + "\n"


def _channel(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {}
    for name, value in topic_configuration(topic, _REPLICAS).items():
        if name in _STANDARD:
            configuration[name] = [value] if name in _LISTS else int(value)
    return {
        "address": topic.name,
        "description": topic.purpose,
        "messages": {"value": {"$ref": f"#/components/messages/{topic.schema}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions("small"),
                "replicas": _REPLICAS,
                "topicConfiguration": configuration,
                "bindingVersion": _BINDING,
            }
        },
    }


def _operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for topic in all_topics().values():
        for action, services in (("send", topic.writers), ("receive", topic.readers)):
            for service in services:
                operation = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{topic.name}"},
                    "tags": [{"name": service}],
                }
                yield f"{service}.{action}.{topic.name}", operation


def _message(topic: Topic, lock: Lock) -> dict[str, Any]:
    entry = lock.latest(topic.schema)
    return {
        "name": topic.schema,
        "contentType": "application/vnd.apache.avro",
        "payload": {"schemaFormat": _AVRO, "schema": _Flow(_with_namespaces(json.loads(entry.schema)))},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"What it is: {topic.key}."},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "bindingVersion": _BINDING,
            }
        },
    }


def _with_namespaces(source: Any) -> Any:
    """A schema whose full names are parted: the schema of AsyncAPI allows no dots in the names of records."""
    if isinstance(source, list):
        return [_with_namespaces(entry) for entry in source]
    if not isinstance(source, dict):
        return source
    plain = {key: _with_namespaces(value) if key != "default" else value for key, value in source.items()}
    if source.get("type") == "record":
        namespace, _, name = source["name"].rpartition(".")
        plain |= {"name": name, "namespace": namespace}
    return plain


class _Flow:
    """A value to write on one line, as JSON, which YAML takes as it is."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _lines(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Block style for mappings, flow style for the rest."""
    for name, member in value.items():
        head = f"{'  ' * depth}{_scalar(name)}:"
        if isinstance(member, Mapping) and member:
            yield head
            yield from _lines(member, depth + 1)
        elif isinstance(member, str):
            yield f"{head} {_scalar(member)}"
        else:
            yield f"{head} {json.dumps(member.value if isinstance(member, _Flow) else member, ensure_ascii=False)}"


def _scalar(text: str) -> str:
    """A string that YAML reads as one."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
