"""Which rule of others' nftables stops the packets of a managed network; pure.

A packet is what is known of it, by the names that nft(8) has in JSON (libnftables-json(5)). Of what
is not known, as of expressions that are not understood, both is possible: a packet is stopped only
if every way through the rules ends so. So nobody is told of a firewall that may be in order.
"""

from __future__ import annotations

from machinectl_py.config.subnet import read_address, read_subnet
from machinectl_py.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Facts = dict[str, str | int]  # "meta iifname" → "pm-default", "udp dport" → 67
    Place = tuple[str, str, str]  # family, table, name

_DEPTH = 16  # of jumps; the kernel's own limit; nf_tables(8)
_PROTOCOLS = ("tcp", "udp", "sctp", "icmp", "icmpv6")
# nft tells protocols by number where there is no /etc/protocols.
_NUMBERS = {"tcp": 6, "udp": 17}
_TERMINAL = ("accept", "drop", "reject", "return", "jump", "goto", "queue")
# They say nothing of the packet.
_SILENT = ("counter", "log", "comment", "mangle", "notrack", "quota")


class Packet(Record):
    """A kind of packet that must pass."""

    what: str  # for people: "DHCP from the machines"
    hook: str  # "input", "forward"
    family: str  # "ip" or "ip6"
    facts: tuple[tuple[str, str | int], ...]


class Block(Record):
    """What stops a kind of packet."""

    packet: Packet
    family: str  # of the table
    table: str
    chain: str
    rule: str  # "policy drop", or "drop, handle 7"


def find_blocks(rules: list[dict[str, Any]], packets: Iterable[Packet]) -> tuple[Block, ...]:
    """Return what stops each of the packets, of those that are stopped for sure.

    Args:
        rules: the objects of `nft -j list ruleset`.
        packets: what must pass.
    """
    ruleset = _Ruleset(rules)
    found = (ruleset.verdict(packet) for packet in packets)
    return tuple(block for block in found if block)


class _Ruleset:
    """All rules of others, by their chains."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self.base: list[dict[str, Any]] = []
        self.rules: dict[Place, list[dict[str, Any]]] = {}
        self.sets: dict[Place, list[Any]] = {}
        for item in filter(_is_of_others, objects):
            if chain := item.get("chain"):
                self.base += [chain] if "hook" in chain else []
            elif rule := item.get("rule"):
                place = (rule["family"], rule["table"], rule["chain"])
                self.rules.setdefault(place, []).append(rule)
            elif named := item.get("set"):
                self.sets[named["family"], named["table"], named["name"]] = named.get("elem", [])

    def verdict(self, packet: Packet) -> Block | None:
        """Return what stops a packet for sure, or None."""
        for chain in sorted(self.base, key=lambda chain: int(chain.get("prio", 0))):
            if chain["hook"] != packet.hook or chain["family"] not in ("inet", packet.family):
                continue
            if chain.get("type") != "filter":
                continue
            ways = _Walk(self, chain, packet).ways(chain["name"], 0)
            if "next" in ways:
                stops = chain.get("policy") == "drop"
                ways = ways - {"next"} | {f"{chain['name']}|policy drop" if stops else "accept"}
            if "accept" not in ways:
                # Of several, the policy is what is left if no rule that is not understood applies.
                way = max(ways, key=lambda way: (way.endswith("|policy drop"), way))
                name, _, rule = way.partition("|")
                return Block(
                    packet=packet, family=chain["family"], table=chain["table"], chain=name,
                    rule=rule,
                )  # fmt: skip
        return None


class _Walk:
    """The ways of a packet through the chains below one at a hook.

    A way is where it ends: "accept", "next" (the rule, or chain, after it), "return", or
    "CHAIN|RULE" for what stops it.
    """

    def __init__(self, ruleset: _Ruleset, base: dict[str, Any], packet: Packet) -> None:
        self._ruleset = ruleset
        self._family, self._table = base["family"], base["table"]
        self._facts: Facts = dict(packet.facts)
        self._facts["meta nfproto"] = "ipv4" if packet.family == "ip" else "ipv6"
        self._facts["meta protocol"] = packet.family
        # iptables before 1.8.10 asks for "meta l4proto", later ones for the header's own field.
        field = "ip protocol" if packet.family == "ip" else "ip6 nexthdr"
        self._facts[field] = self._facts["meta l4proto"]
        self._facts["ct status"] = "none"  # of no connection that is led elsewhere

    def ways(self, name: str, depth: int) -> set[str]:
        """Return the ways through a chain."""
        if depth > _DEPTH:
            return {"accept"}
        found: set[str] = set()
        for rule in self._ruleset.rules.get((self._family, self._table, name), []):
            ways = self._rule(rule, depth)
            found |= ways - {"next", "return"} | ({"next"} if "return" in ways else set())
            if "next" not in ways:
                return found
        return found | {"next"}

    def _rule(self, rule: dict[str, Any], depth: int) -> set[str]:
        otherwise: set[str] = set()  # {"next"} once it is not sure that the rule applies
        for statement in rule.get("expr", []):
            ((kind, content),) = statement.items()
            if kind == "match":
                matches = self._match(content)
                if matches is False:
                    return {"next"}
                otherwise = otherwise if matches else {"next"}
            elif kind == "xt" and self._facts["ct state"] == "new" and _asks_for_state(content):
                return {"next"}
            elif kind == "vmap":
                return self._map(rule, content, depth) | otherwise
            elif kind in _TERMINAL:
                return self._verdict(rule, kind, content, depth) | otherwise
            elif kind not in _SILENT:
                otherwise = {"next"}
        return {"next"}

    def _verdict(self, rule: dict[str, Any], kind: str, content: Any, depth: int) -> set[str]:
        if kind in ("drop", "reject"):
            return {f"{rule['chain']}|{kind}, handle {rule.get('handle', '?')}"}
        if kind in ("jump", "goto"):
            ways = self.ways(content["target"], depth + 1)
            # What goes to another chain does not come back to this one.
            return {"return" if way == "next" and kind == "goto" else way for way in ways}
        return {kind} if kind == "return" else {"accept"}

    def _map(self, rule: dict[str, Any], content: dict[str, Any], depth: int) -> set[str]:
        """Return the ways of a map of verdicts."""
        known = self._facts.get(_name(content["key"]))
        elements = content["data"].get("set") if isinstance(content["data"], dict) else None
        if known is None or elements is None:
            return {"accept", "next"}
        for key, verdict in elements:
            if self._equals(known, key):
                ((kind, target),) = verdict.items()
                return self._verdict(rule, kind, target, depth)
        return {"next"}

    def _match(self, match: dict[str, Any]) -> bool | None:
        """Say whether the packet matches; None if that is not known."""
        left = _name(match["left"])
        layer, _, field = left.partition(" ")
        protocol = self._facts["meta l4proto"]
        if layer in _PROTOCOLS and layer != protocol:
            return False
        if layer in ("ip", "ip6") and layer != self._facts["meta protocol"]:
            return False
        value = self._facts.get(f"{protocol} {field}" if layer == "th" else left)
        if value is None or match["op"] not in ("==", "in", "!="):
            return None
        found = self._equals(value, match["right"])
        return found if found is None or match["op"] != "!=" else not found

    def _equals(self, value: str | int, right: Any) -> bool | None:
        """Say whether a value is the one, or among those, that a rule asks for."""
        if isinstance(right, str) and right.startswith("@"):
            right = self._ruleset.sets.get((self._family, self._table, right[1:]))
        if isinstance(right, dict):
            right = right.get("set", right)
        if isinstance(right, list):
            found = [self._equals(value, item) for item in right]
            return True if True in found else None if None in found else False
        return _is_element(value, right)


def _is_element(value: str | int, right: Any) -> bool | None:
    if isinstance(right, dict) and "elem" in right:
        right = right["elem"].get("val")
    if isinstance(right, dict) and "range" in right:
        low, high = right["range"]
        known = isinstance(low, int) and isinstance(high, int) and isinstance(value, int)
        return low <= value <= high if known else None
    if isinstance(right, dict) and "prefix" in right:
        return _is_in(value, f"{right['prefix']['addr']}/{right['prefix']['len']}")
    if isinstance(value, str) and isinstance(right, int):
        return _NUMBERS.get(value) == right
    if isinstance(right, (str, int)):
        return right == value or _fits(str(right), value)
    return None


def _is_of_others(item: dict[str, Any]) -> bool:
    ((_, content),) = item.items()
    return not str(content.get("table", "")).startswith("pymachine-")


def _name(left: Any) -> str:
    """Return the name of what a rule looks at, as in `Packet.facts`; "" if it is another thing."""
    if not isinstance(left, dict) or len(left) != 1:
        return ""
    ((kind, content),) = left.items()
    if kind in ("meta", "ct") and isinstance(content, dict):
        key = str(content.get("key", ""))
        return f"{kind} {key}name" if key in ("iif", "oif") else f"{kind} {key}"
    if kind == "payload" and "protocol" in content:
        return f"{content['protocol']} {content['field']}"
    return ""


def _fits(pattern: str, value: str | int) -> bool:
    """Say whether a name of a link fits one with a star at its end."""
    return pattern.endswith("*") and str(value).startswith(pattern[:-1])


def _is_in(value: str | int, prefix: str) -> bool | None:
    try:
        version, number = read_address(str(value))
        subnet = read_subnet(prefix)
    except ValueError:
        return None
    return version == subnet.version and number >> subnet.host_bits == (
        subnet.address >> subnet.host_bits
    )


def _asks_for_state(content: Any) -> bool:
    """Say whether a match of iptables is that of states, which no new packet fulfils.

    What it asks for is not told; it is all but always `--ctstate RELATED,ESTABLISHED`.
    """
    return isinstance(content, dict) and content.get("name") in ("conntrack", "state")
