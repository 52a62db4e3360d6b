#!/usr/bin/env bash
# The agent on an arm64 board, as far as that goes without one: Debian 12 for arm64 in a chroot, under qemu-user.
# It is installed, measured on from this machine, upgraded and removed by the commands that a user has for it.
# Figures mean nothing there: every instruction is emulated, and the load that is seen is this machine's.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly bin=$PWD/.venv/bin
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgenas-arm64
readonly suite=bookworm python=3.11
# Neither waits nor second tries for better figures; but time, for the reference model that takes turns with every model
# is what an emulated benchmark mostly runs.
readonly options='--gate-limit-s 0 --retries 0 --job-timeout-s 1800'
readonly packages=(debootstrap qemu-user-static binfmt-support)

skip() {
    echo "arm64: skipped: $*"
    exit 0
}

fail() {
    echo "arm64: $*" >&2
    exit 1
}

# step TITLE COMMAND...: runs a function and says how long it took.
step() {
    local begun=$SECONDS
    echo "== $1"
    "${@:2}"
    echo "   $((SECONDS - begun)) s"
}

have_packages() {
    dpkg --status "${packages[@]}" >/dev/null 2>&1 && return
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${packages[@]}" >/dev/null
}

# The emulator stays registered with the kernel, as it is from its start on where systemd runs.
have_emulator() {
    mountpoint --quiet /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]] || update-binfmts --enable qemu-aarch64
}

have_debian() {
    [[ ! -d $cache/$suite ]] || return 0
    rm -rf --one-file-system "$cache/$suite.partial"
    mkdir -p "$cache"
    debootstrap --arch=arm64 --variant=minbase --include=python3,python3-venv,ca-certificates \
        "$suite" "$cache/$suite.partial" >"$cache/debootstrap.log" 2>&1 || return
    rm -rf "$cache/$suite.partial/var/cache/apt/archives"/*.deb
    mv "$cache/$suite.partial" "$cache/$suite"
}

make_board() {
    cp -a "$cache/$suite" "$board"
    mount -t proc proc "$board/proc"
    mount -t sysfs -o ro sysfs "$board/sys"
    # The one of this machine is x86's, at which the library crashes that ONNX Runtime counts cores with.
    local core
    for core in $(seq 0 $(($(nproc) - 1))); do
        printf '%s\t: %s\n' processor "$core" Features 'fp asimd' 'CPU implementer' 0x41 'CPU part' 0xd08
        echo
    done >"$work/cpuinfo"
    mount --bind "$work/cpuinfo" "$board/proc/cpuinfo"
    files_of_board >"$work/files"
}

# But for the backups that useradd makes of what it changes, /etc/shadow- and the like.
files_of_board() {
    (cd "$board" && find . -xdev ! -path './root/*' ! -path './tmp/*' ! -path './etc/*-' | sort)
}

# on_board COMMAND...: without a network; its loopback is not this machine's.
on_board() {
    unshare --net chroot "$board" "$@"
}

# wheel_of VERSION FOLDER: builds from a copy, for a build leaves files where it is done.
wheel_of() {
    local source=$work/source-$1
    mkdir "$source"
    git ls-files -z | xargs -0 cp --parents --target-directory="$source"
    sed -i "s/^version = .*/version = \"$1\"/" "$source/pyproject.toml"
    rm -f "$2"/edgenas-*.whl
    "$bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$2" "$source"
}

gather_wheels() {
    "$bin/edgenas" devices wheelhouse --platform aarch64 --python $python --out "$board/root/wheelhouse"
    wheel_of 0.0.1 "$board/root/wheelhouse"
}

# Compiling every module takes the emulator a minute, so only those that are used are compiled, as they are imported.
# To pip, 0 is what switches an option on that begins with no.
install_agent() {
    PIP_NO_COMPILE=0 on_board /root/wheelhouse/install-agent.sh
    on_board /opt/edgenas-agent/current/bin/python -c 'import device_agent.serving.server, onnxruntime'
}

start_agent() {
    sed -i "s/^EDGENAS_AGENT_OPTIONS=.*/EDGENAS_AGENT_OPTIONS=\"--address 127.0.0.1:$port $options\"/" \
        "$board/etc/default/edgenas-agent"
    chroot "$board" /opt/edgenas-agent/start start
}

# The first answer waits for a worker that looks for runtimes, which may take the emulator longer than the host waits.
add_device() {
    local attempts=0
    until "$bin/edgenas" devices add "127.0.0.1:$port" --name arm64; do
        [[ $((++attempts)) -lt 3 ]] || fail "the device cannot be added"
    done
    described | grep '"machine": "aarch64"' >/dev/null || fail "the device is no aarch64: $(described)"
}

# Read it to its end: with pipefail, a reader that stops early makes it fail.
described() {
    "$bin/edgenas" devices show arm64 --json
}

measured() {
    "$bin/edgenas" benchmarks list --device arm64 --json
}

measure() {
    PYTHONPATH=tests/device_agent "$bin/python" -c 'import sys, agent_harness; sys.stdout.buffer.write(agent_harness.conv_model())' \
        >"$work/model.onnx"
    "$bin/edgenas" bench "$work/model.onnx" --device arm64 --threads 1 --no-energy
    measured >"$work/measured"
    grep --quiet '"latency_ms"' "$work/measured" || fail "the device has no benchmark: $(cat "$work/measured")"
}

# still_answers VERSION: what was measured before.
still_answers() {
    described | grep "\"agent_version\": \"$1\"" >/dev/null || fail "the agent is not $1: $(described)"
    measured | diff "$work/measured" - || fail "what was measured before is not answered any more"
}

refuse_a_broken_wheel() {
    local good
    good=$(ls "$board"/root/wheelhouse/edgenas-*.whl)
    mv "$good" "$work"
    echo "no wheel" >"$board/root/wheelhouse/edgenas-0.0.2-py3-none-any.whl"
    ! on_board /root/wheelhouse/install-agent.sh || fail "a broken wheel was installed"
    still_answers 0.0.1
}

upgrade_agent() {
    wheel_of 0.0.3 "$board/root/wheelhouse"
    # It restarts the agent, on the loopback that this machine asks it on.
    PIP_NO_COMPILE=0 chroot "$board" /root/wheelhouse/install-agent.sh
    still_answers 0.0.3
}

remove_agent() {
    local agent_uid
    agent_uid=$(on_board id -u edgenas)
    on_board /root/wheelhouse/install-agent.sh --uninstall
    [[ -s $board/var/lib/edgenas-agent/history.sqlite ]] || fail "the history went with the agent"
    on_board /root/wheelhouse/install-agent.sh --uninstall --purge
    files_of_board | diff "$work/files" - || fail "the agent left files behind, or took others away"
    ! on_board getent passwd edgenas || fail "the agent's user was left behind"
    ! pgrep --list-full --uid "$agent_uid" || fail "processes of the agent were left behind"
}

main() {
    port=$("$bin/python" -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
    step "a board" make_board
    step "wheels" gather_wheels
    step "installation" install_agent
    step "start of the agent" start_agent
    step "adding the device" add_device
    step "a benchmark" measure
    step "an upgrade that fails" refuse_a_broken_wheel
    step "an upgrade" upgrade_agent
    step "removal" remove_agent
    echo "arm64: passed in $SECONDS s"
}

if [[ ${1-} != --inside ]]; then
    [[ $(id -u) -eq 0 ]] || skip "it needs root, for a chroot"
    step "packages: ${packages[*]}" have_packages || skip "the packages ${packages[*]} cannot be had"
    have_emulator || skip "this kernel registers no emulator for arm64"
    step "Debian $suite for arm64" have_debian || skip "debootstrap: $(tail -n 1 "$cache/debootstrap.log")"
    folder=$(mktemp -d)
    trap 'rm -rf --one-file-system "$folder"' EXIT
    # With their namespaces go all mounts and processes, however this ends.
    ARM64_FOLDER=$folder unshare --mount --propagation private --pid --fork --kill-child --mount-proc "$0" --inside
    exit
fi
readonly work=$ARM64_FOLDER board=$ARM64_FOLDER/board
export EDGENAS_HOME=$work/home
main
