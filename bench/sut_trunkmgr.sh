#!/bin/bash
# SUT adapter: trunkmgr as `manage.py up` starts it, with shipped defaults: history, pages, Celery worker and beat on.
# Verbs and contract in README.md.  Environment: N (accounts), EXPIRES, BENCH_RUN, BENCH_IP.
#   prepare    build the environment when missing; fresh data folder with N accounts, a provider and the PBX (untimed)
#   start      returns when ready
#   pids       every process
#   stop | add UUID | reload | status
set -euo pipefail
B=$(cd "$(dirname "$0")" && pwd); ROOT=$(dirname "$B")
R=${BENCH_RUN:-${TMPDIR:-/tmp}/trunk-bench}; mkdir -p "$R"
IP=${BENCH_IP:-127.0.0.1} N=${N:-100} EXPIRES=${EXPIRES:-3600}; PIDF=$R/trunkmgr.pid; LOG=$R/trunkmgr.log; PY=$ROOT/.venv/bin/python
# What differs from the shipped defaults: where it keeps its data, the loopback instead of every address, any free web port.
CHANGED=(TRUNKMGR_DATA_DIR=$R/trunkmgr TRUNKMGR_NODE=bench TRUNKMGR_HTTP=127.0.0.1:0
         TRUNKMGR_SIP_LISTEN=udp:$IP:5060,tcp:$IP:5060 UAC_REG_CONTACT_ADDR=$IP:5060)
unset "${!TRUNKMGR_@}" "${!UAC_@}" DATABASE_URL REDIS_URL
export "${CHANGED[@]}"
manage() { (cd "$ROOT" && "$PY" manage.py "$@" </dev/null); }

row() { echo "$1,$1,$IP,$1,$IP,bench,$1,secret,sip:$IP:5070,$EXPIRES,bench,anonymous,sip:$IP:5071"; }
header() { echo l_uuid,l_username,l_domain,r_username,r_domain,realm,auth_username,auth_password,auth_proxy,expires,provider,inbound_identity,outbound_proxy; }

tree() { local p; for p in "$@"; do echo "$p"; tree $(cat /proc/"$p"/task/*/children 2>/dev/null || true); done; }
pids() { local main; main=$(cat "$PIDF" 2>/dev/null) || return 0; [ -d /proc/"$main" ] || return 0; tree "$main" | tr '\n' ' '; echo; }

case "${1:-}" in
 prepare)
  make -s -C "$ROOT" .venv/.ready
  rm -rf "$R/trunkmgr"; mkdir -m 700 "$R/trunkmgr"
  manage migrate --noinput -v 0
  manage provider set bench --domain "$IP" --proxy "sip:$IP:5070" --address "$IP"
  manage domain set "$IP" --next-hop "sip:$IP:5080"
  { header; for ((i = 0; i < N; i++)); do row "$(printf 'acc%06d' $i)"; done; } > "$R/accounts.csv"
  manage uacreg import "$R/accounts.csv" > "$R/import.log" || { cat "$R/import.log"; exit 1; };;
 start)
  echo "changed settings: ${CHANGED[*]}"
  : > "$LOG"
  cd "$ROOT"; setsid "$PY" manage.py up >> "$LOG" 2>&1 < /dev/null & echo $! > "$PIDF"
  for ((i = 0; i < 600; i++)); do
    grep -q '^trunkmgr ready' "$LOG" && { pids; exit 0; }
    [ -d /proc/"$(cat "$PIDF")" ] || break
    sleep 0.05
  done
  cat "$LOG"; exit 1;;
 pids) pids;;
 stop)
  main=$(cat "$PIDF" 2>/dev/null || true); [ -n "$main" ] && [ -d /proc/"$main" ] || exit 0
  kill "$main"; for ((i = 0; i < 120; i++)); do [ -d /proc/"$main" ] || break; sleep 0.1; done
  [ ! -d /proc/"$main" ] || kill -9 $(pids);;
 add)
  { header; row "$2"; } > "$R/add.csv"
  manage uacreg import "$R/add.csv";;
 reload) echo "nothing to do: a changed row takes effect by itself";;
 status) manage status;;
 *) echo "usage: $0 prepare|start|pids|stop|add UUID|reload|status"; exit 2;;
esac
