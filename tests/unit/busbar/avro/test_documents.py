"""The pages that are made from the map of topics."""

from __future__ import annotations

import json
import re

import fastavro

from busbar.avro.asyncapi import asyncapi_document
from busbar.avro.documents import topics_page
from busbar.avro.lock import shipped_lock
from busbar.topics import all_topics


def test_the_page_has_a_row_for_every_topic_and_links_its_schema() -> None:
    page = topics_page()
    for topic in all_topics().values():
        (row,) = [line for line in page.splitlines() if f"[`{topic.schema}`](" in line]
        assert f"../schemas/avro/{topic.schema.replace('.', '/')}.avsc" in row
        assert row.count("|") in (9, 4), row
        assert all(reader in row for reader in topic.readers)


def test_the_asyncapi_document_has_a_channel_and_a_schema_for_every_topic() -> None:
    text = asyncapi_document(shipped_lock())
    channels = re.findall(r"^    address: (.*)$", text, re.MULTILINE)
    assert channels == list(all_topics())
    schemas = [json.loads(found) for found in re.findall(r"^        schema: (.*)$", text, re.MULTILINE)]
    names = {f"{schema['namespace']}.{schema['name']}" for schema in schemas}
    assert names == {topic.schema for topic in all_topics().values()}
    for schema in schemas:
        fastavro.parse_schema(schema)


def test_the_asyncapi_document_says_who_sends_and_who_receives() -> None:
    text = asyncapi_document(shipped_lock())
    for topic in all_topics().values():
        for service in topic.writers:
            assert f"\n  {service}.send.{topic.name}:\n" in text
        for service in topic.readers:
            assert f"\n  {service}.receive.{topic.name}:\n" in text


def test_strings_that_yaml_would_read_as_something_else_are_quoted() -> None:
    text = asyncapi_document(shipped_lock())
    for line in text.splitlines()[1:]:
        name, colon, value = line.strip().partition(": ")
        assert name.isascii()
        if colon and not value.startswith(('"', "[", "{")):
            assert re.fullmatch(r"[A-Za-z][\w./+-]*|\d+", value), line
