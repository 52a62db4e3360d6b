#!/usr/bin/env bash
# The agent on an arm64 board, as far as that goes without one: Debian 12 for arm64 in a chroot, under qemu-user.
# It is installed, paired with this machine, measured on from here, upgraded and removed by the commands that a user has
# for it.
# Figures mean nothing there: every instruction is emulated, and the load that is seen is this machine's.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly bin=$PWD/.venv/bin
readonly cache=${XDG_CACHE_HOME:-$HOME/.cache}/edgenas-arm64
readonly suite=bookworm python=3.11
# Neither waits nor second tries for better figures; but time, for the reference model that takes turns with every model
# is what an emulated benchmark mostly runs.
readonly options='--gate-limit-s 0 --retries 0 --measure-limit-s 5 --job-timeout-s 1800'
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
    mkdir "$board" "$work/changed" "$work/kept"
    # Where one container's files lie above another's, the kernel may refuse a third layer.
    mount -t overlay -o "lowerdir=$cache/$suite,upperdir=$work/changed,workdir=$work/kept" overlay "$board" ||
        cp -aT "$cache/$suite" "$board"
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

# Prints a port that is free, as the one after it is, at which the agent is paired.
free_ports() {
    "$bin/python" -c '
import contextlib, random, socket
for port in iter(lambda: random.randrange(20000, 30000), None):
    with contextlib.suppress(OSError):
        with socket.create_server(("127.0.0.1", port)), socket.create_server(("127.0.0.1", port + 1)):
            print(port)
            break'
}

# wheel_of VERSION FOLDER: builds from a copy, for a build leaves files where it is done.
wheel_of() {
    local source=$work/source-$1
    mkdir "$source"
    git ls-files -z | xargs -0 cp --parents --target-directory="$source"
    sed -i "s/^version = .*/version = \"$1\"/" "$source/pyproject.toml"
    "$bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$2" "$source"
}

gather_wheels() {
    "$bin/edgenas" devices wheelhouse --platform aarch64 --python $python --out "$board/root/wheelhouse"
    version=$(basename "$board"/root/wheelhouse/edgenas-*.whl | cut -d - -f 2)
    wheel_of 99.2 "$work"
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

# As a person does at a board and at the host. The first answer waits for a worker that looks for runtimes, which may take
# the emulator longer than the host waits.
pair_device() {
    local shown=$work/pair attempts=0 code
    chroot "$board" /usr/local/bin/edgenas-agent pair >"$shown" 2>&1 &
    until code=$(sed -n 's/^code: //p' "$shown") && [[ -n $code ]]; do
        kill -0 $! 2>/dev/null || fail "the board shows no code: $(cat "$shown")"
        sleep 0.5
    done
    "$bin/edgenas" devices add "127.0.0.1:$port" --name arm64 --code "$code" ||
        until "$bin/edgenas" devices ping arm64; do
            [[ $((++attempts)) -lt 3 ]] || fail "the device cannot be paired: $(cat "$shown")"
        done
    wait $! || fail "the board was not paired: $(cat "$shown")"
    tail -n 1 "$shown"
    keys_of_board >"$work/keys"
    described | grep '"machine": "aarch64"' >/dev/null || fail "the device is no aarch64: $(described)"
}

# The key and certificate of the board, and the hosts that it knows.
keys_of_board() {
    (cd "$board/var/lib/edgenas-agent" && sha256sum identity/current.json clients.json)
}

# Read it to its end: with pipefail, a reader that stops early makes it fail.
described() {
    "$bin/edgenas" devices show arm64 --json
}

measured() {
    "$bin/edgenas" benchmarks list --device arm64 --json
}

# A model so small that it has its samples in the time that a benchmark takes at least. Search mode, in which turns are
# shorter and so the reference model has more of them, took 234 s of one model, and the full mode 85.
measure() {
    PYTHONPATH=tests/device_agent "$bin/python" -c '
import sys, agent_harness
sys.stdout.buffer.write(agent_harness.conv_model(shape=(1, 3, 4, 4)))' >"$work/model.onnx"
    "$bin/edgenas" bench "$work/model.onnx" --device arm64 --threads 1 --no-energy
    measured >"$work/measured"
    grep --quiet '"latency_ms"' "$work/measured" || fail "the device has no benchmark: $(cat "$work/measured")"
}

# still_answers VERSION: what was measured before, over TLS, to whom it was paired with.
still_answers() {
    described | grep "\"agent_version\": \"$1\"" >/dev/null || fail "the agent is not $1: $(described)"
    measured | diff "$work/measured" - || fail "what was measured before is not answered any more"
    keys_of_board | diff "$work/keys" - || fail "the board has other keys than it was paired with"
}

refuse_a_broken_wheel() {
    rm "$board"/root/wheelhouse/edgenas-*.whl
    echo "no wheel" >"$board/root/wheelhouse/edgenas-99.1-py3-none-any.whl"
    ! on_board /root/wheelhouse/install-agent.sh || fail "a broken wheel was installed"
    still_answers "$version"
}

upgrade_agent() {
    rm "$board"/root/wheelhouse/edgenas-*.whl
    cp "$work"/edgenas-99.2-*.whl "$board/root/wheelhouse"
    # It restarts the agent, on the loopback that this machine asks it on.
    PIP_NO_COMPILE=0 chroot "$board" /root/wheelhouse/install-agent.sh
    still_answers 99.2
}

part_with_device() {
    "$bin/edgenas" devices remove arm64
    [[ $(on_board edgenas-agent clients list --json) = "[]" ]] || fail "the board still knows this host"
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
    port=$(free_ports)
    step "a board" make_board
    step "wheels" gather_wheels
    step "installation" install_agent
    step "start of the agent" start_agent
    step "pairing" pair_device
    step "a benchmark" measure
    step "an upgrade that fails" refuse_a_broken_wheel
    step "an upgrade" upgrade_agent
    step "parting" part_with_device
    step "removal" remove_agent
    echo "arm64: passed in $SECONDS s"
}

if [[ ${1-} != --inside ]]; then
    [[ $(id -u) -eq 0 ]] || skip "it needs root, for a chroot"
    unshare --mount --net --pid --fork --mount-proc true || skip "no namespaces can be made here"
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
