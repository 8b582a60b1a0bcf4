"""Machines with an init of their own: boot, stop, reboot, what fails, what stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import REPOSITORY
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def one_error(done, status=1):
    """Hold that a command failed with one line and, at most, a hint."""
    assert done.returncode == status, done
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("pymachine: "), lines
    assert all(line.startswith("hint: ") for line in lines[1:]), lines
    return lines[0]


def property_of(pymachine, machine, name):
    return pymachine("show", machine, "-p", name, "--value").stdout.strip()


def test_a_machine_boots_to_running_and_powers_off(pymachine, tree, machine):
    booted = pymachine("boot", "-D", tree, "-M", machine)
    assert booted.returncode == 0, booted
    assert f"pymachine shell {machine}" in booted.stderr
    waited = pymachine("exec", machine, "--", "systemctl", "is-system-running", "--wait")
    failed = pymachine("exec", machine, "--", "systemctl", "--failed", "--no-legend")
    assert (waited.stdout, failed.stdout) == ("running\n", "")
    uptime = pymachine("exec", machine, "--", "cat", "/proc/uptime").stdout
    assert float(uptime.split()[0]) < 60
    assert machine in pymachine("list").stdout
    assert pymachine("poweroff", machine).returncode == 0
    assert machine not in pymachine("list").stdout


def test_a_machine_reboots_by_verb_and_from_inside(pymachine, tree, machine):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    first = property_of(pymachine, machine, "Leader")
    assert pymachine("reboot", machine).returncode == 0
    second = property_of(pymachine, machine, "Leader")
    assert first != second
    pymachine("exec", machine, "--", "systemctl", "reboot")
    wait_for(lambda: property_of(pymachine, machine, "Leader") not in ("", first, second))
    wait_for(lambda: property_of(pymachine, machine, "Boots") == "3")
    assert pymachine("terminate", machine).returncode == 0


def test_it_starts_and_stops_again_and_again(pymachine, tree, machine):
    for _ in range(10):
        pymachine("boot", "-D", tree, "-M", machine, check=True)
        pymachine("poweroff", machine, check=True)


def test_a_second_boot_of_it_is_refused(pymachine, tree, machine):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    assert "running already" in one_error(pymachine("boot", "-D", tree, "-M", machine))
    other = one_error(pymachine("boot", "-D", tree, "-M", f"{machine}b"))
    assert "in use" in other
    pymachine("terminate", machine, check=True)


def test_an_init_that_crashes_is_told_and_leaves_nothing(pymachine, tree, machine):
    init = tree / "usr/lib/systemd/systemd"
    init.unlink()
    init.write_text("#!/bin/sh\necho it hurts\nexit 3\n")
    init.chmod(0o755)
    said = pymachine("boot", "-D", tree, "-M", machine)
    assert "exit status 3" in one_error(said)
    assert "it hurts" in said.stderr


def test_an_init_that_never_gets_ready_is_ended(pymachine, tree, machine):
    init = tree / "usr/lib/systemd/systemd"
    init.unlink()
    init.write_text("#!/bin/sh\nexec sleep 1000\n")
    init.chmod(0o755)
    said = pymachine("boot", "--timeout=1", "-D", tree, "-M", machine)
    assert "did not become ready" in one_error(said)


def test_a_killed_supervisor_leaves_nothing_that_runs(pymachine, tree, machine):
    pymachine("boot", "-D", tree, "-M", machine, check=True)
    supervisor = int(property_of(pymachine, machine, "Supervisor"))
    leader = int(property_of(pymachine, machine, "Leader"))
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{leader}"))
    assert machine not in pymachine("list").stdout
    assert not os.path.exists(f"/run/pymachine/machines/{machine}")


def test_bad_input_is_one_line(pymachine, tree, machine, tmp_path):
    assert "image" in one_error(pymachine("boot", "there-is-none"))
    one_error(pymachine("boot", "-D", tree, "-M", "bad/name"))
    assert "/ gives no valid" in one_error(pymachine("boot", "-D", "/"))
    one_error(pymachine("boot", "-D", tmp_path, "-M", machine))
    one_error(pymachine("boot", "--nonsense", "x"), 2)
    one_error(pymachine("poweroff", machine))
    one_error(pymachine("run", "-D", tree, "-M", machine, "--capability=CAP_NONE", "true"))


def test_a_failure_of_each_step_is_told_and_undone(pymachine, tree, machine):
    plan = json.loads(pymachine("plan", "-D", tree, "-M", machine, "--json=short").stdout)
    assert len(plan) > 40
    for step in plan[:-1]:
        environment = dict(os.environ, PYMACHINE_TEST_FAIL=f"{step['name']}:28")
        said = pymachine("boot", "-D", tree, "-M", machine, env=environment)
        line = one_error(said)
        assert f"step {step['index']} of {len(plan)}, {step['place']}" in line
        assert "injected" in line or "No space" in line
        assert not os.path.exists(f"/run/pymachine/machines/{machine}"), step
        assert not os.path.exists(f"/run/pymachine/locks/{machine}"), step


def test_an_interrupted_boot_leaves_nothing(pymachine, tree, machine):
    pymachine("list")
    for delay in (0.02, 0.05, 0.1, 0.2):
        command = pymachine.command("boot", "-D", tree, "-M", machine)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        if process.returncode == 0:  # it was faster
            pymachine("terminate", machine, check=True)
            continue
        # Before the command's first line, the interpreter itself tells of Ctrl-C.
        assert "Traceback" not in stderr or f"{REPOSITORY}/machinectl_py/" not in stderr
        assert not os.path.exists(f"/run/pymachine/machines/{machine}")


def test_a_trace_is_drawn_with_each_step_and_the_boot(pymachine, tree, machine, tmp_path):
    pymachine("boot", "-q", "-D", tree, "-M", machine, check=True)
    for path, reason in (("", "--svg= is empty"), (f"{tmp_path}/no/file", "No such file")):
        done = pymachine("trace", machine, f"--svg={path}")
        assert done.returncode in (1, 2)
        assert reason in done.stderr
    picture = tmp_path / "boot.svg"
    pymachine("trace", machine, f"--svg={picture}", check=True)
    space = "{http://www.w3.org/2000/svg}"
    drawn = ET.parse(picture).getroot()
    texts = [text.text for text in drawn.iter(f"{space}text")]
    steps = json.loads(pymachine("trace", machine, "--json=short").stdout)["steps"]
    assert len(list(drawn.iter(f"{space}rect"))) == len(steps) + 1
    for step in steps:
        assert any(text.startswith(step["describe"][:70]) for text in texts)
    assert "until READY=1" in texts[-1]


def test_a_supervisor_says_whose_it_is(pymachine, tree, machine):
    pymachine("boot", "-q", "-D", tree, "-M", machine, check=True)
    pid = pymachine("show", machine, "-p", "Supervisor", "--value").stdout.strip()
    for _ in range(2):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
        assert words.decode() == f"pymachine: supervisor of {machine}"
        assert Path(f"/proc/{pid}/comm").read_text() == "pymachine\n"
        assert f"Supervisor: {pid} (pymachine)" in pymachine("status", machine).stdout
        pymachine("reboot", machine, check=True)


def journal_of(unit):
    command = ["journalctl", "--quiet", "--unit", unit, "--output=cat", "--no-pager"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_status_tells_what_a_machine_uses_and_what_the_journal_says_of_it(pymachine, tree, machine):
    pymachine("boot", "-q", "-D", tree, "-M", machine, check=True)
    unit = property_of(pymachine, machine, "Unit")
    if unit:
        wait_for(lambda: journal_of(unit))
    shown, _, journal = pymachine("status", "-n3", "-ocat", machine).stdout.partition("\n\n")
    fields = dict(line.strip().split(": ", 1) for line in shown.splitlines() if ": " in line)
    # Its systemd, its journald, its logind, ..., and the supervisor.
    assert int(fields["Tasks"].split()[0]) > 5
    assert float(fields["CPU"].removesuffix(" s")) > 0
    used = json.loads(pymachine("status", "--json=short", machine).stdout)[0]["Resources"]
    assert used["Tasks"] > 5
    assert used["CPUUSec"] > 0
    assert bool(journal) == bool(unit)
    assert not unit or set(journal.splitlines()) <= set(journal_of(unit))
    assert "\n\n" not in pymachine("status", "-n0", machine).stdout
    assert "JSON" in one_error(pymachine("status", "-n1", "--json=short", machine), 2)
    assert "--output" in one_error(pymachine("status", "-o", "x", machine), 2)
    assert "takes a whole number" in one_error(pymachine("status", "-n", "x", machine), 2)


@pytest.mark.parametrize("options", [["--volatile=yes"], ["--volatile=state"], []])
def test_a_first_boot_waits_for_no_answers(each_tree, machine, pymachine, options):
    """Nobody is at its console, on which systemd-firstboot(1) would ask for a locale and more."""
    for name in ("machine-id", "locale.conf", "localtime", "default/locale"):
        each_tree.joinpath("etc", name).unlink(missing_ok=True)
    done = pymachine("boot", "-D", each_tree, "-M", machine, "--timeout=40", *options)
    assert done.returncode == 0, done.stderr
    shown = pymachine("exec", machine, "--", "cat", "/proc/1/cmdline").stdout
    assert shown.split("\0")[1] == "systemd.firstboot=off"
    state = pymachine("exec", machine, "--", "systemctl", "is-system-running", "--wait").stdout
    assert state == "running\n"
