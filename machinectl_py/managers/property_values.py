"""Values of properties that D-Bus has in a form of its own; org.freedesktop.systemd1(5).

Each function turns the text of a unit file into the value, or raises `ValueError` that says what
it expects. An empty text clears a list.
"""

from __future__ import annotations

from machinectl_py.managers import properties as read

_NAMED_ADDRESSES = {
    "any": ("0.0.0.0/0", "::/0"),
    "localhost": ("127.0.0.0/8", "::1/128"),
    "link-local": ("169.254.0.0/16", "fe80::/64"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
}


def least_memory(text: str) -> int:
    """Return bytes that are kept for a unit; none if the text is empty."""
    return read.parse_bytes(text) if text else 0


def most_memory(text: str) -> int:
    """Return bytes that a unit has at most; any number if the text is empty."""
    return read.parse_bytes(text) if text else read.INFINITY


def share(text: str) -> int:
    """Return a weight of processor time; 0 is "idle"."""
    return 0 if text == "idle" else read.parse_weight(text)


def scaled_percentage(text: str) -> int:
    """Return a percentage, such that 100% are 2^32-1."""
    return int(read.parse_percentage(text) * ((1 << 32) - 1) / 100)


def signal_number(text: str) -> int:
    """Return a signal by its name, with or without SIG, or by its number; signal(7)."""
    import _signal

    name = text.upper().removeprefix("SIG")
    base, plus, more = name.partition("+")
    if text.isascii() and text.isdigit():
        number = int(text)
    elif base == "RTMIN" and (not plus or more.isdigit()):
        number = _signal.SIGRTMIN + int(more or 0)
    else:
        number = getattr(_signal, f"SIG{name}", 0) if name.isalnum() else 0
    if not 0 < number < _signal.NSIG:
        raise ValueError("a signal, such as SIGTERM, 15 or RTMIN+3")
    return int(number)


def paths(text: str) -> list[str]:
    """Return a list of one path."""
    if text and not text.startswith("/"):
        raise ValueError("an absolute path")
    return [text] if text else []


def bpf_program(text: str) -> list[tuple[str, str]]:
    """Return where a BPF program is attached, and its path: "ingress:/sys/fs/bpf/x"."""
    kind, _, path = text.partition(":")
    if text and not path.startswith("/"):
        raise ValueError("a type and a path, such as ingress:/sys/fs/bpf/program")
    return [(kind, path)] if text else []


def interfaces(text: str) -> tuple[bool, list[str]]:
    """Return whether these are the interfaces allowed, else refused ("~"), and their names."""
    return not text.startswith("~"), text.removeprefix("~").split()


_BIND_EXPECTED = "any, or FAMILY:PROTOCOL:PORT[-PORT], such as ipv4:tcp:1024-2048 or 80"


def socket_bind(text: str) -> list[tuple[int, int, int, int]]:
    """Return a rule for bind(2) as (family, protocol, number of ports, first port).

    Zeros stand for all; systemd.resource-control(5), SocketBindAllow=.
    """
    import _socket

    if not text:
        return []
    words = text.split(":")
    family = protocol = 0
    families = {"ipv4": _socket.AF_INET, "ipv6": _socket.AF_INET6}
    if words[0] in families:
        family = int(families[words.pop(0)])
    protocols = {"tcp": _socket.IPPROTO_TCP, "udp": _socket.IPPROTO_UDP}
    if words and words[0] in protocols:
        protocol = int(protocols[words.pop(0)])
    if words == ["any"] or not words:
        return [(family, protocol, 0, 0)]
    first, dash, last = words[0].partition("-")
    last = last if dash else first
    if len(words) > 1 or not (_is_port(first) and _is_port(last) and int(first) <= int(last)):
        raise ValueError(_BIND_EXPECTED)
    return [(family, protocol, int(last) - int(first) + 1, int(first))]


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16


# Of systemd's enum NFTSetSource, and <linux/netfilter.h>.
_NFT_SOURCES = {"cgroup": 3, "user": 4, "group": 5}
_NFT_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}


def nft_sets(text: str) -> list[tuple[int, int, str, str]]:
    """Return sets of netfilter, each as "cgroup:inet:TABLE:SET"."""
    found = []
    for word in text.split():
        parts = word.split(":")
        if len(parts) != 4 or parts[0] not in _NFT_SOURCES or parts[1] not in _NFT_FAMILIES:
            raise ValueError("sets of netfilter, such as cgroup:inet:filter:machines")
        found.append((_NFT_SOURCES[parts[0]], _NFT_FAMILIES[parts[1]], parts[2], parts[3]))
    return found


def device_weight(text: str) -> list[tuple[str, int]]:
    """Return a device with its weight: "/dev/vda 200"."""
    path, _, weight = text.partition(" ")
    if text and not path.startswith("/"):
        raise ValueError("a device and a weight, such as /dev/vda 200")
    return [(path, read.parse_weight(weight.strip()))] if text else []


def device_time(text: str) -> list[tuple[str, int]]:
    """Return a device with a time in microseconds: "/dev/vda 25ms"."""
    path, _, target = text.partition(" ")
    if text and not path.startswith("/"):
        raise ValueError("a device and a time, such as /dev/vda 25ms")
    return [(path, read.parse_time(target.strip()))] if text else []


def bit_mask(text: str) -> list[int]:
    """Return numbers as a bit mask, least significant byte first."""
    mask = sum(1 << number for number in read.parse_numbers(text))
    return list(mask.to_bytes((mask.bit_length() + 7) // 8, "little"))


def device_rule(text: str) -> list[tuple[str, str]]:
    """Return a rule as "/dev/fuse rwm" or "char-pts rw" has it; no access given means all."""
    words = text.split()
    if not words:
        return []  # an empty list clears what was set
    access = words[1] if len(words) == 2 else "rwm"
    if len(words) > 2 or set(access) - set("rwm"):
        raise ValueError("a device and its access, such as /dev/fuse rwm")
    return [(words[0], access)]


def device_number(text: str) -> list[tuple[str, int]]:
    """Return a device with a number: "/dev/vda 10M", base 1000; "infinity" lifts the limit."""
    if not text:
        return []
    path, _, number = text.partition(" ")
    units = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    factor = units.get(number[-1:], 1)
    digits = number[:-1] if factor > 1 else number
    if not path.startswith("/") or not (digits.isdecimal() or number == "infinity"):
        raise ValueError("a device and a number, such as /dev/vda 10M")
    return [(path, read.INFINITY if number == "infinity" else int(digits) * factor)]


def addresses(text: str) -> list[tuple[int, list[int], int]]:
    """Return addresses with prefixes as (family, bytes, bits of prefix)."""
    import _socket

    result = []
    for word in text.split():
        for address in _NAMED_ADDRESSES.get(word, (word,)):
            host, slash, prefix = address.partition("/")
            family = _socket.AF_INET6 if ":" in host else _socket.AF_INET
            try:
                packed = list(_socket.inet_pton(family, host))
                bits = int(prefix) if slash else len(packed) * 8
            except (OSError, ValueError):
                bits, packed = -1, []
            if not 0 <= bits <= len(packed) * 8 or not packed:
                raise ValueError("addresses, such as 10.0.0.0/8, any, localhost")
            result.append((int(family), packed, bits))
    return result
