"""What a cgroup uses and may use, from the kernel's files."""

from __future__ import annotations

from machinectl_py.runtime.inspect_resources import Resources, resources


def test_controllers_count_and_limit(tmp_path):
    files = {
        "pids.current": "23\n",
        "pids.max": "100\n",
        "memory.current": "4096\n",
        "memory.max": "1048576\n",
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    used = resources(str(tmp_path))
    assert used == Resources(tasks=23, tasks_max=100, memory=4096, memory_max=1 << 20, cpu=1500)


def test_without_limits_and_controllers_threads_are_counted(tmp_path):
    (tmp_path / "payload/init.scope").mkdir(parents=True)
    (tmp_path / "cgroup.threads").write_text("1\n")
    (tmp_path / "payload/cgroup.threads").write_text("")
    (tmp_path / "payload/init.scope/cgroup.threads").write_text("2\n3\n4\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert resources(str(tmp_path)) == Resources(tasks=4)


def test_of_a_machine_that_has_just_ended_nothing_is_known(tmp_path):
    assert resources(str(tmp_path / "gone")) == Resources(tasks=0)
