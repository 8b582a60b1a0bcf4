"""Who may do what: root everything, others what polkit lets them; polkit(8)."""

from __future__ import annotations

from machinectl_py.service.library import Message, Variant, constants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_POLKIT = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)
_INTERACTIVE = 1  # CheckAuthorizationFlags, AllowUserInteraction


async def may(bus: Any, message: Any, action: str) -> bool:
    """Say whether the sender of a call may do an action.

    Without polkit nobody but root may. A question to the user takes as long as its answer.

    Args:
        bus: dbus-next's, connected.
        message: the call.
        action: polkit's name of it.
    """
    reply = await _call(bus, _BUS, "GetConnectionUnixUser", "s", [message.sender])
    if reply.body == [0] and reply.signature == "u":
        return True
    asks = message.flags & constants.MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
    subject = ["system-bus-name", {"name": Variant("s", message.sender)}]
    body = [subject, action, {}, _INTERACTIVE if asks else 0, ""]
    reply = await _call(bus, _POLKIT, "CheckAuthorization", "(sa{sv})sa{ss}us", body)
    return reply.signature == "(bba{ss})" and reply.body[0][0] is True


async def _call(
    bus: Any, where: tuple[str, str, str], member: str, signature: str, body: list[Any]
) -> Any:
    destination, path, interface = where
    message = Message(
        destination=destination,
        path=path,
        interface=interface,
        member=member,
        signature=signature,
        body=body,
    )
    return await bus.call(message)
