#!/bin/sh
# Checks the systemd unit and the shell scripts of this folder, with what is installed here of the tools for it.
set -eu
cd "$(dirname "$0")/.."
unit=edgenas-agent.service
exposure_limit=30 # tenths, as --threshold takes them

if command -v systemd-analyze >/dev/null; then
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    # No checking machine has the agent's program, and a missing one is an error to systemd.
    sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "deploy/$unit" >"$copy/$unit"
    complaints=$(systemd-analyze verify --man=no "$copy/$unit" 2>&1) || :
    if [ -n "$complaints" ]; then
        echo "$complaints" >&2
        exit 1
    fi
    findings=$(systemd-analyze security --offline=true --no-pager --threshold=$exposure_limit "deploy/$unit") || {
        echo "$findings" >&2
        exit 1
    }
    echo "$findings" | tail -n 1
else
    echo "systemd-analyze is not installed here: deploy/$unit is not checked"
fi

if command -v shellcheck >/dev/null; then
    git ls-files '*.sh' .ci/run | xargs shellcheck
else
    echo "shellcheck is not installed here: the shell scripts are not checked"
fi
