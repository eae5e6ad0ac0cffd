"""Table: databases and servers under their own benchmarks, both ends in the same sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench import jobs
from bench.jobs import Job
from bench.report import Table

if TYPE_CHECKING:
    from bench.peers import Peer

POSTGRES = "/usr/lib/postgresql/15/bin"
"""Where Debian 12 has it."""
AS_POSTGRES = "setpriv --reuid=postgres --regid=postgres --clear-groups"
START_POSTGRES = (
    f"chown postgres .; {AS_POSTGRES} {POSTGRES}/initdb -D $PWD/data --no-sync -A trust > /dev/null; "
    f"{AS_POSTGRES} {POSTGRES}/pg_ctl -D $PWD/data -s -w -l $PWD/data/log "
    '-o "-k $PWD -c listen_addresses= -c fsync=off" start; '
    f"{AS_POSTGRES} pgbench -h $PWD -q -i -s 1 postgres"
)
STOP_POSTGRES = f"{AS_POSTGRES} {POSTGRES}/pg_ctl -D $PWD/data -s -m immediate stop"
START_REDIS = (
    "redis-server --port 0 --unixsocket $PWD/s --save '' --daemonize yes --dir $PWD > /dev/null; while [ ! -S s ]; do sleep 0.05; done"
)
STOP_REDIS = "redis-cli -s $PWD/s shutdown nosave"
START_NGINX = (
    "mkdir logs; head -c 1000 /dev/zero | tr '\\\\0' x > index.html; chmod 755 . ; "
    'echo "user root; worker_processes 1; pid $PWD/pid; error_log $PWD/log; events {} http { access_log off; client_body_temp_path $PWD/b; '
    "proxy_temp_path $PWD/p; fastcgi_temp_path $PWD/f; uwsgi_temp_path $PWD/u; scgi_temp_path $PWD/g; "
    'server { listen 127.0.0.1:18080; root $PWD; } }" > conf; '
    "nginx -c $PWD/conf -e $PWD/log; "
    "for i in $(seq 100); do (: > /dev/tcp/127.0.0.1/18080) 2> /dev/null && break; sleep 0.05; done"
)
STOP_NGINX = "nginx -c $PWD/conf -e $PWD/log -s stop"
SQLITE = (
    "python3 -c 'import sqlite3\n"
    'c = sqlite3.connect("a.db"); c.execute("create table t(x)")\n'
    'for i in range(1000): c.execute("insert into t values(?)", (i,)); c.commit()\''
)


def pgbench(options: str) -> Job:
    """A run of pgbench against a server of its own."""
    return Job(f"{POSTGRES}/postgres", START_POSTGRES, f"{AS_POSTGRES} pgbench -h $PWD -n {options} postgres > /dev/null", STOP_POSTGRES)


def redis(test: str) -> Job:
    """A run of redis-benchmark against a server of its own."""
    return Job("redis-benchmark", START_REDIS, f"redis-benchmark -s $PWD/s -t {test} -n 20000 -q > /dev/null", STOP_REDIS)


JOBS = {
    "sqlite3: 1,000 transactions": Job("python3", "", SQLITE),
    "pgbench: 5,000 selects, one client": pgbench("-S -t 5000"),
    "pgbench: 1,000 TPC-B transactions, two clients": pgbench("-c 2 -t 500"),
    "redis-benchmark: 20,000 SETs": redis("set"),
    "redis-benchmark: 20,000 GETs": redis("get"),
    "nginx and wrk: 10,000 requests": Job(
        "wrk",
        START_NGINX,
        "wrk -t 1 -c 10 -d 2s http://127.0.0.1:18080/index.html | awk '/^Requests.sec/ { print $2 }'",
        STOP_NGINX,
        rate=10_000,
    ),
}


def measure(peers: list[Peer]) -> Table:
    """Rounds in which everybody takes turns."""
    there = {label: job for label, job in JOBS.items() if not job.program.startswith("/") or Path(job.program).exists()}
    rows, notes = jobs.rows(peers, there)
    notes += [f"left out, as `{JOBS[label].program}` is not installed: {label}" for label in JOBS if label not in there]
    return Table(f"Databases and servers, medians of {jobs.ROUNDS} rounds, in memory everywhere", rows, notes)
