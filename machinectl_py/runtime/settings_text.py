"""The .nspawn files of a machine as texts, to be shown and edited; systemd.nspawn(5)."""

from __future__ import annotations

import os

from machinectl_py.config.nspawn_file import TRUSTED_DIRECTORIES, settings_files
from machinectl_py.errors import ConfigError, DeniedError, NotFoundError, PymachineError
from machinectl_py.images import store
from machinectl_py.images.records import find_machine
from machinectl_py.log import warn

_EDITORS = ("editor", "nano", "vim", "vi")  # as systemctl(1) tries them
_TEMPLATE = """\
# What is to be so at each start of {name}; systemd.nspawn(5), and the sections X-... of
# pymachine(1). Such as:
#
# [Network]
# Port=tcp:8080:80
#
# [Files]
# BindReadOnly=/srv/www
"""


def texts_of(name: str) -> tuple[tuple[str, str], ...]:
    """Return path and text of each file that counts, in the order in which they do.

    Raises:
        NotFoundError: there is no such machine or image, or no file of it.
    """
    found = settings_files(name, _root_of(name))
    if not found:
        raise NotFoundError(
            f"There are no settings of '{name}'", f"'pymachine edit {name}' makes some."
        )
    texts = []
    for path, _trusted in found:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            texts.append((path, file.read()))
    return tuple(texts)


def _root_of(name: str) -> str:
    store.check_name(name)
    machine = find_machine(name)
    return machine.base if machine else store.find_root(name)


def edit(name: str) -> str:
    """Have the user edit the administrator's settings of a machine; return the file's path.

    A draft that is not valid, or empty, changes nothing.

    Raises:
        DeniedError: the caller is not root.
        NotFoundError: there is no such machine or image, or no editor.
        ConfigError: what was written is not valid; the draft is kept, and named.
    """
    root = _root_of(name)
    if os.geteuid():
        raise DeniedError("Only root may edit settings", "Try again with sudo.")
    path = f"{TRUSTED_DIRECTORIES[0]}/{name}.nspawn"
    os.makedirs(TRUSTED_DIRECTORIES[0], 0o755, exist_ok=True)
    before = _read(path) or next((_read(found) for found, _ in settings_files(name, root)), "")
    draft = f"{path}.draft"  # no name that counts
    first = _read(draft) or before or _TEMPLATE.format(name=name)
    _write(draft, first)
    _run_editor(draft)
    text = _read(draft)
    if text in (before, first) or not text.strip():
        os.unlink(draft)
        return ""
    try:
        _check(draft)
    except ConfigError as error:
        raise ConfigError(
            error.message, f"Nothing is changed. 'pymachine edit {name}' goes on with the draft."
        ) from error
    os.rename(draft, path)
    return path


def _check(path: str) -> None:
    from machinectl_py.config.merge import from_files

    from_files([(path, True)], warn, lenient=False)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _run_editor(path: str) -> None:
    import shlex
    import shutil
    import subprocess

    wished = (os.environ.get(word) for word in ("SYSTEMD_EDITOR", "EDITOR", "VISUAL"))
    for words in (shlex.split(text) for text in (*filter(None, wished), *_EDITORS)):
        if words and shutil.which(words[0]):
            if subprocess.run([*words, path], check=False).returncode:
                raise PymachineError(f"The editor {words[0]} failed; nothing is changed")
            return
    raise NotFoundError("There is no editor on this host", "$EDITOR names one.")
