"""The hot modules as machine code, where somebody has compiled them; plain Python everywhere else.

`python -m busbar.compiled.build` makes extension modules of some of our modules with mypyc, below `build/compiled/`.
A process that calls `use()` before it imports any of them gets those instead of the `.py` files: all of them or none,
and only if they were made of the very sources that lie here, for this very interpreter. What they do is the same.

`BUSBAR_COMPILED=0` leaves them alone; `BUSBAR_COMPILED=1` insists on them; otherwise they are used where there are any.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

VARIABLE = "BUSBAR_COMPILED"
ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "compiled"
MANIFEST = "manifest.json"
PYTHON = f"{sys.implementation.cache_tag} {sysconfig.get_config_var('EXT_SUFFIX')} {sys.version}"
"""What extension modules are made for; compared as a whole."""


class Unusable(Exception):  # noqa: N818 - it says what the modules are
    """Why the compiled modules are not used, in a few words."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was compiled, of what, and for what."""

    python: str
    sources: Mapping[str, str]
    """Hashes by path, relative to the checkout: the compiled modules, and what these import from us."""
    modules: Mapping[str, str]
    """The file of each compiled module, relative to the manifest's folder. Nothing, if compiling failed."""
    problem: str = ""
    """Why compiling failed."""

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Manifest:
        """Read it. Raises `Unusable`."""
        try:
            return cls(**json.loads((folder / MANIFEST).read_bytes()))
        except FileNotFoundError:
            raise Unusable("there are none") from None
        except (OSError, ValueError, TypeError) as error:
            raise Unusable(f"{MANIFEST}: {error}") from None

    def check(self) -> None:
        """See whether it is of what is here. Raises `Unusable`."""
        if self.python != PYTHON:
            raise Unusable("they are of another Python")
        for path, digest in self.sources.items():
            if hash_of(ROOT / path) != digest:
                raise Unusable(f"they are older than {path}")
        if self.problem:
            raise Unusable(self.problem)


def hash_of(path: Path) -> str:
    """The hash of a file's content; empty if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


class CompiledFinder(MetaPathFinder):
    """Finds the compiled modules before the import system finds their sources."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


_said = "no"
_names: frozenset[str] = frozenset()


def said() -> str:
    """Whether this process uses the compiled modules, and if not, why: for its log."""
    return _said


def module(name: Callable[[], str]) -> ModuleType | None:
    """A compiled module that has no source file, such as that of a codec; `None` if there is none or none are used.

    Args:
        name: Is called where compiled modules are used.
    """
    return import_module(found) if _names and (found := name()) in _names else None


def use(folder: Path = FOLDER) -> None:
    """Import the compiled modules from now on, if they may be used. Comes before the first import of any of them.

    Raises:
        Unusable: They cannot be used, and `BUSBAR_COMPILED=1` insists.
    """
    global _names, _said
    wanted = os.environ.get(VARIABLE, "")
    if wanted == "0":
        _said = f"no: {VARIABLE}=0"
        return
    try:
        manifest = Manifest.read(folder)
        manifest.check()
        _refuse_mixture(manifest.modules)
    except Unusable as why:
        if wanted == "1":
            raise
        _said = f"no: {why}"
        return
    sys.meta_path.insert(0, CompiledFinder({name: folder / file for name, file in manifest.modules.items()}))
    _names = frozenset(manifest.modules)
    _said = f"yes: {len(manifest.modules)} modules"


def _refuse_mixture(modules: Iterable[str]) -> None:
    """Compiled modules know the insides of each other's classes: none may have been imported as plain Python."""
    early = sorted(sys.modules.keys() & set(modules))
    if early:
        raise Unusable(f"{early[0]} was imported before")
