"""The compiled modules do what the plain ones do: the tests of the hot modules pass on both, and bytes are the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from busbar.compiled import ROOT
from busbar.compiled.build import find_compiler
from busbar.compiled.generate import Failed

TESTS = (
    "tests/unit/services/sessions",
    "tests/unit/services/billing",
    "tests/unit/pricing",
    "tests/unit/busbar/avro/test_calls.py",
    "tests/unit/busbar/avro/test_codec.py",
    "tests/unit/busbar/avro/test_decoders.py",
    "tests/unit/busbar/avro/test_primitives.py",
    "tests/unit/busbar/avro/test_samples.py",
    "tests/unit/busbar/compiled/test_codecs.py",
    "tests/unit/busbar/stream/test_merge.py",
    "tests/unit/busbar/stream/test_outbox.py",
    "tests/unit/busbar/stream/test_replies.py",
    "tests/unit/busbar/stream/test_results.py",
    "tests/unit/busbar/stream/test_worker.py",
    "tests/unit/test_walk.py",
)
"""Of the modules that are compiled, their properties included."""

BYTES = """
from benchmarks.sessions_fold import *
from hashlib import sha256

digest = sha256()
made = [session_2x(1), session_16(2), session_2x(3)]
for tariffs in (NO_TARIFFS, tariff_book()):
    tables, processor = Tables(tariffs), SessionsProcessor(POLICY, partitions=PARTITIONS)
    for batch in batches(interleaved(made), 4):
        events = [processor.decode(each) for each in batch + batch[:1]]
        state = tables.load(events)
        results = [result for event in events for result in processor.fold(state, event)]
        digest.update(repr((results, store_call(state, ()))).encode())
        tables.save(state)
print(digest.hexdigest())
"""

CODECS = """
from hashlib import sha256
from busbar.avro.examples import example_value
from busbar.topics import all_topics
from tests.unit.busbar.compiled.test_codecs import *

chance, digest = random.Random(1), sha256()
for topic in all_topics().values():
    if topic.schema not in NAMES:
        continue
    value = example_value(topic.name, topic.schema)
    value = value if topic.action is None else value["payload"]
    (encoder, _), (decoder, _) = coders(topic.schema)
    octets = encoded(encoder, value)
    for _ in range(1000):
        found = encoded(encoder, changed(value, chance))
        found = "refused" if found[0] in (AttributeError, TypeError) else found  # of members whose names are no text
        digest.update(repr((found, decoded(decoder, spoilt(octets, chance)))).encode())
print(digest.hexdigest())
"""


def python(environment: dict[str, str], *arguments: str) -> str:
    answer = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout[-6000:]
    return answer.stdout


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    try:
        find_compiler()
    except Failed as why:
        pytest.skip(str(why))
    python({"BUSBAR_COMPILED": ""}, "-m", "busbar.compiled.build", "--strict")


@pytest.mark.slow
def test_a_compiler_that_fails_is_tried_once(tmp_path: Path) -> None:
    failing = {"BUSBAR_COMPILED": "", "CC": "false"}
    build = f"from busbar.compiled import build; build.FOLDER = build.Path({str(tmp_path)!r}); build.main()"
    first = python(failing, "-c", build).splitlines()
    assert first[1:] == ["hot modules: plain Python, somewhat slower; the C compiler says: 1"]
    assert (tmp_path / "manifest.json").is_file()
    again = f"{first[1]}; remove {tmp_path} to have it tried again"
    assert python(failing, "-c", build).splitlines() == [again]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_tests_of_the_hot_modules_pass_on_the_compiled_ones() -> None:
    said = python({}, "-m", "busbar.compiled", "pytest", "-x", "-p", "no:cacheprovider", *TESTS).splitlines()[-1]
    assert re.search(r" \d+ passed, 3 skipped in ", said), said  # those that put something else in a function's place


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("script", [BYTES, CODECS], ids=["results and rows", "codecs and what they refuse"])
def test_they_do_the_same_to_the_byte(script: str) -> None:
    use: Sequence[str] = ("from busbar import compiled; compiled.use()", script)
    seed = {"PYTHONHASHSEED": "0"}  # the order of sets
    plain = python({**seed, "BUSBAR_COMPILED": "0"}, "-c", "\n".join(use))
    assert python({**seed, "BUSBAR_COMPILED": "1"}, "-c", "\n".join(use)) == plain
