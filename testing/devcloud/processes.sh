# Sourced by up, down and karbor: paths, ports, and which processes are ours.

DEVCLOUD_DIR=${DEVCLOUD_DIR:-/tmp/devcloud}
ETC=$DEVCLOUD_DIR/etc
LOG=$DEVCLOUD_DIR/log
RUN=$DEVCLOUD_DIR/run
DATA=$DEVCLOUD_DIR/data

HOST=127.0.0.1
PASSWORD=devcloud
REGION=RegionOne
KEYSTONE_URL=http://$HOST:5000/v3
KARBOR_PORT=${KARBOR_PORT:-8799}

# Debian's own Python and tools only: a pyenv or venv earlier on PATH lacks the OpenStack modules.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV

# A process's start time (clock ticks since boot) tells it apart from a later one with the same pid. One that has died
# and was not waited for yet has none.
start_time() {
  awk '{ sub(/^.*\) /, "") } $1 != "Z" { print $20 }' "/proc/$1/stat" 2>/dev/null
}

# running NAME: is the daemon recorded under NAME still the one that `start` started?
running() {
  local pid ticks
  [ -s "$RUN/$1.pid" ] || return 1
  read -r pid ticks < "$RUN/$1.pid"
  [ "$(start_time "$pid")" = "$ticks" ]
}

# start NAME COMMAND...: run COMMAND as a session leader, logging to NAME.log.
start() {
  local name=$1
  shift
  running "$name" && return
  setsid "$@" >> "$LOG/$name.log" 2>&1 < /dev/null &
  echo "$! $(start_time $!)" > "$RUN/$name.pid"
}

# stop NAME: SIGTERM to the daemon's own session, SIGKILL to it after 20 seconds.
stop() {
  local pid _ i
  if running "$1"; then
    read -r pid _ < "$RUN/$1.pid"
    kill -TERM -- "-$pid"
    for i in $(seq 200); do
      kill -0 -- "-$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -0 -- "-$pid" 2>/dev/null && kill -KILL -- "-$pid"
  fi
  rm -f "$RUN/$1.pid"
}

# Names of the daemons that were started.
started() {
  ls "$RUN" 2>/dev/null | sed -n 's/\.pid$//p'
}

# once FUNCTION: run it unless it already succeeded for this state directory.
once() {
  [ -e "$DATA/done/$1" ] && return
  "$1"
  touch "$DATA/done/$1"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@" > /dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "timed out waiting for $what; see $LOG" >&2; exit 1; }
    sleep 0.3
  done
}

wait_http() { wait_for 90 "$1" curl --silent --output /dev/null --max-time 5 "$1"; }

# logged NAME COMMAND...: run a set-up command with its output in NAME.log, shown on failure.
logged() {
  local log=$LOG/$1.log
  shift
  "$@" >> "$log" 2>&1 || { tail -n 30 "$log" >&2; echo "failed: $*" >&2; exit 1; }
}
