"""The service on the bus: calls in, answers and signals out; it ends when nobody needs it.

D-Bus starts it when someone asks for its name. Nothing depends on it: it reads what the verbs
read, and what it is told to do it does by them.
"""

from __future__ import annotations

import asyncio
import time

from machinectl_py import __version__
from machinectl_py.errors import NotFoundError, PymachineError
from machinectl_py.runtime.events import MachineEvents
from machinectl_py.service import actions
from machinectl_py.service.authority import may
from machinectl_py.service.interfaces import (
    BUS_NAME,
    CHANGING,
    MACHINE,
    MACHINE_METHODS,
    MACHINE_PROPERTIES,
    MANAGER,
    MANAGER_METHODS,
    MANAGER_PATH,
    MANAGER_PROPERTIES,
    introspect,
    machine_of,
    machine_path,
)
from machinectl_py.service.library import DBusError, Message, MessageBus, Variant, constants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    from machinectl_py.runtime.events import Event
    from machinectl_py.service.interfaces import Method

_ERRORS = "org.freedesktop.DBus.Error"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_OURS = (MANAGER, MACHINE, _PROPERTIES, "org.freedesktop.DBus.Introspectable")


class Refusal(Exception):
    """An answer that is an error of D-Bus's own."""

    def __init__(self, name: str, text: str) -> None:
        """Hold the last part of its name, and its text."""
        super().__init__(text)
        self.name = f"{_ERRORS}.{name}"


class Server:
    """One connection to the bus."""

    def __init__(self, bus: Any, events: MachineEvents, patience: float) -> None:
        """Serve on a connected bus.

        Args:
            bus: dbus-next's.
            events: of machines.
            patience: seconds without a call and without a machine after which it ends.
        """
        self._bus, self._events, self._patience = bus, events, patience
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = time.monotonic()

    async def run(self) -> None:
        """Serve until nobody needs it, or the bus goes.

        Raises:
            PymachineError: the name is taken, or the bus's policy refuses it.
        """
        loop = asyncio.get_running_loop()
        self._bus.add_message_handler(self._heard)
        loop.add_reader(self._events.fileno(), self._tell)
        try:
            flags = constants.NameFlag.DO_NOT_QUEUE
            reply = await self._bus.request_name(BUS_NAME, flags)
        except DBusError as error:
            raise PymachineError(f"The bus refuses the name {BUS_NAME}: {error.text}") from error
        if reply is not constants.RequestNameReply.PRIMARY_OWNER:
            raise PymachineError(f"The name {BUS_NAME} has an owner already")
        gone = asyncio.ensure_future(self._bus.wait_for_disconnect())
        while not gone.done() and not self._is_idle():
            await asyncio.wait({gone}, timeout=self._patience)
        if not gone.done():
            await self._bus.release_name(BUS_NAME)
        while self._tasks:  # calls that the bus had passed on before it took the name back
            await asyncio.wait(self._tasks)

    def _is_idle(self) -> bool:
        quiet = time.monotonic() - self._last >= self._patience
        return quiet and not self._tasks and not self._events.machines()

    def _heard(self, message: Any) -> bool:
        """Take a call that is for us; dbus-next has answers for the others."""
        if message.message_type is not constants.MessageType.METHOD_CALL:
            return False
        if message.interface and message.interface not in _OURS:
            return False
        self._last = time.monotonic()
        task = asyncio.ensure_future(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, message: Any) -> None:
        try:
            signature, body = await self._call(message)
            reply = Message.new_method_return(message, signature, body)
        except Refusal as error:
            reply = Message.new_error(message, error.name, str(error))
        except NotFoundError as error:
            reply = Message.new_error(message, f"{BUS_NAME}.NotFound", error.message)
        except PymachineError as error:
            text = ". ".join(filter(None, (error.message, error.hint)))
            reply = Message.new_error(message, f"{BUS_NAME}.Failed", text)
        except OSError as error:
            text = " ".join(filter(None, (error.strerror, error.filename)))
            reply = Message.new_error(message, f"{_ERRORS}.Failed", text)
        if not message.flags & constants.MessageFlag.NO_REPLY_EXPECTED:
            await self._bus.send(reply)

    async def _call(self, message: Any) -> tuple[str, list[Any]]:
        """Return signature and body of the answer."""
        path, member, body = message.path, message.member, message.body
        if message.interface == _PROPERTIES:
            return self._property(path, member, message.signature, body)
        if (member, message.signature) == ("Introspect", "") and message.interface not in (
            MANAGER,
            MACHINE,
        ):
            names = tuple(event.machine for event in self._events.machines())
            return "s", [introspect(path, names)]
        name = machine_of(path)
        if path != MANAGER_PATH and not name:
            raise Refusal("UnknownObject", f"There is no object {path}")
        method = _find(MACHINE_METHODS if name else MANAGER_METHODS, message)
        if method.action and not await may(self._bus, message, method.action):
            raise Refusal("AccessDenied", f"{method.name} needs polkit's leave for {method.action}")
        doing: Awaitable[list[Any]] = (
            actions.act(name, member, body) if name else actions.manage(member, body)
        )
        return method.result, await doing

    def _property(
        self, path: str, member: str, signature: str, body: list[Any]
    ) -> tuple[str, list[Any]]:
        """Answer a call of org.freedesktop.DBus.Properties."""
        if (member, signature) not in (("Get", "ss"), ("GetAll", "s"), ("Set", "ssv")):
            raise Refusal("UnknownMethod", f"{member} is no method of {_PROPERTIES}")
        name = machine_of(path)
        if path != MANAGER_PATH and not name:
            raise Refusal("UnknownObject", f"There is no object {path}")
        interface, known = (MACHINE, MACHINE_PROPERTIES) if name else (MANAGER, MANAGER_PROPERTIES)
        if member != "GetAll" and (body[0] not in ("", interface) or body[1] not in known):
            raise Refusal("UnknownProperty", f"{path} has no property {body[0]}.{body[1]}")
        if member == "Set":
            raise Refusal("PropertyReadOnly", f"{body[1]} cannot be set")
        wanted = (body[1],) if member == "Get" else ()
        if member == "GetAll" and body[0] not in ("", interface):
            found = {}
        elif name:
            found = actions.properties(name, wanted)
        else:
            found = {"Version": Variant("s", __version__)}
        return ("v", [found[body[1]]]) if member == "Get" else ("a{sv}", [found])

    def _tell(self) -> None:
        """Tell by signals what has happened."""
        for event in self._events.read():
            self._last = time.monotonic()
            if event.kind == "changed":
                self._tell_change(event)
                continue
            member = "MachineNew" if event.kind == "new" else "MachineRemoved"
            body = [event.machine, machine_path(event.machine)]
            self._send(MANAGER_PATH, MANAGER, member, "so", body)

    def _tell_change(self, event: Event) -> None:
        values = (event.state, event.leader, event.ready, event.status)
        changed = {
            name: Variant(MACHINE_PROPERTIES[name], value)
            for name, value in zip(CHANGING, values, strict=True)
        }
        path = machine_path(event.machine)
        self._send(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", [MACHINE, changed, []])

    def _send(self, path: str, interface: str, member: str, kind: str, body: list[Any]) -> None:
        self._bus.send(Message.new_signal(path, interface, member, kind, body))


def _find(methods: tuple[Method, ...], message: Any) -> Method:
    for method in methods:
        if (method.name, method.signature) == (message.member, message.signature):
            return method
    raise Refusal(
        "UnknownMethod", f"{message.path} has no method {message.member}({message.signature})"
    )


async def _serve(patience: float) -> None:
    try:
        bus = await MessageBus(bus_type=constants.BusType.SYSTEM).connect()
    except OSError as error:
        raise PymachineError(
            f"Cannot connect to the system's message bus: {error.strerror or error}",
            "It is dbus-daemon(1) or dbus-broker(1), which a host may lack.",
        ) from error
    with MachineEvents() as events:
        await Server(bus, events, patience).run()


def serve(patience: float) -> None:
    """Serve on the system's bus until nobody needs it.

    Args:
        patience: seconds without a call and without a machine after which it ends.

    Raises:
        PymachineError: there is no bus, or it refuses the name.
    """
    asyncio.run(_serve(patience))
