#!/usr/bin/env bash
# Runs on each node: Ray until it is told to stop, then its logs to shared storage and its folder away.
#
# ray_node.sh FOLDER LOGS ARGUMENTS...    FOLDER: Ray's, on this node; ARGUMENTS: of `ray start`
set -uo pipefail
folder="$1" logs="$2"
shift 2

# Ray holds a connection for each worker on every node; many sites start with 1,024 files.
ulimit -Sn "$(ulimit -Hn)" 2>/dev/null || true
ray start --block "$@" &
ray=$!
trap 'kill "$ray" 2>/dev/null' TERM INT
status=0
wait "$ray" || status=$?
# The signal has ended the wait, but not Ray.
while kill -0 "$ray" 2>/dev/null; do
    wait "$ray"
    status=$?
done
mkdir -p "$logs"
for session in "$folder"/session_[0-9]*; do
    [[ ! -d "$session/logs" ]] || cp -r "$session/logs/." "$logs/"
done
rm -rf "$folder"
exit "$status"
