#!/bin/sh
# Tells what is seen inside a machine: a line "SECTION<tab>KEY<tab>VALUE" for each fact.
# Run as PID 1 or below it; needs the coreutils, sed and find of a minimal Debian alone.
# /host-namespaces holds the host's, as `readlink /proc/self/ns/*` prints them; the facts come into
# /probe.out, whole.
set -u
# Once the shell has closed its end of the pipe that this goes through.
fds=$(sleep 0.2; for fd in /proc/1/fd/*; do echo "${fd##*/} $(readlink "$fd")"; done)
exec >/probe.new
say() {
    printf '%s\t%s\t%s\n' "$1" "$2" "$3"
}

# PID 1, as the kernel shows it.
while read -r key value; do
    case $key in
    CapInh: | CapPrm: | CapEff: | CapBnd: | CapAmb: | Seccomp: | Seccomp_filters: | NoNewPrivs: | \
        Umask: | SigIgn: | SigBlk: | SigPnd: | ShdPnd: | Uid: | Gid: | Groups: | NSpid: | \
        NSpgid: | NSsid: | Cpus_allowed_list: | Mems_allowed_list: | CoreDumping: | \
        THP_enabled: | Speculation_Store_Bypass: | SpeculationIndirectBranch:)
            say status "${key%:}" "$value" ;;
    esac
done </proc/1/status
read -r stat </proc/1/stat
# shellcheck disable=SC2086 # the fields after the name in parentheses, which may hold blanks
set -- ${stat##*) }
say stat ppid "$2"
say stat pgrp "$3"
say stat session "$4"
say stat tty "$5"
say stat priority "${16}"
say stat nice "${17}"
say stat rt_priority "${38}"
say stat policy "${39}"
for name in oom_score_adj cgroup loginuid sessionid personality coredump_filter timerslack_ns \
    autogroup setgroups uid_map gid_map projid_map attr/current; do
    say proc1 "$name" "$( (tr '\n\0' '; ' <"/proc/1/$name") 2>&1)"
done
say proc1 cwd "$(readlink /proc/1/cwd)"
say proc1 root "$(readlink /proc/1/root)"
tr '\0' '\n' </proc/1/environ | while IFS='=' read -r name value; do
    say environment "$name" "$value"
done
sed -n '2,$s/^\(.\{25\}\) \(.*\)/\1\t\2/p' /proc/1/limits | while IFS="$(printf '\t')" read -r name value; do
    say limits "$(echo "$name" | tr -s ' ')" "$(echo "$value" | tr -s ' ')"
done
echo "$fds" | while read -r fd file; do
    say fd "$fd" "$file"
done
for path in /proc/1/ns/*; do
    # shellcheck disable=SC2094
    if grep -qFx "$(readlink "$path")" /host-namespaces; then whose=host; else whose=own; fi
    say namespace "${path##*/}" "$whose"
done

# Mounts, in their order.
sed 's/^/mount\t/' /proc/1/mountinfo

# Files.
see() {
    find "$@" -printf '%p\t%y %#m %u:%g %l\n' 2>/dev/null | while IFS="$(printf '\t')" read -r path what; do
        case $what in [cb]*) what="$what$(stat -c '%t:%T' "$path")" ;; esac
        say file "$path" "$what"
    done
}
see /dev /run/host
see /proc/kmsg /proc/kcore /proc/keys /proc/kallsyms /proc/timer_list /proc/sysrq-trigger -maxdepth 0
see /sys /sys/fs /sys/kernel /sys/firmware /sys/power /sys/module /sys/hypervisor -maxdepth 1
see / /tmp /run /var/tmp /etc/machine-id /etc/hostname /etc/resolv.conf /etc/localtime -maxdepth 0
for path in $(find /proc -maxdepth 1 ! -name '[0-9]*') $(find /proc/sys -maxdepth 2); do
    if [ -w "$path" ]; then say writable "$path" yes; else say writable "$path" no; fi
done
for path in /sys /sys/* /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/cgroup.subtree_control \
    /sys/kernel/mm /sys/class/net /dev /dev/shm /run /run/host /run/host/* /tmp /proc/sys/net/ipv4/ip_forward \
    /proc/sys/kernel/domainname /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id; do
    if [ -w "$path" ]; then say writable "$path" yes; else say writable "$path" no; fi
done
for path in /run/host/container-manager /run/host/container-uuid /run/host/os-release /etc/machine-id \
    /etc/resolv.conf /sys/fs/cgroup/cgroup.controllers /sys/fs/cgroup/cgroup.subtree_control \
    /sys/fs/cgroup/cgroup.type /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward; do
    say content "$path" "$( (tr '\n' ';' <"$path") 2>&1)"
done
for node in null zero full random urandom tty net/tun kmsg fuse console ptmx; do
    if error=$( (: <>"/dev/$node") 2>&1); then say opens "$node" yes; else say opens "$node" "${error##*: }"; fi
done
say host name "$(uname -n)"
say host boot-id "$(cat /proc/sys/kernel/random/boot_id)"
say host links "$(echo /sys/class/net/*)"
for file in /proc/net/dev /proc/net/unix; do
    if [ -r $file ]; then say host $file readable; fi
done

# What only systemd has to tell.
if [ -d /run/systemd/system ]; then
    say systemd running "$(systemctl is-system-running --wait)"
    say systemd virtualization "$(systemd-detect-virt)"
    say systemd features "$(systemctl --version | tail -1)"
    systemctl --failed --plain --no-legend | while read -r unit _; do
        say failed "$unit" yes
    done
    systemctl list-units --all --plain --no-legend | while read -r unit load active sub _; do
        say unit "$unit" "$load $active $sub"
    done
    systemctl show-environment | while IFS='=' read -r name value; do
        say "manager environment" "$name" "$value"
    done
    for name in ControlGroup Virtualization ConfidentialVirtualization Tainted ShowStatus \
        DefaultLimitNOFILE DefaultLimitMEMLOCK DefaultTasksMax DefaultOOMPolicy; do
        say manager "$name" "$(systemctl show --property="$name" --value)"
    done
fi
mv /probe.new /probe.out
