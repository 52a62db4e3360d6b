#!/bin/sh
# /usr/local/bin/edgenas-agent: the installed agent for a person, as the user and with the state of the service.
set -eu
# shellcheck source=/dev/null
. /etc/default/edgenas-agent
export EDGENAS_AGENT_HOME HOME="$EDGENAS_AGENT_HOME"
program=/opt/edgenas-agent/current/bin/edgenas-agent

case $(id -un) in
    edgenas) exec "$program" "$@" ;;
    root) exec setpriv --reuid=edgenas --regid=edgenas --init-groups --no-new-privs "$program" "$@" ;;
esac
echo "edgenas-agent: its state belongs to the user edgenas, and you are $(id -un); run: sudo edgenas-agent $*" >&2
exit 2
