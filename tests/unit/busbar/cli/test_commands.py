"""The command line as a whole: every command is found, explains itself and fails in one line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from busbar import __version__
from busbar.cli import Commands, command_modules, main
from busbar.local.errors import StackError


@pytest.mark.parametrize("module", command_modules())
def test_every_module_holds_a_command_of_its_own_name_with_a_help_sentence(module: str) -> None:
    name = module.replace("_", "-")
    assert isinstance(main, Commands)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(100), f"`busbar {name}` has no help"


@pytest.mark.parametrize("module", command_modules())
def test_every_command_answers_to_help(module: str) -> None:
    result = CliRunner().invoke(main, [module.replace("_", "-"), "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_the_help_lists_every_command() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    for module in command_modules():
        assert module.replace("_", "-") in output


def test_an_unknown_command_is_refused_in_one_line() -> None:
    result = CliRunner().invoke(main, ["no-such-command"])
    assert result.exit_code == 2
    assert "No such command 'no-such-command'" in result.output


def test_the_version_is_told() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_an_error_of_the_stack_is_one_line_without_a_traceback() -> None:
    group = Commands("busbar")

    def fail(*_: object) -> None:
        raise StackError("the disk is full: make room")

    group.get_command = lambda *_: click.Command("fail", callback=fail)  # type: ignore[method-assign]
    result = CliRunner().invoke(group, ["fail"])
    assert result.exit_code == 1
    assert result.output == "Error: the disk is full: make room\n"
