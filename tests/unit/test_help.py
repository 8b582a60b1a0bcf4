"""Every verb explains itself, and its example is a command line that its table accepts."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from machinectl_py.cli.main import ALIASES, VERBS, find_verb, load_verb
from machinectl_py.cli.parse import parse
from machinectl_py.config.option import Option
from machinectl_py.errors import UsageError

COMMAND = ["/usr/bin/python3", "-SI", f"{Path(__file__).parents[2]}/packaging/pymachine"]
ALL = [verb for verbs in VERBS.values() for verb in verbs]


def pymachine(*arguments):
    return subprocess.run([*COMMAND, *arguments], check=False, capture_output=True, text=True)


@pytest.fixture(params=ALL)
def verb(request):
    return request.param


@pytest.fixture
def module(verb):
    return load_verb(find_verb(verb))


def test_usage_begins_with_the_verb(verb, module):
    assert module.USAGE.split()[0] == verb


def test_summary_is_one_short_line_without_a_stop(module):
    assert re.fullmatch(r"[A-Z][^\n]{5,70}[^\n.\s]", module.SUMMARY)


def test_details_are_text(module):
    assert isinstance(module.DETAILS, str)


def test_example_is_understood_by_the_verbs_own_table(verb, module):
    words = shlex.split(module.EXAMPLE)
    words = words[1:] if words[0] == "sudo" else words
    assert words[0] == "pymachine"
    assert find_verb(words[1]) == find_verb(verb)
    parse(module.OPTIONS, words[2:], command=module.COMMAND)


def test_the_verb_can_be_run_and_says_where_a_command_begins(module):
    assert callable(module.run)
    assert isinstance(module.COMMAND, int)
    assert module.COMMAND >= -1


def test_options_are_well_formed_and_explained(module):
    assert isinstance(module.OPTIONS, tuple)
    for option in module.OPTIONS:
        assert isinstance(option, Option)
        only_short = option.name == f"-{option.short}"  # "--P" for -P
        assert only_short or re.fullmatch(r"--[a-z][a-z0-9-]+", option.name)
        assert re.fullmatch(r"(-[a-zA-Z])?", option.short)
        assert option.help, option.name
        assert not option.help.endswith("."), option.name
        assert option.value or not option.choices, option.name


def test_no_option_is_there_twice(module):
    names = [option.name for option in module.OPTIONS]
    shorts = [option.short for option in module.OPTIONS if option.short]
    assert len(names) == len(set(names))
    assert len(shorts) == len(set(shorts))


@pytest.mark.parametrize("form", ["--help", "-h", "help"])
def test_help_of_a_verb_shows_it_all_on_standard_output(verb, module, form):
    shown = pymachine("help", verb) if form == "help" else pymachine(verb, form)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"pymachine {module.USAGE}\n")
    assert module.SUMMARY in shown.stdout
    assert f"Example:\n  {module.EXAMPLE}\n" in shown.stdout
    for option in module.OPTIONS:
        only_short = option.name == f"-{option.short}"
        assert f" {option.short if only_short else option.name}" in shown.stdout
        assert option.help in shown.stdout


def test_overview_has_every_verb_under_its_group():
    shown = pymachine("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    for group, verbs in VERBS.items():
        section = shown.stdout.partition(f"\n{group}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines()] == list(verbs)


def test_no_verb_shows_the_overview_as_an_error():
    shown = pymachine()
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "Start and stop:" in shown.stderr


def test_version_is_on_standard_output():
    shown = pymachine("--version")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.match(r"pymachine \d+\.\d+", shown.stdout)


def test_aliases_lead_to_verbs():
    for alias, verb in ALIASES.items():
        assert alias not in ALL
        assert find_verb(alias) == find_verb(verb)


def test_a_mistyped_verb_is_told_the_closest():
    with pytest.raises(UsageError, match=r"'bot', did you mean boot\?"):
        find_verb("bot")


@pytest.mark.parametrize(
    "arguments", [["no-such-verb"], ["--no-such-option"], ["list", "--nonsense"]]
)
def test_a_wrong_command_line_is_one_line_and_exit_status_2(arguments):
    shown = pymachine(*arguments)
    assert (shown.returncode, shown.stdout) == (2, "")
    lines = shown.stderr.splitlines()
    assert lines[0].startswith("pymachine: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
