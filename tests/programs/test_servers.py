"""Servers of Debian on the sandbox's own loopback, under load: what clients get is checked."""

from __future__ import annotations

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(900)

# Waits until a command succeeds, but not for ever.
UNTIL = 'until_() { for i in $(seq 200); do "$@" > /dev/null 2>&1 && return; sleep 0.1; done; echo "never: $*"; exit 1; }\n'


def test_redis(pilot: Pilot) -> None:
    """Commands, pipelines of many clients, a snapshot by fork, and what a restart finds in the log."""
    script = """
        start() { redis-server --port 7001 --save '' --appendonly yes --dir $PWD > log 2>&1 & pid=$!; until_ redis-cli -p 7001 ping; }
        start; redis-cli -p 7001 set k v; redis-cli -p 7001 incrby n 41; redis-cli -p 7001 incr n
        redis-benchmark -p 7001 -n 5000 -c 20 -P 4 -t set,get,lpush -q --csv > report
        cut -d, -f1 report | tr -d '"' | sort | tr '\\n' ' '; echo; tail -n +2 report | awk -F'"' '{ if ($4 + 0 <= 0) print "slow", $0 }'
        redis-cli -p 7001 bgsave > /dev/null; until_ test -s dump.rdb; redis-check-rdb dump.rdb | grep -c 'RDB looks OK'
        redis-cli -p 7001 subscribe news > heard & until_ grep -q subscribe heard; redis-cli -p 7001 publish news hello; until_ grep -q hello heard
        kill %2; redis-cli -p 7001 shutdown nosave || true; wait $pid && echo ended
        start; redis-cli -p 7001 get k; redis-cli -p 7001 get n; redis-cli -p 7001 shutdown nosave || true; wait $pid
    """
    out = pilot.script(UNTIL + script, timeout=250)
    assert out.splitlines() == ["OK", "41", "42", "GET LPUSH SET test ", "1", "1", "ended", "v", "42"]


NGINX = """
daemon off; user root; worker_processes 2; pid /tmp/work/pid; error_log /tmp/work/errors;
events { worker_connections 256; }
http {
    access_log off; sendfile on;
    client_body_temp_path /tmp/work/b; proxy_temp_path /tmp/work/p; fastcgi_temp_path /tmp/work/f; uwsgi_temp_path /tmp/work/u; scgi_temp_path /tmp/work/s;
    server {
        listen 127.0.0.1:7080; listen [::1]:7080; root /tmp/work/www;
        location /echo { return 200 "$request_method $arg_q\\n"; }
        location /back/ { proxy_pass http://127.0.0.1:7080/; }
    }
}
"""


def test_nginx_under_wrk(pilot: Pilot) -> None:
    """Files by sendfile, ranges, a proxy, both families, load from wrk, a reload, an orderly end."""
    script = """
        cat > nginx.conf; mkdir www; head -c 1000000 /dev/zero | tr '\\0' x > www/big; echo hello > www/index.html
        nginx -c $PWD/nginx.conf -p $PWD & pid=$!; at=http://127.0.0.1:7080
        until_ curl -sf $at/; curl -s $at/; curl -s "$at/echo?q=5"; curl -s $at/big | cmp - www/big && echo whole; curl -s -r 10-19 $at/big; echo
        curl -s -o /dev/null -w '%{http_code}\\n' $at/none; curl -s 'http://[::1]:7080/back/index.html'
        wrk -t2 -c32 -d2s $at/ > report; awk '/requests in/ { print ($1 > 100) }' report; grep -i 'socket errors\\|Non-2xx' report || echo no errors
        kill -HUP $pid; until_ curl -sf $at/; curl -s $at/; kill -QUIT $pid; wait $pid && echo ended
    """
    out = pilot.script(UNTIL + script, stdin=NGINX.encode(), timeout=200)
    assert out.splitlines() == ["hello", "GET 5", "whole", "x" * 10, "404", "hello", "1", "no errors", "hello", "ended"]


def test_openssl_and_curl(pilot: Pilot) -> None:
    """A TLS server and clients that trust it or not; ciphers, digests, several processes at a time."""
    script = """
        openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=localhost 2> /dev/null
        openssl s_server -accept 7443 -key key -cert cert -www -quiet & pid=$!
        until_ curl -sk https://127.0.0.1:7443/; trusted='curl -s --cacert cert --resolve localhost:7443:127.0.0.1'
        $trusted https://localhost:7443/ | grep -o TLSv1.3 | head -1; $trusted --tlsv1.2 --tls-max 1.2 https://localhost:7443/ | grep -o TLSv1.2 | head -1
        curl -s https://127.0.0.1:7443/ || echo "refused with $?"; kill $pid
        openssl speed -seconds 1 -bytes 1024 sha256 2> /dev/null | awk '/^sha256/ { print ($2 + 0 > 0) }'
        openssl speed -multi 2 -seconds 1 -bytes 64 md5 2> /dev/null | awk '/^md5/ { print ($2 + 0 > 0) }'
        echo secret | openssl enc -aes-256-cbc -pbkdf2 -k pass | openssl enc -d -aes-256-cbc -pbkdf2 -k pass
    """
    out = pilot.script(UNTIL + script, timeout=200)
    assert out.splitlines() == ["TLSv1.3", "TLSv1.2", "refused with 60", "1", "1", "secret"]


def test_sshd_with_its_own_configuration(pilot: Pilot) -> None:
    """Debian's sshd as it comes, PAM included: users of the host have no password inside, keys let them in; a terminal, a tunnel, copies."""
    script = """
        ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -q -t ed25519 -N '' -f host; mkdir -p /run/sshd ~root/.ssh; cp key.pub ~root/.ssh/authorized_keys
        chmod 700 ~root ~root/.ssh; /usr/sbin/sshd -p 2222 -h $PWD/host -E log -o PidFile=$PWD/pid
        options='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i key'
        until_ ssh -p 2222 $options 127.0.0.1 true
        ssh -p 2222 $options 127.0.0.1 'echo over ssh; exit 3' || echo "ended with $?"
        ssh -tt -p 2222 $options 127.0.0.1 'test -t 0 && stty size | wc -w' < /dev/null | tr -d '\\r'
        head -c 300000 /dev/urandom > sent; scp -q -P 2222 $options sent 127.0.0.1:/tmp/work/received; cmp sent received && echo the same
        ssh -p 2222 $options -o PasswordAuthentication=yes -o PubkeyAuthentication=no -o BatchMode=yes 127.0.0.1 true || echo "refused with $?"
        kill $(cat pid)
    """
    out = pilot.script(UNTIL + script, timeout=200)
    assert out.splitlines() == ["over ssh", "ended with 3", "2", "the same", "refused with 255"]


def test_other_users(pilot: Pilot) -> None:
    out = pilot.script("""
        su nobody -s /bin/sh -c 'id -un'; stat -c '%a %U' /etc/shadow; getent shadow nobody | cut -d: -f2
        setpriv --reuid nobody --clear-groups cat /etc/shadow 2>&1 | grep -o 'Permission denied'
        useradd -m -d /tmp/work/home guest; su guest -c 'id -un; cd; pwd'; passwd -S guest | cut -d' ' -f2
    """)
    assert out.splitlines() == ["nobody", "600 root", "*", "Permission denied", "guest", "/tmp/work/home", "L"]


def test_interfaces_routes_and_echoes(pilot: Pilot) -> None:
    out = pilot.script("""
        ip -o addr | awk '{ print $2, $4 }'; ip route show table local | awk '{ print $1, $2 }'; ip -6 route | cut -d' ' -f1-3
        ip route get 127.0.0.5 | grep -o 'dev lo.*src 127.0.0.5'; ip route get 192.0.2.1 2>&1 | tail -1; ip rule | wc -l
        for host in 127.0.0.1 ::1; do ping -c 2 -i 0.01 -W 5 $host | grep -o '2 received'; done
        setpriv --reuid 1000 --regid 1000 --clear-groups ping -c 1 -W 5 localhost | grep -o '1 received'
        python3 -m http.server 7999 > log 2>&1 & for i in $(seq 100); do ss -tln | grep -q 7999 && break; sleep 0.1; done; ss -tlnH | awk '{ print $1, $4 }'
    """)
    assert out.splitlines() == [
        "lo 127.0.0.1/8", "lo ::1/128", "local 127.0.0.0/8", "local 127.0.0.1", "broadcast 127.255.255.255", "::1 dev lo",
        "dev lo table local src 127.0.0.5", "RTNETLINK answers: Network is unreachable", "3", "2 received", "2 received", "1 received",
        "LISTEN 0.0.0.0:7999",
    ]  # fmt: skip
