"""Variables of systemd-nspawn's environment, as far as only a running machine shows them."""

from __future__ import annotations

import os
import subprocess

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_without_locks_two_machines_run_on_one_root(pymachine, tree, machine, leaves_nothing):
    words = ("-D", tree, "--", "/bin/true")
    holder = subprocess.Popen(
        pymachine.command("run", "-M", machine, "-D", tree, "--", "/bin/sh", "-c", "echo; cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.read(1) == b"\n"
    other = f"{machine}-b"
    refused = pymachine("run", "-M", other, *words)
    assert (refused.returncode, "in use" in refused.stderr) == (1, True)
    given = os.environ | {"SYSTEMD_NSPAWN_LOCK": "0"}
    for verb in ("run", "nspawn"):
        assert pymachine(verb, "-M", other, *words, env=given).returncode == 0
    holder.communicate(timeout=10)
    assert holder.returncode == 0


def test_without_locks_a_machine_reboots(pymachine, tree, machine, leaves_nothing):
    given = os.environ | {"SYSTEMD_NSPAWN_LOCK": "0"}
    assert pymachine("boot", "-D", tree, "-M", machine, env=given).returncode == 0
    assert pymachine("reboot", machine).returncode == 0
    assert pymachine("show", machine, "-p", "Boots", "--value").stdout == "2\n"
    assert pymachine("poweroff", machine).returncode == 0


def test_the_level_of_the_log_hides_what_nspawn_says(pymachine, tree, machine):
    words = ("nspawn", "-D", tree, "-M", machine, "/bin/true")
    said = {
        level: pymachine(*words, env=os.environ | {"SYSTEMD_LOG_LEVEL": level}).stderr
        for level in ("info", "warning")
    }
    assert "Spawning container" in said["info"]
    assert said["warning"] == ""
