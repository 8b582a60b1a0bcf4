"""The door to the libraries that we build on: pystemd, dbus-next, pyroute2, pyseccomp.

The command starts without `site` (`python3 -SI`), which halves its start-up; so the directories
of third-party modules are not on the path until one is needed.
"""

from __future__ import annotations

import os
import sys

from machinectl_py.errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The Debian package that brings a module; where pyseccomp is not packaged, libseccomp's own
# Python module has the same interface.
_PACKAGES = {
    "pystemd": "python3-pystemd",
    "dbus_next": "python3-dbus-next",
    "pyroute2": "python3-pyroute2",
    "pyseccomp": "python3-pyseccomp or python3-seccomp",
}
_ALTERNATIVES = {"pyseccomp": "seccomp"}


def need(name: str) -> Any:
    """Import and return a third-party module, such as "pystemd.dbuslib".

    Raises:
        UnsupportedError: it is not installed.
    """
    top = name.partition(".")[0]
    for choice in (name, _ALTERNATIVES.get(name, "")):
        if choice and _try_import(choice):
            return sys.modules[choice]
    _add_site_directories()
    for choice in (name, _ALTERNATIVES.get(name, "")):
        if choice and _try_import(choice):
            return sys.modules[choice]
    raise UnsupportedError(
        f"The Python module '{top}' is not installed", f"Install {_PACKAGES.get(top, top)}."
    )


def need_part(name: str) -> Any:
    """Import a module of a package without running the package's own `__init__`.

    `pystemd.dbuslib` needs 13 ms, `pystemd` as a whole 20 to 50, for what it imports beside.
    In this process the package then has no attributes but the modules that were needed.

    Raises:
        UnsupportedError: it is not installed.
    """
    top = name.partition(".")[0]
    if top not in sys.modules:
        _add_site_directories()
        for path in sys.path:
            if os.path.isfile(f"{path}/{top}/__init__.py"):
                package = type(sys)(top)
                package.__path__ = [f"{path}/{top}"]
                sys.modules[top] = package
                break
    return need(name)


def _try_import(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def _add_site_directories() -> None:
    """Append what `site` would have: the distribution's directory, then pip's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (
        "/usr/lib/python3/dist-packages",
        f"{sys.prefix}/local/lib/{version}/dist-packages",
        f"{sys.prefix}/lib/{version}/site-packages",
    ):
        if path not in sys.path:
            sys.path.append(path)
