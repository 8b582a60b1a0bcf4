"""How much a machine may send and get by its link."""

from __future__ import annotations

from machinectl_py.errors import UnsupportedError
from machinectl_py.kernel import rtnl, traffic_control
from machinectl_py.plan.step import Step
from machinectl_py.plan.steps.links import link_slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.plan.context import Context

_UNKNOWN = (2, 95)  # ENOENT: no such discipline, filter or action; EOPNOTSUPP: no such link


class LimitRate(Step):
    """Shape what goes over the machine's link, at the host's end, where no one inside can."""

    name = "limit-rate"
    place = "supervisor"
    man = "tc-tbf(8)"
    because = "the link must exist; before the machine's first packet"
    lifetime = "host"
    per_boot = True
    takes = ("leader",)

    link: str  # the host's end
    inside: str
    shaper: str  # the link that shapes what the machine sends; "" for none
    rate_in: int  # bits a second, 0 is no limit
    rate_out: int

    def label(self) -> str:
        """Return the name with that of the link."""
        return f"{self.name} {self.inside}"

    def needed_slots(self) -> tuple[str, ...]:
        """Return the slots, with that of the link."""
        return (*self.takes, link_slot(self.inside))

    def describe(self) -> str:
        """Return the act."""
        limits = (("to", self.rate_in), ("from", self.rate_out))
        said = (f"{bits} bit/s {way} the machine" for way, bits in limits if bits)
        return f"limit {self.link} to {' and '.join(said)}"

    def command(self) -> str:
        """Return the shell's way."""
        tbf = "root tbf burst 32k latency 50ms rate"
        lines = [f"tc qdisc add dev {self.link} {tbf} {self.rate_in}"] if self.rate_in else []
        if self.shaper:
            act = f"action mirred egress redirect dev {self.shaper}"
            lines += [
                f"ip link add {self.shaper} up type ifb",
                f"tc qdisc add dev {self.shaper} {tbf} {self.rate_out}",
                f"tc qdisc add dev {self.link} ingress",
                f"tc filter add dev {self.link} ingress u32 match u32 0 0 {act}",
            ]
        return "; ".join(lines)

    def prepare(self) -> None:
        """Import the library."""
        traffic_control.preload()

    def apply(self, context: Context) -> None:
        """Shape."""
        link = context.number(link_slot(self.inside))
        try:
            if self.rate_in:
                traffic_control.shape(link, self.rate_in)
            if self.shaper:
                shaper = rtnl.add_ifb(self.shaper)
                traffic_control.shape(shaper, self.rate_out)
                traffic_control.redirect(link, shaper)
        except OSError as error:
            if error.errno in _UNKNOWN:
                raise UnsupportedError(
                    f"This kernel cannot limit what goes over a link ({error.strerror})",
                    "It needs the modules sch_tbf, sch_ingress, cls_u32, act_mirred and ifb.",
                ) from error
            raise

    def undo(self, context: Context) -> None:
        """Remove the link that shapes; the rest goes with the machine's link."""
        index = rtnl.index_of(self.shaper) if self.shaper else 0
        link = rtnl.get_link(index) if index else None
        if link and link.kind == "ifb":
            rtnl.delete_link(index)
