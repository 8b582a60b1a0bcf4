"""Removes what a killed supervisor left."""

from __future__ import annotations

import os

from machinectl_py.kernel.locks import drop_lock, take_lock
from machinectl_py.layout import LOCK_DIR, lock_path
from machinectl_py.plan.context import Hooks
from machinectl_py.runtime.changes import Changes, is_being_changed
from machinectl_py.runtime.journal import remove_state, undo_journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.ports import Registrar


def make_hooks() -> Hooks:
    """Return hooks with the managers and the registrar, which undoing needs."""
    from machinectl_py.managers.choose import manager_of, service_runner

    hooks = Hooks()
    hooks.manager = manager_of
    hooks.services = service_runner
    hooks.tell_resolver = _tell_resolver
    hooks.registrar = _registrar
    return hooks


def _tell_resolver(index: int, servers: tuple[str, ...], domain: str) -> None:
    from machinectl_py.managers.resolved import tell_resolved

    tell_resolved(index, servers, domain)


def _registrar() -> Registrar:
    from machinectl_py.managers.machined import MachinedRegistrar

    return MachinedRegistrar()


def recover(name: str) -> None:
    """Undo the journal of a machine that nobody supervises, and forget it.

    Raises:
        PymachineError: something could not be undone; the state is kept for another try.
    """
    os.makedirs(LOCK_DIR, mode=0o755, exist_ok=True)
    lock = take_lock(lock_path(name), start=1)
    if lock is None:  # another verb is at it, or it is being started anew
        return
    if is_being_changed(name):  # by a verb that will find its machine gone
        os.close(lock)
        return
    try:
        remove_left(name)
    except BaseException:
        os.close(lock)
        raise
    drop_lock(lock_path(name), lock)


def remove_left(name: str) -> None:
    """Undo the journal of a machine whose lock the caller has; nothing if none is there.

    Raises:
        PymachineError: as of `recover`.
    """
    with Changes(name):
        undo_journal(name, make_hooks(), {})
        remove_state(name)
