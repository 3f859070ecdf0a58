"""`busbar` on the command line.

Every module of this package whose name does not begin with an underscore is one command and holds it as `command`:
`dead_letters.py` is `busbar dead-letters`. A module is imported when its command is used.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import click

from busbar import __version__
from busbar.config import ConfigError
from busbar.local.errors import StackError


class Commands(click.Group):
    """A group whose commands are the modules of this package."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name.replace("_", "-") for name in command_modules()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module_name = cmd_name.replace("-", "_")
        if module_name not in command_modules():
            return None
        module = importlib.import_module(f"{__name__}.{module_name}")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigError, StackError) as error:
            raise click.ClickException(str(error)) from error


def command_modules() -> list[str]:
    """The names of the modules that are commands, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="busbar")
def main() -> None:
    """A charging station management system on Apache Kafka.

    `busbar up` runs all of it on this machine.
    """
