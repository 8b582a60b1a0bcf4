"""How a machine is bounded, labelled and scheduled.

Pure functions of spec and facts, each for one place in the order that `build.py` makes.
"""

from __future__ import annotations

from machinectl_py.errors import ConfigError, UnsupportedError
from machinectl_py.kernel.capabilities import mask_names
from machinectl_py.kernel.process import PER_LINUX, PER_LINUX32
from machinectl_py.plan.steps import confine
from machinectl_py.plan.steps.api import MountFileSystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from machinectl_py.config.label_spec import LabelSpec
    from machinectl_py.config.spec import MachineSpec, SeccompSpec
    from machinectl_py.plan.security_facts import SecurityFacts
    from machinectl_py.plan.step import Step

# What uname(2) calls an architecture, and systemd's names of it and of the other one that its
# kernel runs ("": none); systemd.exec(5), Personality=.
_ARCHITECTURES = {
    "x86_64": ("x86-64", "x86"),
    "i686": ("x86", ""),
    "aarch64": ("arm64", "arm"),
    "arm": ("arm", ""),
    "ppc64": ("ppc64", "ppc"),
    "ppc64le": ("ppc64-le", "ppc-le"),
    "s390x": ("s390x", "s390"),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loongarch64", ""),
}


def check_security(spec: MachineSpec, facts: SecurityFacts) -> None:
    """Refuse what contradicts itself or cannot be had here, before anything is touched.

    Raises:
        ConfigError: a value is not valid.
        UnsupportedError: this kernel cannot do it.
    """
    _check_ambient(spec)
    _check_labels(spec.labels, facts)
    _check_seccomp(spec.seccomp, spec.capabilities, facts)
    if spec.personality:
        persona(spec.personality, facts)
    if spec.oom_score_adjust is not None and not -1000 <= spec.oom_score_adjust <= 1000:
        raise ConfigError(f"The OOM score {spec.oom_score_adjust} is not from -1000 to 1000")


def _check_ambient(spec: MachineSpec) -> None:
    outside = mask_names(spec.ambient & ~spec.capabilities)
    if outside:
        raise ConfigError(
            f"The ambient capabilities {' '.join(outside)} are not among the machine's own",
            "Those are given by --capability=.",
        )
    if spec.ambient and spec.payload.kind == "boot":
        raise ConfigError("An init, as root, has no use for ambient capabilities")


def _check_seccomp(seccomp: SeccompSpec, capabilities: int, facts: SecurityFacts) -> None:
    """Look into the lists; nothing is imported for the default."""
    if seccomp.families:
        from machinectl_py.plan.families import family_numbers

        family_numbers(seccomp.families)
    if seccomp.allow or seccomp.deny:
        from machinectl_py.plan.syscalls import check_names

        check_names(seccomp.allow, seccomp.deny)
    if seccomp.profile and (seccomp.allow or seccomp.deny):
        raise ConfigError(
            "A seccomp profile and a filter of system calls exclude each other",
            "Write into the profile what is to be allowed and denied.",
        )
    if seccomp.profile:
        from machinectl_py.plan.oci_seccomp import ProfileHost, parse_profile

        host = ProfileHost(machine=facts.machine, release=facts.release, capabilities=capabilities)
        parse_profile(seccomp.profile, host)


def _check_labels(labels: LabelSpec, facts: SecurityFacts) -> None:
    if (labels.selinux or labels.selinux_apifs) and not facts.selinux:
        raise UnsupportedError("This kernel has no SELinux, so there are no contexts to be taken")
    if labels.apparmor and not facts.apparmor:
        raise UnsupportedError("This kernel has no AppArmor, so there are no profiles to be taken")
    for text in (labels.selinux, labels.selinux_apifs, labels.apparmor):
        if not text.isprintable() or '"' in text:
            raise ConfigError(f"{text!r} is no label of a security module")


def open_labels(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the steps before the pivot for the labels of processes."""
    if not spec.labels.selinux and not spec.labels.apparmor:
        return ()
    from machinectl_py.plan.steps import label

    found: list[Step] = []
    if spec.labels.selinux:
        found.append(label.OpenSelinuxLabel())
    if spec.labels.apparmor:
        found.append(label.OpenApparmorLabel())
    return tuple(found)


def label_mounts(steps: tuple[Step, ...], labels: LabelSpec) -> tuple[Step, ...]:
    """Return the steps with an SELinux context on the file systems in memory and on devpts."""
    if not labels.selinux_apifs:
        return steps
    context = f'context="{labels.selinux_apifs}"'
    return tuple(
        step.replace(data=",".join(filter(None, (step.data, context))))
        if isinstance(step, MountFileSystem) and step.fstype in ("tmpfs", "devpts")
        else step
        for step in steps
    )


def persona(architecture: str, facts: SecurityFacts) -> int:
    """Return what personality(2) takes for systemd's name of an architecture.

    Raises:
        UnsupportedError: this kernel does not run programs of that architecture.
    """
    native, other = _ARCHITECTURES.get(facts.machine, (facts.machine, ""))
    if architecture == native:
        return PER_LINUX
    if other and architecture == other:
        return PER_LINUX32
    choices = f"'{native}' and '{other}'" if other else f"'{native}'"
    raise UnsupportedError(
        f"This host has no personality '{architecture}'", f"On {facts.machine} there is {choices}."
    )


def limit_from_outside(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the supervisor's steps that set limits of PID 1 which it could not set itself.

    They stand before the one that gives "controllers": the payload waits for that.
    """
    if not _raises_limits(spec) and spec.oom_score_adjust is None:
        return ()
    from machinectl_py.plan.steps import attributes as own

    found: list[Step] = []
    if _raises_limits(spec):
        found.append(own.RaiseRlimits(rlimits=spec.rlimits))
    if spec.oom_score_adjust is not None:
        found.append(own.AdjustOomScore(value=spec.oom_score_adjust))
    return tuple(found)


def _raises_limits(spec: MachineSpec) -> bool:
    return spec.users.mode != "no" and bool(spec.rlimits)


def attributes(spec: MachineSpec, facts: SecurityFacts) -> tuple[Step, ...]:
    """Return the inside steps for what all processes inherit, labels last."""
    limits = confine.SetRlimits(rlimits=spec.rlimits, after_raise=_raises_limits(spec))
    return (limits, *_scheduling(spec, facts), *_labels(spec.labels))


def _scheduling(spec: MachineSpec, facts: SecurityFacts) -> tuple[Step, ...]:
    if not spec.cpu_affinity and not spec.personality:
        return ()
    from machinectl_py.plan.steps import attributes as own

    found: list[Step] = []
    if spec.cpu_affinity:
        found.append(own.SetAffinity(processors=spec.cpu_affinity))
    if spec.personality:
        value = persona(spec.personality, facts)
        found.append(own.SetPersonality(architecture=spec.personality, persona=value))
    return tuple(found)


def _labels(labels: LabelSpec) -> tuple[Step, ...]:
    if not labels.selinux and not labels.apparmor:
        return ()
    from machinectl_py.plan.steps import label

    found: list[Step] = []
    if labels.selinux:
        found.append(label.SetSelinuxLabel(selinux=labels.selinux))
    if labels.apparmor:
        found.append(label.SetApparmorLabel(profile=labels.apparmor))
    return tuple(found)


def capabilities(spec: MachineSpec) -> tuple[Step, ...]:
    """Return the steps that leave the payload its capabilities."""
    limit = confine.LimitCapabilities(capabilities=spec.capabilities)
    if not spec.ambient:
        return (limit,)
    return (limit, confine.RaiseAmbient(ambient=spec.ambient))
