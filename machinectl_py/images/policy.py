"""Image policies: which partitions of an image may be used, and how protected they must be.

The grammar and the meaning are those of systemd.image-policy(7).
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError
from machinectl_py.record import Record

PARTITIONS = (
    "root",
    "usr",
    "home",
    "srv",
    "esp",
    "xbootldr",
    "swap",
    "root-verity",
    "root-verity-sig",
    "usr-verity",
    "usr-verity-sig",
    "tmp",
    "var",
)
_PROTECTED = {"root": "root-verity", "usr": "usr-verity"}
_USES = frozenset({"verity", "signed", "encrypted", "unprotected", "unused", "absent"})
_SHORTCUTS = {"open": _USES, "ignore": frozenset({"unused", "absent"})}
_READ_ONLY = frozenset({"read-only-on", "read-only-off"})
_GROWFS = frozenset({"growfs-on", "growfs-off"})
_SYMBOLS = {"*": "=open", "-": "=ignore", "": "=ignore", "~": "=absent"}
# systemd-nspawn's: all that it can mount.
CONTAINER_POLICY = (
    "root=verity+signed+encrypted+unprotected+absent:usr=verity+signed+encrypted+unprotected+absent"
    ":home=encrypted+unprotected+absent:srv=encrypted+unprotected+absent"
    ":esp=unprotected+absent:xbootldr=unprotected+absent"
    ":tmp=encrypted+unprotected+absent:var=encrypted+unprotected+absent"
)


class ImagePolicy(Record):
    """A policy: flags by partition, and for those not listed."""

    rules: tuple[tuple[str, frozenset[str]], ...]
    default: frozenset[str] = _SHORTCUTS["ignore"]

    def flags(self, partition: str) -> frozenset[str]:
        """Return what is allowed for a partition, every choice that is left open filled in."""
        explicit = self._explicit(partition)
        return _normalized(partition, self.default if explicit is None else explicit)

    def _explicit(self, partition: str) -> frozenset[str] | None:
        for name, flags in self.rules:
            if name == partition:
                return flags
        data, dash, kind = partition.partition("-")
        if not dash or data not in _PROTECTED:
            return None
        # Of a protecting partition: as the data that it protects demands.
        of_data = self._explicit(data)
        if of_data is None:
            return None
        wanted = {"signed"} if kind == "verity-sig" else {"signed", "verity"}
        allowed = _normalized(data, of_data)
        if not allowed & wanted:
            return None
        return (allowed - _USES) | (allowed & _SHORTCUTS["ignore"]) | {"unprotected"}

    def may_use(self, partition: str) -> bool:
        """Say whether a partition that exists is to be used.

        Raises:
            ConfigError: it may not exist.
        """
        uses = self.flags(partition) & _USES
        if uses == {"absent"}:
            raise ConfigError(f"The image policy forbids the partition '{partition}' that it has")
        return not uses <= _SHORTCUTS["ignore"]

    def check(self, partition: str, found: frozenset[str] | set[str]) -> None:
        """Refuse a partition that is in none of the states that are allowed.

        Args:
            partition: its designator.
            found: the states that it is in; several if it counts as each of them.

        Raises:
            ConfigError: none of them is allowed.
        """
        allowed = self.flags(partition) & _USES
        if not allowed & found:
            raise ConfigError(
                f"The partition '{partition}' is {'+'.join(sorted(found))}, and the image policy"
                f" wants {'+'.join(sorted(allowed))}"
            )

    def check_attributes(self, partition: str, *, read_only: bool, growfs: bool) -> None:
        """Refuse a partition whose GPT attributes are not as demanded.

        Raises:
            ConfigError: one is not.
        """
        flags = self.flags(partition)
        for name, on in (("read-only", read_only), ("growfs", growfs)):
            if f"{name}-{'on' if on else 'off'}" not in flags and flags & {
                f"{name}-on",
                f"{name}-off",
            }:
                raise ConfigError(
                    f"The partition '{partition}' has its flag '{name}' {'on' if on else 'off'},"
                    " which the image policy forbids"
                )


def _normalized(partition: str, flags: frozenset[str]) -> frozenset[str]:
    for group in (_USES, _READ_ONLY, _GROWFS):
        if not flags & group:
            flags |= group
    if "-verity" in partition:  # is the protection, so it needs none
        flags -= {"verity", "signed", "encrypted"}
    elif partition not in _PROTECTED:
        flags -= {"verity", "signed"}
    if flags & _USES == {"absent"}:
        flags -= _READ_ONLY | _GROWFS
    return flags


def parse_policy(text: str) -> ImagePolicy:
    """Return the policy of a text: PARTITION=FLAG+FLAG:…, or "*", "-" or "~".

    Raises:
        ConfigError: it is not valid; names the part.
    """
    rules: dict[str, frozenset[str]] = {}
    for rule in _SYMBOLS.get(text, text).split(":"):
        name, equals, words = rule.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"Image policy: '{rule}' is not PARTITION=FLAG+FLAG…")
        if name and name not in PARTITIONS:
            raise ConfigError(
                f"Image policy: there is no partition '{name}'",
                f"There are {', '.join(PARTITIONS)}.",
            )
        if name in rules:
            raise ConfigError(f"Image policy: '{name}' has two rules")
        rules[name] = _flags(words)
    default = rules.pop("", _SHORTCUTS["ignore"])
    return ImagePolicy(rules=tuple(rules.items()), default=default)


def _flags(words: str) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    if words.strip() in ("", "-"):
        return found
    for word in words.split("+"):
        flag = word.strip()
        if flag not in _USES | _READ_ONLY | _GROWFS and flag not in _SHORTCUTS:
            raise ConfigError(f"Image policy: there is no flag '{flag}'")
        found |= _SHORTCUTS.get(flag, frozenset({flag}))
    return found
