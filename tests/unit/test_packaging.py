"""What packaging/install puts on a host, and that packaging/uninstall takes all of it away."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from machinectl_py.cli.main import VERBS, load_verb
from machinectl_py.config.table import SETTINGS

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"


def run(*command, **keywords):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **keywords
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def destination(tmp_path_factory):
    place = tmp_path_factory.mktemp("destination")
    run(PACKAGING / "install", f"--destdir={place}", umask=0o077)
    return place


def test_installed_command_runs_without_the_source_tree(destination, tmp_path):
    stub = (destination / "usr/bin/pymachine").read_text()
    assert '"/usr/lib/pymachine"' in stub
    assert str(REPOSITORY) not in stub
    moved = tmp_path / "pymachine"
    moved.write_text(stub.replace('"/usr/lib/pymachine"', f'"{destination}/usr/lib/pymachine"'))
    assert run("/usr/bin/python3", "-SI", moved, "--version").startswith("pymachine ")


def test_everything_is_readable_for_everybody(destination):
    for path in destination.glob("usr/**/*"):
        assert path.stat().st_mode & 0o044 == 0o044, path
        assert not path.is_dir() or path.stat().st_mode & 0o011 == 0o011, path


def test_modules_are_compiled_with_their_installed_path(destination):
    library = destination / "usr/lib/pymachine/machinectl_py"
    compiled = list(library.glob("__pycache__/errors.*.pyc"))
    assert len(compiled) == 1
    assert b"/usr/lib/pymachine/machinectl_py/errors.py" in compiled[0].read_bytes()
    assert str(destination).encode() not in compiled[0].read_bytes()


def test_uninstall_takes_exactly_that_away(tmp_path):
    other = tmp_path / "usr/bin/other"
    other.parent.mkdir(parents=True)
    other.touch()
    run(PACKAGING / "install", f"--destdir={tmp_path}")
    run(PACKAGING / "install", f"--destdir={tmp_path}")  # an upgrade
    assert sorted(path.name for path in (tmp_path / "usr/lib").iterdir()) == [
        "pymachine",
        "systemd",
        "tmpfiles.d",
    ]
    run(PACKAGING / "uninstall", f"--destdir={tmp_path}")
    assert [path for path in tmp_path.glob("**/*") if not path.is_dir()] == [other]


def test_unit_and_command_follow_the_prefix(tmp_path):
    run(PACKAGING / "install", f"--destdir={tmp_path}", "--prefix=/opt/p")
    unit = (tmp_path / "opt/p/lib/systemd/system/pymachine@.service").read_text()
    assert "ExecStart=/opt/p/bin/pymachine boot " in unit
    assert '"/opt/p/lib/pymachine"' in (tmp_path / "opt/p/bin/pymachine").read_text()


def test_manual_page_has_each_verb_and_option_and_no_warning(destination, tmp_path):
    page = gzip.decompress((destination / "usr/share/man/man1/pymachine.1.gz").read_bytes())
    text = page.decode().replace("\\-", "-")
    for verbs in VERBS.values():
        for name in verbs.values():
            verb = load_verb(name)
            assert verb.SUMMARY in text
            for option in verb.OPTIONS:
                if option.name != f"-{option.short}":
                    assert f"\\fB{option.name}\\fR" in text
    for row in SETTINGS:
        assert f"{row.key}=" in text
        assert not row.name or row.help.replace("…", "\\&...") in text
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8", "-P-c"],
        input=page,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""


def complete(script, *words):
    """Return what bash would offer for the last word."""
    quoted = " ".join(f"'{word}'" for word in words)
    body = (
        f'source "{script}"; _pymachine_machines() {{ echo web; }}; '
        "_pymachine_networks() { echo lab; }; "
        f"COMP_WORDS=(pymachine {quoted}); COMP_CWORD={len(words)}; "
        '_pymachine; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return run("bash", "-c", body).split()


def test_bash_completes_verbs_options_and_choices(destination):
    script = destination / "usr/share/bash-completion/completions/pymachine"
    assert complete(script, "plan") == ["plan"]
    assert complete(script, "pull", "--su") == ["--suite="]
    assert complete(script, "pull", "--variant", "=") == ["minbase", "important", "standard"]
    assert complete(script, "pull", "--variant", "=", "st") == ["standard"]
    assert complete(script, "pull", "de") == ["debian"]


def test_bash_completes_the_values_of_settings(destination):
    script = destination / "usr/share/bash-completion/completions/pymachine"
    assert complete(script, "boot", "--volatile", "=", "s") == ["state"]
    assert complete(script, "nspawn", "--console", "=", "re") == ["read-only"]
    assert complete(script, "run", "--kill-signal", "=", "SIGH") == ["SIGHUP"]
    assert complete(script, "boot", "--read-only", "=") == ["yes", "no"]
    assert complete(script, "boot", "--settings", "=", "o") == ["override"]


# Words of a line, and what completes the last of them.
SECOND_WORDS = [
    (("network", "a"), ["attach"]),
    (("network", ""), ["list", "stats", "show", "create", "delete", "attach", "detach"]),
    (("network", "attach", ""), ["web"]),
    (("network", "attach", "web", ""), ["lab"]),
    (("network", "stats", ""), ["web", "lab"]),
    (("network", "show", "lab", ""), ["lab"]),
    (("network", "create", ""), []),
    (("network", "list", ""), []),
    (("port", "r"), ["remove"]),
    (("port", "add", ""), ["web"]),
    (("port", "add", "web", ""), []),
]


@pytest.mark.parametrize(("words", "offered"), SECOND_WORDS)
def test_bash_completes_second_words(destination, words, offered):
    script = destination / "usr/share/bash-completion/completions/pymachine"
    assert complete(script, *words) == offered


@pytest.mark.parametrize(("words", "offered"), SECOND_WORDS)
def test_zsh_completes_second_words(destination, words, offered):
    """By the function that _arguments calls for the words that are no options."""
    script = destination / "usr/share/zsh/vendor-completions/_pymachine"
    quoted = " ".join(f"'{word}'" for word in words)
    body = (
        "compadd() { shift; print -rl -- $@ }; _arguments() { }; _describe() { };"
        f"words=(pymachine x); CURRENT=3; source '{script}';"
        "_pymachine_machine() { print web }; _pymachine_network() { print lab };"
        f"words=({quoted}); CURRENT={len(words)}; _pymachine_words_of_{words[0]}"
    )
    told = run("zsh", "-f", "-c", body).split()
    assert [word for word in told if word.startswith(words[-1])] == offered


def test_zsh_accepts_its_completion(destination):
    run("zsh", "-n", destination / "usr/share/zsh/vendor-completions/_pymachine")


def test_scripts_tell_wrong_arguments_as_usage_errors():
    for script in ("install", "uninstall", "quickstart"):
        done = subprocess.run(
            [PACKAGING / script, "--nonsense"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, script
        assert len(done.stderr.splitlines()) == 1


def test_install_into_a_system_by_a_user_says_sudo():
    who = {"user": 65534, "group": 65534, "extra_groups": ()} if os.geteuid() == 0 else {}
    with Path(PACKAGING, "install").open() as script:  # which that user may not find
        done = subprocess.run(
            ["/bin/bash", f"/proc/self/fd/{script.fileno()}"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            pass_fds=[script.fileno()],
            **who,
        )
    assert done.returncode == 1
    assert "sudo" in done.stderr


@pytest.mark.parametrize("name", ["make-man", "make-completions", "pymachine"])
def test_later_pythons_have_nothing_to_warn_of(name):
    code = "import sys; compile(sys.stdin.read(), 'program', 'exec')"
    program = (PACKAGING / name).read_text()
    assert not run("/usr/bin/python3", "-W", "error", "-c", code, input=program)
