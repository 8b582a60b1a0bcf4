"""What we use of dbus-next."""

from __future__ import annotations

from machinectl_py.thirdparty import need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_library = need("dbus_next")
constants: Any = need("dbus_next.constants")
introspection: Any = need("dbus_next.introspection")
MessageBus: Any = need("dbus_next.aio").MessageBus
DBusError: Any = _library.DBusError
Message: Any = _library.Message
Variant: Any = _library.Variant
