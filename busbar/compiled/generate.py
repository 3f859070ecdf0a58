"""C of our modules, by mypyc.

mypyc is called below its setuptools integration, which Python 3.12 and later do not come with.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from busbar.compiled import ROOT
from busbar.compiled.rewriting import with_constructors, with_finals, with_numbers


class Failed(Exception):  # noqa: N818 - it says what compiling has
    """Why the modules cannot be compiled here, in one line."""


def path_of(module: str) -> str:
    """A module's source, relative to the checkout."""
    return module.replace(".", "/") + ".py"


def generate(
    folder: Path, modules: Sequence[str], texts: Mapping[str, str], group: str
) -> tuple[list[str], list[Path]]:
    """Make C of the modules.

    Args:
        folder: Gets the C; whatever is there is removed.
        texts: Modules that have no file, by name.
        group: The name of the library that will hold all modules.

    Returns:
        The sources that the C depends on, relative to the checkout, and the C files to compile.

    Raises:
        Failed: mypyc does not take them.
    """
    try:
        from mypy.errors import CompileError
        from mypy.fscache import FileSystemCache
        from mypy.main import process_options
        from mypyc.codegen import emitmodule
        from mypyc.common import RUNTIME_C_FILES
        from mypyc.errors import Errors
        from mypyc.options import CompilerOptions
    except ImportError as error:
        raise Failed(f"mypyc is not installed ({error})") from None

    shutil.rmtree(folder, ignore_errors=True)
    with _sources(folder / "py", modules, texts):
        cache = FileSystemCache()
        arguments = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
        sources, options = process_options([*arguments, *map(path_of, [*modules, *texts])], fscache=cache, mypyc=True)
        options.python_version = sys.version_info[:2]
        options.export_types = True
        options.preserve_asts = True
        options.incremental = False
        for source in sources:
            options.per_module_options.setdefault(source.module, {})["mypyc"] = True
        c_options = CompilerOptions(multi_file=True, target_dir=str(folder), group_name=group)
        groups: emitmodule.Groups = [(sorted(sources, key=lambda source: source.module), group)]
        errors = Errors(options)
        try:
            result = emitmodule.parse_and_typecheck(sources, options, c_options, groups, cache)
            if result.errors:
                raise Failed(f"mypy says: {result.errors[0]}")
            compiled, contents, _ = emitmodule.compile_modules_to_c(
                result, compiler_options=c_options, errors=errors, groups=groups
            )
        except CompileError as error:
            raise Failed(f"mypy says: {error.messages[0] if error.messages else error}") from None
        if errors.num_errors:
            said = [line for line in errors.new_messages() if ": error:" in line]
            raise Failed(f"mypyc says: {said[0] if said else 'no'}")
        paths = (_ours(state.path, folder / "py") for name, state in result.graph.items() if name not in texts)
        needed = sorted(filter(None, paths))
    for name, text in contents[0]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    runtime = [*RUNTIME_C_FILES, *sorted(each.path for each in emitmodule.collect_source_dependencies(compiled))]
    c_files = [folder / name for name, _ in contents[0] if name.endswith(".c")]
    return needed, [*c_files, *(runtime_folder() / name for name in runtime)]


@contextlib.contextmanager
def _sources(folder: Path, modules: Sequence[str], texts: Mapping[str, str]) -> Iterator[None]:
    """Our code as it is compiled, in a folder that is the working directory meanwhile: mypy names files from there."""
    for package in ("busbar", "services"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    compiled = {folder / path_of(module) for module in modules}
    for path in folder.rglob("*.py"):
        text = with_numbers(path.read_text("utf-8"))
        path.write_text(with_finals(with_constructors(text)) if path in compiled else text, "utf-8")
    for name, text in texts.items():
        (folder / path_of(name)).write_text(text, "utf-8")
    with contextlib.chdir(folder):
        yield


def _ours(path: str | None, folder: Path) -> str:
    """A path relative to the checkout, if it is of the copies in the folder."""
    absolute = Path(path or "/").absolute()
    return absolute.relative_to(folder).as_posix() if absolute.is_relative_to(folder) else ""


def runtime_folder() -> Path:
    """mypyc's own C files."""
    import mypyc

    return Path(mypyc.__file__).resolve().parent / "lib-rt"


def mypyc_version() -> str:
    """The version that makes the C."""
    from mypy.version import __version__

    return __version__
