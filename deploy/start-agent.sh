#!/bin/sh
# /opt/edgenas-agent/start: runs the agent where there is no systemd: containers, chroots, a Debian on a phone.
#
#   start start|stop|restart|status        status exits with 3 where no agent runs
set -eu
# shellcheck source=/dev/null
. /etc/default/edgenas-agent
export EDGENAS_AGENT_HOME HOME="$EDGENAS_AGENT_HOME"
program=/opt/edgenas-agent/current/bin/edgenas-agent
lock=$EDGENAS_AGENT_HOME/lock # held by a running agent, with its process id inside
log=$EDGENAS_AGENT_HOME/agent.log
start_limit_s=120
stop_limit_s=30

main() {
    # All of it as edgenas: what lies in the agent's folder must not lead root to another file or process.
    if [ "$(id -u)" -eq 0 ]; then
        exec setpriv --reuid=edgenas --regid=edgenas --init-groups --no-new-privs "$0" "$@"
    fi
    [ "$(id -un)" = edgenas ] || fail "the agent belongs to the user edgenas, and you are $(id -un); run: sudo $0 $*"
    umask 077
    cd "$EDGENAS_AGENT_HOME"
    case ${1-} in
        start) start ;;
        stop) stop ;;
        restart) stop && start ;;
        status) status ;;
        *) fail "'${1-}' is not understood; expected start, stop, restart or status" ;;
    esac
}

fail() {
    echo "$0: $*" >&2
    exit 2
}

running() {
    [ -e "$lock" ] && ! flock --nonblock "$lock" true
}

start() {
    ! running || fail "the agent runs already, as process $(cat "$lock"); to start it anew: $0 restart"
    [ ! -e "$log" ] || mv "$log" "$log.1"
    : >"$log"
    # The options are several words.
    # shellcheck disable=SC2086
    setsid "$program" serve $EDGENAS_AGENT_OPTIONS >>"$log" 2>&1 </dev/null &
    waited_s=0
    until grep -q '^listening on ' "$log"; do
        kill -0 $! 2>/dev/null || fail "the agent did not start: $(tail -n 1 "$log"); see /etc/default/edgenas-agent"
        [ $waited_s -lt $start_limit_s ] || fail "the agent does not listen after $start_limit_s s; see $log"
        sleep 1
        waited_s=$((waited_s + 1))
    done
    status
}

stop() {
    waited_s=0
    while running; do
        [ $waited_s -lt $stop_limit_s ] || fail "process $(cat "$lock") did not end in $stop_limit_s s; see $log"
        # Asked again each time: one that has only just started may not listen for the signal yet.
        kill -TERM "$(cat "$lock")" 2>/dev/null || :
        sleep 1
        waited_s=$((waited_s + 1))
    done
}

status() {
    running || { echo "the agent does not run; start it: $0 start" && exit 3; }
    echo "the agent runs as process $(cat "$lock"), $(grep '^listening on ' "$log")"
}

main "$@"
