#!/bin/sh
# Installs, upgrades, repairs or removes the EdgeNAS agent on a board with 64-bit Linux and Python >= 3.10.
# Each run makes a virtual environment of its own and switches to it once it works: a run that fails leaves the agent
# as it was. Whatever else belongs on the board, the unit and the commands, comes out of the installed wheel.
set -eu
umask 022

readonly root=/opt/edgenas-agent
readonly command=/usr/local/bin/edgenas-agent
readonly settings=/etc/default/edgenas-agent
readonly unit=/etc/systemd/system/edgenas-agent.service
readonly user=edgenas
readonly usual_state=/var/lib/edgenas-agent

usage() {
    cat <<'TEXT'
usage: install-agent.sh [--from WHEEL|FOLDER] [--python PYTHON] [--state-dir FOLDER]
       install-agent.sh --uninstall [--purge]

  --from WHEEL         this wheel of edgenas, and what it needs from the package index
  --from FOLDER        a folder made by `edgenas devices wheelhouse`, without a network; the script's own if it is one
  --python PYTHON      run the agent with this Python; the first that is new enough otherwise
  --state-dir FOLDER   keep models and history there; /var/lib/edgenas-agent otherwise
  --uninstall          remove the agent, and keep its state, its settings and its user
  --purge              remove these as well
TEXT
}

main() {
    from='' python='' state='' uninstall='' purge=''
    while [ $# -gt 0 ]; do
        case $1 in
            --from | --python | --state-dir)
                [ $# -ge 2 ] || fail "$1 lacks its value; see --help"
                case $1 in --from) from=$2 ;; --python) python=$2 ;; *) state=$2 ;; esac
                shift
                ;;
            --uninstall) uninstall=yes ;;
            --purge) purge=yes ;;
            --help | -h) usage && exit ;;
            *) fail "'$1' is not understood; see --help" ;;
        esac
        shift
    done
    [ "$(id -u)" -eq 0 ] || fail "it makes a user and a service, and you are $(id -un); run it with sudo"
    find_state
    if [ -n "$uninstall" ]; then
        remove
    else
        [ -z "$purge" ] || fail "--purge goes with --uninstall"
        find_python
        find_wheels
        find_venv
        make_environment
        make_user_and_state
        switch
    fi
}

fail() {
    echo "install-agent.sh: $*" >&2
    exit 2
}

has_systemd() {
    [ -d /run/systemd/system ]
}

find_state() {
    recorded=''
    if [ -e "$settings" ]; then
        # shellcheck source=/dev/null
        recorded=$(. "$settings" && echo "${EDGENAS_AGENT_HOME-}")
    fi
    state=${state:-${recorded:-$usual_state}}
    case $state in
        *[!A-Za-z0-9/._-]* | [!/]* | /) fail "state folder '$state' is not understood; expected a path like /data/edgenas" ;;
        /home/* | /root/*) fail "state folder '$state' lies in a home, which the service does not see; choose another" ;;
    esac
    if [ -d "$state" ] && [ "$(stat -c %U "$state")" != $user ] && [ -n "$(ls -A "$state")" ]; then
        fail "state folder '$state' holds files of $(stat -c %U "$state"); expected none, or those of the agent"
    fi
}

# Sets python, tag (cp311) and machine.
find_python() {
    seen=''
    for candidate in ${python:-python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
        found=$("$candidate" -I -c 'import platform, struct, sys
print("%d %d" % sys.version_info[:2], 8 * struct.calcsize("P"), platform.machine(), sys.base_prefix)' 2>/dev/null) || continue
        # Version, bits and machine hold no blanks.
        # shellcheck disable=SC2086
        set -- $found
        case $5 in
            /home/* | /root/*) seen="$seen $candidate lies in $5," && continue ;;
        esac
        if [ "$1" -ne 3 ] || [ "$2" -lt 10 ]; then
            seen="$seen $candidate is $1.$2," && continue
        fi
        [ "$3" -eq 64 ] || fail "$candidate is a $3-bit program on $4, and the agent needs 64 bits; install a 64-bit system"
        case $4 in aarch64 | x86_64) ;; *) fail "machine $4 is not supported; expected aarch64 or x86_64" ;; esac
        python=$candidate minor=$2 tag=cp$1$2 machine=$4
        return
    done
    fail "no Python >= 3.10 outside of homes, which the service does not see:${seen:- ${python:-python3} is not found,} name one with --python"
}

# Sets wheel, wheelhouse (empty: with the package index) and pip_wheel (empty: the system's pip).
find_wheels() {
    wheelhouse='' pip_wheel=''
    folder=$(cd "$(dirname "$0")" && pwd)
    if [ -z "$from" ] && ls "$folder"/edgenas-*.whl >/dev/null 2>&1; then
        from=$folder
    fi
    case $from in
        # By its name alone it is not asked for: the index has no edgenas yet, and may once have a stranger's.
        '') fail "no wheel of edgenas lies in $folder; make a folder that has all, on the host: edgenas devices wheelhouse --platform $machine --python 3.$minor --out wheels, copy it here and run its own install-agent.sh, or name a wheel with --from" ;;
        *.whl) set -- "$from" ;;
        *) wheelhouse=$(cd "$from" 2>/dev/null && pwd) || fail "there is no wheel and no folder '$from'" && set -- "$wheelhouse"/edgenas-*.whl ;;
    esac
    [ $# -eq 1 ] || fail "folder '$from' holds $# wheels of edgenas; leave one in it"
    [ -f "$1" ] || fail "there is no wheel '$1'"
    wheel=$1
    case ${wheel##*/} in
        edgenas-*-none-any.whl) ;;
        *) fail "'${wheel##*/}' is no wheel of edgenas for every machine; expected edgenas-VERSION-py3-none-any.whl" ;;
    esac
    [ -n "$wheelhouse" ] || return 0
    # One package that is built for each Python and machine stands for them all.
    ls "$wheelhouse"/grpcio-[0-9]*-"$tag"-*_"$machine".whl >/dev/null 2>&1 ||
        fail "'$from' has no wheels for Python 3.$minor on $machine; make it with: edgenas devices wheelhouse --platform $machine --python 3.$minor"
    pip_wheel=$(find "$wheelhouse" -maxdepth 1 -name 'pip-*.whl' | head -n 1)
}

# Debian keeps a part of venv in a package of its own, of which a pip in the wheelhouse makes us independent.
find_venv() {
    needed=venv
    [ -n "$pip_wheel" ] || needed=ensurepip
    ! "$python" -I -c "import $needed" 2>/dev/null || return 0
    package=python3.$minor-venv
    command -v apt-get >/dev/null || fail "$python has no module $needed, and there is no apt-get to install $package with"
    echo "installing $package"
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$package"; } >/dev/null ||
        fail "apt-get cannot install $package, which $python makes virtual environments with; install it by hand"
}

# Sets new, the folder of a virtual environment with a working agent.
make_environment() {
    version=$(basename "$wheel" | cut -d - -f 2)
    install -d "$root" "$root/versions"
    new=$(mktemp -d "$root/versions/$version.XXXXXX")
    trap 'rm -rf "$new"; rmdir "$root/versions" "$root" 2>/dev/null || :' EXIT
    trap 'exit 130' HUP INT TERM
    chmod 0755 "$new"
    echo "installing edgenas ${version} with $($python -V) in $new"
    "$python" -m venv ${pip_wheel:+--without-pip} "$new" || fail "$python cannot make a virtual environment in $new"
    pip install --quiet --disable-pip-version-check --no-cache-dir --only-binary :all: \
        ${wheelhouse:+--no-index --find-links "$wheelhouse"} "$wheel" 2>"$new/pip.log" ||
        fail "pip cannot install $wheel: $(tail -n 1 "$new/pip.log")"
    "$new/bin/edgenas-agent" --version >/dev/null || fail "the agent in $new does not run; nothing is changed"
}

pip() {
    "$new/bin/python" "${pip_wheel:-$new/bin}/pip" "$@"
}

make_user_and_state() {
    getent passwd $user >/dev/null ||
        useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin $user
    # What opens the firmware of a Raspberry Pi and the GPUs; all other sensors are files that anyone may read.
    for group in video render; do
        ! getent group $group >/dev/null || usermod --append --groups $group $user
    done
    install -d -m 0700 -o $user -g $user "$state"
    if [ ! -e "$settings" ]; then
        cat >"$settings" <<TEXT
# Settings of the EdgeNAS agent, for its service and its commands; kept over upgrades.
# The options are those of \`edgenas-agent serve --help\`. After a change, restart the agent.
EDGENAS_AGENT_HOME=$state
EDGENAS_AGENT_OPTIONS=""
TEXT
    elif [ "$state" != "$recorded" ]; then
        # An agent that systemd does not know would be sought by its new folder and run on with the old one.
        has_systemd || [ ! -x "$root/start" ] || "$root/start" stop
        sed -i '/^EDGENAS_AGENT_HOME=/d' "$settings"
        echo "EDGENAS_AGENT_HOME=$state" >>"$settings"
    fi
}

switch() {
    old=$(readlink "$root/current") || old=''
    activate "$new" || {
        [ -n "$old" ] || { trap - EXIT && fail "the agent is installed and does not start; see: $(log_command)"; }
        activate "$old" || fail "neither the new agent nor the old one starts; see: $(log_command)"
        fail "the new agent does not start, and the old one runs again; see: $(log_command)"
    }
    trap - EXIT
    find "$root/versions" -mindepth 1 -maxdepth 1 ! -path "$new" -exec rm -rf {} +
    rm -f "$new/pip.log"
    echo "$("$command" --version) is installed; its state is in $state, its settings are in $settings"
    if has_systemd; then
        echo "it runs, and starts with the board; look at it: systemctl status edgenas-agent, sudo edgenas-agent doctor"
    else
        "$root/start" status || :
    fi
}

# Makes the agent in a folder the one that is run, and restarts it; chained, for the shell's -e ends where || begins.
activate() {
    files=$("$1/bin/python" -I -c 'import edgenas_deploy; print(edgenas_deploy.__path__[0])') &&
        ln -sfn "$1" "$root/next" && mv -T "$root/next" "$root/current" &&
        install -m 0755 "$files/edgenas-agent.sh" "$command" &&
        install -m 0755 "$files/start-agent.sh" "$root/start" || return
    if has_systemd; then
        install -m 0644 "$files/edgenas-agent.service" "$unit" &&
            rm -f "$unit.d/state.conf" &&
            if [ "$state" != $usual_state ]; then
                install -d "$unit.d" && printf '[Service]\nReadWritePaths=%s\n' "$state" >"$unit.d/state.conf"
            fi &&
            systemctl daemon-reload && systemctl --quiet enable edgenas-agent && systemctl restart edgenas-agent
    elif "$root/start" status >/dev/null; then
        "$root/start" restart >/dev/null
    fi
}

log_command() {
    if has_systemd; then echo journalctl -u edgenas-agent; else echo "less $state/agent.log"; fi
}

remove() {
    if has_systemd && [ -e "$unit" ]; then
        systemctl --quiet disable --now edgenas-agent
    elif [ -x "$root/start" ]; then
        "$root/start" stop
    fi
    rm -rf "$root" "$command" "$unit" "$unit.d"
    ! has_systemd || systemctl daemon-reload
    kept="; kept are $state, $settings and the user $user (--purge removes them)"
    if [ -n "$purge" ]; then
        ! getent passwd $user >/dev/null || userdel $user
        # The unit makes the usual folder wherever the state is.
        rm -rf "$state" $usual_state "$settings"
        kept=''
    fi
    echo "the agent is removed$kept"
}

main "$@"
