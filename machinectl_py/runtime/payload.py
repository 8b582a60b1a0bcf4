"""What a machine is to run: the init of its root, with what it is told."""

from __future__ import annotations

import os

from machinectl_py.config.assemble import root_spec
from machinectl_py.config.environment import flag
from machinectl_py.errors import NotFoundError
from machinectl_py.images import store
from machinectl_py.runtime.root_view import view_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.merge import Values
    from machinectl_py.runtime.root_view import RootView
    from machinectl_py.runtime.target import Target


def find_init(target: Target, values: Values) -> str:
    """Return the path, inside the root, of the init that it would boot.

    Raises:
        PymachineError: there is none, or the root cannot be used.
    """
    with view_root(target.root, root_spec(values)) as view:
        check_tree(view, os_release=True)
        return store.find_init(view.inner, target.root)


def boot_argv(target: Target, values: Values, *, answered: bool = False) -> tuple[str, ...]:
    """Return the command line of the init of a machine in the background.

    At its first boot systemd-firstboot(1) asks questions on the console, and the boot waits for the
    answers; where nobody gives any, it is told not to ask.

    Args:
        target: the machine.
        values: what options and files say.
        answered: whether the user is at the machine's console.

    Raises:
        PymachineError: there is no init, or the root cannot be used.
    """
    with view_root(target.root, root_spec(values)) as view:
        check_tree(view, os_release=True)
        init = store.find_init(view.inner, target.root)
        first = values.get("volatile", "no") == "yes" or not store.machine_id(view.inner)
    words: tuple[str, ...] = values.get("parameters", ())
    if answered or not first or not init.endswith("/systemd"):
        return (init, *words)
    if any(word.startswith("systemd.firstboot") for word in words):
        return (init, *words)
    return (init, "systemd.firstboot=off", *words)


def check_tree(view: RootView, *, os_release: bool) -> None:
    """Refuse a root that does not hold what is to be started.

    Args:
        view: the root.
        os_release: whether it has to hold an os-release(5) file.

    Raises:
        NotFoundError: it lacks something.
    """
    if os_release and _checks_os_release() and view.root != "/":  # which the spec's check refuses
        store.check_tree(view.inner, view.root)
    elif not os.path.isdir(view.tree):
        there = os.path.exists(view.tree)
        raise NotFoundError(
            f"{view.root} is not a directory" if there else f"There is no directory {view.root}"
        )
    elif not os.path.isdir(f"{view.inner}/usr"):
        raise NotFoundError(f"{view.root} is not the root of an operating system: it has no /usr")


def _checks_os_release() -> bool:
    return flag(dict(os.environ), "SYSTEMD_NSPAWN_CHECK_OS_RELEASE", default=True)
