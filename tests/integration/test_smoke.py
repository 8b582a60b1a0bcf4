"""The shortest way through the whole program: a command in a machine."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_a_command_runs_as_root_of_the_machine(pymachine, tree, machine):
    shown = pymachine("run", "-D", tree, "-M", machine, "/bin/cat", "/etc/os-release")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == (tree / "etc/os-release").read_text()


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_of_the_command_is_ours(pymachine, tree, machine, status):
    shown = pymachine("run", "-D", tree, "-M", machine, "/bin/sh", "-c", f"exit {status}")
    assert (shown.returncode, shown.stdout, shown.stderr) == (status, "", "")


def test_a_command_ended_by_a_signal_gives_128_and_its_number(pymachine, tree, machine):
    # PID 1 of a PID namespace takes no signal from inside it: pid_namespaces(7).
    killed = ("--as-pid2", "/bin/sh", "-c", "kill -TERM $$")
    assert pymachine("run", "-D", tree, "-M", machine, *killed).returncode == 128 + 15


def test_a_command_that_does_not_exist_is_told_with_127(pymachine, tree, machine):
    shown = pymachine("run", "-D", tree, "-M", machine, "/no/such/command")
    assert shown.returncode == 127
    assert "/no/such/command" in shown.stderr
    assert len(shown.stderr.splitlines()) <= 2


def test_a_directory_that_does_not_exist_is_told_as_one(pymachine, tree, machine):
    done = pymachine("run", "-D", tree, "-M", machine, "--chdir=/none", "--", "pwd")
    told = "pymachine: Failed to change to directory /none: No such file or directory (step "
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(told)


def test_standard_input_and_output_are_the_commands(pymachine, tree, machine):
    shown = pymachine("run", "-D", tree, "-M", machine, "/usr/bin/tr", "a-z", "A-Z", input="abc\n")
    assert (shown.returncode, shown.stdout) == (0, "ABC\n")


def test_the_machine_is_a_world_of_its_own(pymachine, tree, machine):
    script = "hostname; echo $$; cat /proc/1/comm; stat -fc %T /dev; echo $container"
    shown = pymachine("run", "-D", tree, "-M", machine, "/bin/sh", "-c", script)
    assert shown.stdout.split() == [machine, "1", "sh", "tmpfs", "pymachine"]
