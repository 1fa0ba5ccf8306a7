#!/usr/bin/env bash
# Boots a real systemd on a copy of this machine, runs commands in it, and takes everything down again:
#
#   scripts/sandbox.sh COMMANDS [FILE:PLACE ...]
#
# COMMANDS is a bash script. It runs as root at the end of the boot, and again after each reboot that it asks for
# (`systemctl start reboot.target; exit`). Its output is shown as it comes and its exit code is ours; 125: the sandbox itself failed;
# 124: it took longer than SANDBOX_TIMEOUT seconds (600). FILEs are copied to their PLACEs first, owned by root.
# With SANDBOX_JOURNAL=FILE, what the journal inside said is left there.
#
# Inside, the file system is this machine's under an overlay in memory: nothing that is written gets out. There is loopback
# and no other network, no process of this machine shows, and the rights to set its clock, load modules or make devices are
# not there. No service that this machine has enabled is started. Needs root, and systemd-nspawn (installed if missing).
set -euo pipefail

timeout_secs=${SANDBOX_TIMEOUT:-600}
# The hierarchies of control groups in which systemd keeps its services, by what the machine has.
hierarchies=(/sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd)

fail() {
  echo "sandbox: $*" >&2
  exit 125
}

install_tools() {
  command -v systemd-nspawn >/dev/null && command -v dbus-daemon >/dev/null && return
  command -v apt-get >/dev/null || fail "systemd-nspawn is missing: install it (systemd-container) and dbus"
  echo "Installing systemd-container and dbus" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd-container dbus >/dev/null
}

# The outer half: a folder, control groups, and namespaces for the inner half, which end with it however that comes.
outside() {
  [ "$(id -u)" -eq 0 ] || exec sudo --preserve-env=SANDBOX_TIMEOUT,SANDBOX_JOURNAL "$0" "$@"
  [ -f "${1:-}" ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 125; }
  install_tools
  work=$(mktemp -d /var/tmp/hookledger-sandbox.XXXXXX)
  name=${work##*/}
  name=${name//./-}
  inner=
  trap 'exit 130' INT TERM HUP
  trap outside_ends EXIT
  for hierarchy in "${hierarchies[@]}"; do
    [ ! -e "$hierarchy/cgroup.procs" ] || mkdir "$hierarchy/$name"
  done
  SANDBOX_WORK=$work SANDBOX_NAME=$name setpriv --pdeathsig KILL \
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc bash "$0" "$@" &
  inner=$!
  code=0
  wait "$inner" || code=$?
  inner=
  exit "$code"
}

outside_ends() {
  local code=$?
  set +e
  trap '' INT TERM HUP
  [ -z "$inner" ] || { kill -KILL "$inner"; wait "$inner"; } 2>/dev/null
  for hierarchy in "${hierarchies[@]}"; do
    # The kernel may still be reaping.
    for _ in $(seq 50); do
      [ -d "$hierarchy/$name" ] || break
      find "$hierarchy/$name" -depth -type d -exec rmdir {} + 2>/dev/null
      [ ! -d "$hierarchy/$name" ] || sleep 0.1
    done
  done
  rm -rf --one-file-system "$work"
  exit "$code"
}

# The root folder of the machine inside.
make_root() {
  mkdir "$work/memory" "$root"
  mount -t tmpfs -o mode=755 hookledger-sandbox "$work/memory"
  mkdir "$work/memory/upper" "$work/memory/work"
  mount -t overlay hookledger-sandbox -o "lowerdir=/,upperdir=$work/memory/upper,workdir=$work/memory/work" "$root"
  # What this machine starts, it starts for itself.
  rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires "$root"/etc/rc[S0-6].d/*
  # Images of containers forbid packages to start services.
  rm -f "$root/usr/sbin/policy-rc.d"
  for unit in console-getty systemd-logind systemd-networkd-wait-online systemd-firstboot; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
  done
  mkdir -p "$root/etc/systemd/journald.conf.d" "$root/var/log/journal"
  printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/sandbox.conf"
  tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
  printf '127.0.0.1 localhost sandbox\n::1 localhost\n' >"$root/etc/hosts"
  echo sandbox >"$root/etc/hostname"
}

# The commands are a service like any other: with what systemd inside may do, and no more.
place_commands() {
  mkdir -p "$root/sandbox"
  install -m 755 "$1" "$root/sandbox/commands"
  shift
  local pair
  for pair in "$@"; do
    install -d "$root$(dirname "${pair#*:}")"
    cp -aT --no-preserve=ownership "${pair%%:*}" "$root${pair#*:}"
  done
  cat >"$root/etc/systemd/system/sandbox.service" <<'UNIT'
[Unit]
Description=the commands of the sandbox
After=basic.target dbus.service
Wants=dbus.service
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb SYSTEMD_PAGER= PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WorkingDirectory=/sandbox
LimitNOFILE=infinity
TimeoutStartSec=infinity
ExecStart=/bin/bash /sandbox/commands
StandardOutput=append:/sandbox/output
StandardError=append:/sandbox/output
UNIT
  mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
  ln -s ../sandbox.service "$root/etc/systemd/system/multi-user.target.wants/sandbox.service"
}

# What was written since the last time.
show_output() {
  local from to
  from=$(<"$work/shown")
  to=$(stat -c %s "$root/sandbox/output")
  [ "$to" -gt "$from" ] || return 0
  echo "$to" >"$work/shown"
  tail -c "+$((from + 1))" "$root/sandbox/output" | head -c "$((to - from))"
}

# boot SECONDS: until the machine inside is switched off, for so long at most.
boot() (
  for hierarchy in "${hierarchies[@]}"; do
    [ ! -d "$hierarchy/$SANDBOX_NAME" ] || echo 0 >"$hierarchy/$SANDBOX_NAME/cgroup.procs"
  done
  # bpf: the filters of IPAddressDeny=.
  exec env -i PATH="$PATH" UNIFIED_CGROUP_HIERARCHY=yes SYSTEMD_LOG_LEVEL=warning timeout --foreground "$1" \
    systemd-nspawn --quiet --directory="$root" --machine="$SANDBOX_NAME" --hostname=sandbox --register=no --keep-unit \
    --private-network --resolv-conf=off --timezone=off --link-journal=no --console=pipe --system-call-filter=bpf \
    --drop-capability=CAP_SYS_TIME,CAP_SYS_MODULE,CAP_MKNOD,CAP_SYS_RAWIO \
    --boot -- systemd.unit=multi-user.target systemd.show_status=false </dev/null
)

# The inner half. It is the first process of its namespace: when it ends, the kernel ends all others.
inside() {
  work=$SANDBOX_WORK
  root=$work/root
  make_root
  place_commands "$@"
  : >"$root/sandbox/output"
  echo 0 >"$work/shown"
  while sleep 0.2; do show_output; done &
  local shows=$!
  local started=$SECONDS code=133
  # 133: it asked for a reboot.
  while [ "$code" -eq 133 ]; do
    boot $((timeout_secs - SECONDS + started)) >>"$work/boot.log" 2>&1 && code=0 || code=$?
  done
  kill "$shows"
  wait "$shows" 2>/dev/null || :
  show_output
  if [ -n "${SANDBOX_JOURNAL:-}" ]; then
    journalctl --directory="$root/var/log/journal" --no-pager -o short-iso >"$SANDBOX_JOURNAL" 2>/dev/null || :
  fi
  if [ ! -s "$root/sandbox/output" ] && [ "$code" -ne 0 ]; then
    cat "$work/boot.log" >&2
    fail "nothing was run (exit code $code)"
  fi
  exit "$code"
}

if [ -z "${SANDBOX_WORK:-}" ]; then outside "$@"; else inside "$@"; fi
