"""What the `idmap` options of a bind mount come to; pure."""

from __future__ import annotations

from machinectl_py.kernel.idmap import IdMaps, same_maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.spec import BindIdmap


def bind_maps(
    kind: BindIdmap,
    base: int,
    count: int,
    source: tuple[int, int] = (0, 0),
    target: tuple[int, int] = (0, 0),
) -> IdMaps | None:
    """Return the maps of a bind mount by systemd-nspawn's `idmap` options; None if it has none.

    Args:
        kind: "idmap": the host's ids from 0 on are those inside; "rootidmap": the owner of the
            source is root inside; "owneridmap": he is the owner of the target inside.
        base: the host's id of 0 inside.
        count: ids of the machine.
        source: uid and gid of the source, on the host.
        target: uid and gid of the target, inside.
    """
    if kind == "noidmap":
        return None
    if kind == "idmap":
        return same_maps((0, base, count))
    uid, gid = target if kind == "owneridmap" else (0, 0)
    return IdMaps(uids=((source[0], base + uid, 1),), gids=((source[1], base + gid, 1),))
