"""Mounts from text and back, as --bind=, --overlay= and their kin have them; systemd-nspawn(1)."""

from __future__ import annotations

import os

from machinectl_py.config.spec import BindMount, InaccessibleMount, OverlayMount, TmpfsMount
from machinectl_py.config.values import absolute_path
from machinectl_py.config.words import join_fields, split_fields

_IDMAPS = ("noidmap", "idmap", "rootidmap", "owneridmap")


def bind(text: str) -> tuple[BindMount, ...]:
    """Return a writable bind mount of SOURCE[:TARGET[:OPTIONS]]."""
    return (_bind(text, read_only=False),)


def bind_read_only(text: str) -> tuple[BindMount, ...]:
    """Return a read-only bind mount of SOURCE[:TARGET[:OPTIONS]]."""
    return (_bind(text, read_only=True),)


def _bind(text: str, *, read_only: bool) -> BindMount:
    source, *rest = split_fields(text, 3)
    optional = source.startswith("-")
    source = source.removeprefix("-")
    if not rest and not source:
        raise ValueError("PATH[:PATH[:OPTIONS]], such as /srv/data:/data:norbind")
    mount = BindMount(
        source=_source(source),
        target=absolute_path(rest[0] if rest else source.removeprefix("+")),
        read_only=read_only,
        optional=optional,
    )
    for option in filter(None, rest[1].split(",") if len(rest) > 1 else ()):
        if option in _IDMAPS:
            mount = mount.replace(idmap=option)
        elif option in ("rbind", "norbind"):
            mount = mount.replace(recursive=option == "rbind")
        else:
            raise ValueError(f"the options rbind, norbind, {', '.join(_IDMAPS)}")
    return mount


def _source(text: str) -> str:
    """Return a source: "" a temporary directory, "+/path" inside the root, else made absolute."""
    if not text:
        return ""
    if text.startswith("+"):
        return "+" + absolute_path(text[1:])
    if "\0" in text:
        raise ValueError("a path")
    return os.path.normpath(os.path.join(os.getcwd(), text))


def from_bind(mount: BindMount) -> str:
    """Return the text of a bind mount."""
    options = [] if mount.recursive else ["norbind"]
    if mount.idmap != "noidmap":
        options.append(mount.idmap)
    source = ("-" if mount.optional else "") + mount.source
    text = join_fields((source, mount.target))
    return f"{text}:{','.join(options)}" if options else text


def tmpfs(text: str) -> tuple[TmpfsMount, ...]:
    """Return a tmpfs of TARGET[:OPTIONS]."""
    target, *rest = split_fields(text, 2)
    options = rest[0] if rest and rest[0] else "mode=0755"
    if not options.isprintable():
        raise ValueError("PATH[:OPTIONS], such as /scratch:size=1G")
    return (TmpfsMount(target=absolute_path(target), options=options),)


def from_tmpfs(mount: TmpfsMount) -> str:
    """Return the text of a tmpfs."""
    return f"{join_fields((mount.target,))}:{mount.options}"


def overlay(text: str) -> tuple[OverlayMount, ...]:
    """Return a writable overlay of LOWER:…:UPPER:TARGET; two are LOWER:UPPER, on UPPER."""
    return (_overlay(text, read_only=False),)


def overlay_read_only(text: str) -> tuple[OverlayMount, ...]:
    """Return a read-only overlay."""
    return (_overlay(text, read_only=True),)


def _overlay(text: str, *, read_only: bool) -> OverlayMount:
    fields = split_fields(text)
    if len(fields) < 2 or not all(fields[:-2] or fields):
        raise ValueError("at least two directories: LOWER:…:UPPER:TARGET")
    if len(fields) == 2:
        fields.append(fields[1].removeprefix("+"))
    *lower, upper, target = fields
    return OverlayMount(
        lower=tuple(_source(path) for path in lower),
        upper=_source(upper),
        target=absolute_path(target),
        read_only=read_only,
    )


def from_overlay(mount: OverlayMount) -> str:
    """Return the text of an overlay."""
    return join_fields((*mount.lower, mount.upper, mount.target))


def inaccessible(text: str) -> tuple[InaccessibleMount, ...]:
    """Return a hidden path."""
    return (InaccessibleMount(hidden=absolute_path(text)),)


def from_inaccessible(mount: InaccessibleMount) -> str:
    """Return the path that is hidden."""
    return mount.hidden


def pivot_root(text: str) -> tuple[str, str]:
    """Return the new root, and where the old one goes ("" if nowhere), of NEW[:OLD]."""
    new, *old = split_fields(text)
    if len(old) > 1:
        raise ValueError("PATH[:PATH]")
    pair = absolute_path(new), absolute_path(old[0]) if old else ""
    if pair[0] == pair[1]:
        raise ValueError("two different paths")
    return pair


def from_pivot_root(pair: tuple[str, str]) -> str:
    """Return the text of NEW[:OLD]."""
    return join_fields(tuple(filter(None, pair)))
