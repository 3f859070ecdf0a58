"""`python -m busbar.compiled.build`: compile the hot modules, if this machine can and has not done so already.

mypyc makes C of them, the C compiler makes object files, several at a time, and keeps those whose C has not changed.
Nobody needs the result: where anything is missing, one line says so and everything runs as plain Python.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from busbar.compiled import FOLDER, MANIFEST, PYTHON, ROOT, VARIABLE, Manifest, Unusable, hash_of
from busbar.compiled.codecs import codecs
from busbar.compiled.generate import Failed, generate, mypyc_version, path_of, runtime_folder

MODULES = (
    "busbar.avro.calls",
    "busbar.avro.decoding",
    "busbar.avro.encoding",
    "busbar.avro.primitives",
    "busbar.avro.sample_decoder",
    "busbar.avro.sample_encoder",
    "busbar.avro.samples",
    "busbar.ocpp.times",
    "busbar.pricing.bill",
    "busbar.pricing.clock",
    "busbar.pricing.edges",
    "busbar.pricing.engine",
    "busbar.pricing.explanation",
    "busbar.pricing.facts",
    "busbar.pricing.fold",
    "busbar.pricing.jsontext",
    "busbar.pricing.money",
    "busbar.pricing.ocpi_cdr",
    "busbar.pricing.selection",
    "busbar.pricing.session_facts",
    "busbar.pricing.state",
    "busbar.records",
    "busbar.stream.batch",
    "busbar.stream.kafka_batches",
    "busbar.stream.kafka_producer",
    "busbar.stream.merge",
    "busbar.stream.partitioner",
    "busbar.stream.replies",
    "busbar.stream.results",
    "services.billing.cdr",
    "services.billing.core",
    "services.billing.decoding",
    "services.billing.metrics",
    "services.billing.model",
    "services.billing.processor",
    "services.billing.reservations",
    "services.billing.running",
    "services.billing.store",
    "services.billing.telling",
    "services.sessions.answers",
    "services.sessions.cache",
    "services.sessions.clock",
    "services.sessions.continuity",
    "services.sessions.core",
    "services.sessions.decoding",
    "services.sessions.energy",
    "services.sessions.events",
    "services.sessions.lifecycle",
    "services.sessions.matching",
    "services.sessions.metrics",
    "services.sessions.model",
    "services.sessions.pricing",
    "services.sessions.processor",
    "services.sessions.reservations",
    "services.sessions.reserving",
    "services.sessions.samples",
    "services.sessions.signed",
    "services.sessions.steps",
    "services.sessions.store",
    "services.sessions.tariff_changes",
    "services.sessions.tokens",
    "services.sessions.transactions_16",
    "services.sessions.transactions_2x",
    "services.sessions.units",
    "services.sessions.watchdog",
    "services.sessions.wire",
)
"""What is compiled, beside the codecs of hot schemas: what a TransactionEvent meets in sessions, between the clients of
Kafka and of PostgreSQL."""

GROUP = "busbar_compiled"
"""The library that holds all of them; the file of each module only points into it."""
LIBRARY = f"{GROUP}__mypyc"
_OWN = (
    "requirements-dev.lock",
    *(f"busbar/compiled/{name}.py" for name in ("build", "codecs", "generate", "rewriting")),
)
"""What else decides what comes out."""
_DECIDING = (
    "schemas/registry.lock.json",
    "services/billing/decoding.py",
    *(
        f"busbar/avro/{name}.py"
        for name in ("codec", "compatibility", "decoders", "encoders", "lock", "schema", "source")
    ),
)
"""What the text of codecs depends on."""
_FLAGS = ("-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-fwrapv", "-w")
"""Hidden: our functions call each other without a way round by the linker's tables."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strict", action="store_true", help="exit with 1 if they cannot be had")
    options = parser.parse_args()
    if os.environ.get(VARIABLE) == "0":
        print(f"hot modules: plain Python, as {VARIABLE}=0 says")
        return
    try:
        build(FOLDER)
    except (Failed, Unusable) as why:
        tried = isinstance(why, Unusable)
        again = f"; remove {_shown(FOLDER)} to have it tried again" if tried else ""
        print(f"hot modules: plain Python, somewhat slower; {why}{again}")
        sys.exit(1 if options.strict else 0)


def _shown(folder: Path) -> Path:
    return folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder


def build(folder: Path) -> None:
    """Compile unless what is there is of these very sources.

    Raises:
        Failed: It cannot be done here.
        Unusable: It was tried with these very sources, and failed.
    """
    compiler, include = find_compiler()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if _is_current(folder):
            return
        print(
            f"hot modules: compiling them (once for each change of theirs, about a minute; {VARIABLE}=0 leaves it out)",
            flush=True,
        )
        began = time.monotonic()
        paths, problem, files = sorted(map(path_of, MODULES)), "", {}
        try:
            texts = codecs()
            paths, c_files = generate(folder / "c", MODULES, texts, GROUP)
            files = compile_c(folder, [*MODULES, *texts], c_files, compiler, include)
        except Failed as why:
            problem = str(why)
        manifest = Manifest(PYTHON, _hashes(sorted({*paths, *_OWN, *_DECIDING})), files, problem)
        begun = folder / f"{MANIFEST}.part"
        begun.write_text(json.dumps(asdict(manifest), indent=1), "utf-8")
        begun.replace(folder / MANIFEST)
        _remove_old(folder)
        if problem:
            raise Failed(problem)
        print(f"hot modules: compiled in {time.monotonic() - began:.0f} s")


def _is_current(folder: Path) -> bool:
    try:
        manifest = Manifest.read(folder)
    except Unusable:
        return False
    if not manifest.modules.keys() >= {LIBRARY, *MODULES} and not manifest.problem:
        return False
    try:
        manifest.check()
    except Unusable:
        if manifest.problem and manifest.python == PYTHON and manifest.sources == _hashes(manifest.sources):
            raise
        return False
    return all((folder / file).is_file() for file in manifest.modules.values())


def _remove_old(folder: Path) -> None:
    """Remove what was linked before, but for the last two: a process may be about to import from the older one."""
    linked = sorted(folder.glob(f"*/{LIBRARY}*"), key=lambda path: path.stat().st_mtime)
    for path in linked[:-2]:
        shutil.rmtree(path.parent)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else compiles here."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def find_compiler() -> tuple[str, Path]:
    """The C compiler, and the folder of Python's headers. Raises `Failed`."""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise Failed("this Python runs threads at once")
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        raise Failed("Python's headers are not on this machine")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if compiler is None:
        raise Failed("there is no C compiler on this machine")
    return compiler, include


def _hashes(paths: Iterable[str]) -> dict[str, str]:
    return {path: hash_of(ROOT / path) for path in paths}


# -- machine code of C ----------------------------------------------------------------------------------------


def link_flags() -> list[str]:
    """How an extension module is linked."""
    return ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]


def compile_c(
    folder: Path, modules: Sequence[str], c_files: list[Path], compiler: str, include: Path
) -> dict[str, str]:
    """Make the library and the file of each module. Returns the files of modules, relative to the folder.

    Raises:
        Failed: The compiler does not take something.
    """
    headers = b"".join(path.read_bytes() for path in sorted((folder / "c").rglob("*.h")))
    basis = hashlib.sha256(repr((PYTHON, compiler, _FLAGS, mypyc_version())).encode() + headers).digest()
    objects, shims = folder / "objects", folder / "shims"
    objects.mkdir(exist_ok=True)
    shims.mkdir(exist_ok=True)
    template = (runtime_folder() / "module_shim.tmpl").read_text("utf-8")
    shim_files = []
    for module in modules:
        shim_files.append(shims / f"{module}.c")
        names = {"modname": module.rpartition(".")[2], "libname": LIBRARY, "full_modname": module.replace(".", "___")}
        shim_files[-1].write_text(template.format(**names), "utf-8")
    includes = [f"-I{path}" for path in (include, runtime_folder(), folder / "c")]

    def to_object(path: Path) -> Path:
        made = objects / f"{path.stem}-{hashlib.sha256(basis + path.read_bytes()).hexdigest()[:20]}.o"
        if not made.is_file():
            begun = made.with_suffix(".part")
            _run([compiler, *_FLAGS, *includes, "-c", str(path), "-o", str(begun)])
            begun.replace(made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        library_objects = list(threads.map(to_object, sorted(c_files, key=lambda path: -path.stat().st_size)))
        shim_objects = list(threads.map(to_object, shim_files))
        every = sorted(each.name for each in (*library_objects, *shim_objects))
        name = hashlib.sha256("\n".join(every).encode()).hexdigest()[:20]
        begun = folder / f"{name}.part"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir()
        suffix = sysconfig.get_config_var("EXT_SUFFIX")

        def link(of: tuple[str, list[Path]]) -> tuple[str, str]:
            module, parts = of
            _run([compiler, *link_flags(), *map(str, parts), "-o", str(begun / f"{module}{suffix}")])
            return module, f"{name}/{module}{suffix}"

        wanted = [(LIBRARY, library_objects), *((m, [o]) for m, o in zip(modules, shim_objects, strict=True))]
        files = dict(threads.map(link, wanted))
    with contextlib.suppress(OSError):  # the same is there, and may be in use
        begun.replace(folder / name)
    shutil.rmtree(begun, ignore_errors=True)
    for each in objects.iterdir():
        if each.name not in every:
            each.unlink()
    return files


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Failed(f"the C compiler says: {said[-1] if said else done.returncode}")


if __name__ == "__main__":
    main()
