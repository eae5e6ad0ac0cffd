/* Prints what connections answer: states, ends, resets, names, options. For comparison with the host's own answers: nothing that is
 * printed may depend on time or numbers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define SHOW(call)                                                                                                                 \
    do {                                                                                                                           \
        errno = 0;                                                                                                                 \
        long result_ = (long)(call);                                                                                               \
        int errno_ = errno;                                                                                                        \
        printf("%s:%d %s = %ld %s\n", __func__, __LINE__, #call, result_, result_ < 0 ? strerrorname_np(errno_) : "");             \
        fflush(stdout);                                                                                                            \
    } while (0)
#define VAL(value) printf("%s:%d %s = %lld\n", __func__, __LINE__, #value, (long long)(value))

/* Lets what was sent over the loopback arrive, and what comes back for it. */
static void settle(void) { usleep(20000); }

static char buf[1 << 20];
static int opt(int fd, int l, int n) {
    int v = -1;
    socklen_t s = 4;
    return getsockopt(fd, l, n, &v, &s) < 0 ? -errno : v;
}
static void pv(const char *n, int fd) {
    struct pollfd p = {fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM, 0};
    poll(&p, 1, 0);
    printf("  poll %s %x\n", n, p.revents);
}
static int lst(struct sockaddr_in *a, int bl) {
    int l = socket(AF_INET, SOCK_STREAM, 0);
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(l, (void *)a, sizeof *a);
    socklen_t n = sizeof *a;
    getsockname(l, (void *)a, &n);
    listen(l, bl);
    return l;
}
static int tstate(int s) {
    struct tcp_info i;
    socklen_t n = sizeof i;
    getsockopt(s, 6, TCP_INFO, &i, &n);
    return i.tcpi_state;
}
static void pairs(void) {
    struct sockaddr_in a;
    int l = lst(&a, 5);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    VAL(tstate(c));
    VAL(tstate(l));
    pv("new", c);
    SHOW(connect(c, (void *)&a, sizeof a));
    int s = accept(l, 0, 0);
    VAL(tstate(c));
    pv("c", c);
    pv("s", s);
    SHOW(connect(c, (void *)&a, sizeof a));
    SHOW(listen(c, 1));
    SHOW(bind(c, (void *)&a, sizeof a));
    SHOW(accept4(c, 0, 0, SOCK_NONBLOCK));
    VAL(opt(l, 1, SO_ACCEPTCONN));
    VAL(opt(c, 1, SO_ACCEPTCONN));
    SHOW(send(c, "x", 0, 0));
    SHOW(sendto(c, "hello", 5, 0, (void *)&a, sizeof a));
    SHOW(recv(s, buf, 2, MSG_PEEK));
    SHOW(recv(s, buf, 9, MSG_WAITALL | MSG_DONTWAIT));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(recv(s, buf, 0, MSG_DONTWAIT));
    send(c, "abcdef", 6, 0);
    SHOW(recv(s, 0, 3, MSG_TRUNC));
    SHOW(recv(s, buf, 9, MSG_PEEK | MSG_TRUNC));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(shutdown(c, SHUT_WR));
    settle();
    pv("s after shut", s);
    pv("c after shut", c);
    VAL(tstate(s));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(send(s, "back", 4, 0));
    settle();
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    SHOW(shutdown(s, SHUT_RDWR));
    settle();
    pv("s", s);
    pv("c", c);
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    SHOW(shutdown(c, SHUT_RD));
    SHOW(send(s, "x", 1, MSG_NOSIGNAL));
    socklen_t n = sizeof a;
    SHOW(getpeername(s, (void *)&a, &n));
    VAL(opt(s, 1, SO_ERROR));
    close(c);
    close(s);
    /* shut rd */ n = sizeof a;
    getsockname(l, (void *)&a, &n);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    s = accept(l, 0, 0);
    SHOW(shutdown(s, SHUT_RD));
    pv("s rd", s);
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(send(c, "late", 4, 0));
    settle();
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(send(s, "ok", 2, 0));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    /* rst by linger */ struct linger lg = {1, 0};
    setsockopt(s, 1, SO_LINGER, &lg, sizeof lg);
    send(s, "lost?", 5, 0);
    close(s);
    settle();
    pv("c rst", c);
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    VAL(opt(c, 1, SO_ERROR));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    pv("c rst2", c);
    VAL(tstate(c));
    close(c);
    /* rst by unread */ c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    s = accept(l, 0, 0);
    send(c, "unread", 6, 0);
    settle();
    close(s);
    settle();
    pv("c", c);
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    close(c);
    /* write to closed peer */ c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    s = accept(l, 0, 0);
    close(s);
    settle();
    pv("c", c);
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    settle();
    pv("c", c);
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    VAL(opt(c, 1, SO_ERROR));
    close(c);
    /* listener closed with pending */ int l2 = lst(&a, 5);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    close(l2);
    settle();
    pv("pending", c);
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    SHOW(connect(c, (void *)&a, sizeof a));
    close(c);
    /* refused */ c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(c, (void *)&a, sizeof a));
    settle();
    pv("refused", c);
    VAL(opt(c, 1, SO_ERROR));
    VAL(opt(c, 1, SO_ERROR));
    pv("refused", c);
    SHOW(connect(c, (void *)&a, sizeof a));
    SHOW(recv(c, buf, 1, MSG_DONTWAIT));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    close(c);
    c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(c, (void *)&a, sizeof a));
    SHOW(connect(c, (void *)&a, sizeof a));
    SHOW(recv(c, buf, 1, MSG_DONTWAIT));
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(shutdown(c, SHUT_WR));
    n = sizeof a;
    SHOW(getpeername(c, (void *)&a, &n));
    close(c);
    /* disconnect */ l2 = lst(&a, 5);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    s = accept(l2, 0, 0);
    struct sockaddr u = {AF_UNSPEC};
    SHOW(connect(c, &u, sizeof u));
    settle();
    SHOW(recv(s, buf, 1, MSG_DONTWAIT));
    SHOW(connect(c, (void *)&a, sizeof a));
    close(s);
    s = accept(l2, 0, 0);
    SHOW(send(c, "again", 5, 0));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(shutdown(l2, SHUT_RD));
    SHOW(accept(l2, 0, 0));
    pv("l", l2);
    SHOW(listen(l2, 5));
    pv("l", l2);
    close(c);
    close(s);
    close(l2);
    /* self connect */ c = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in b = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    bind(c, (void *)&b, sizeof b);
    n = sizeof b;
    getsockname(c, (void *)&b, &n);
    SHOW(connect(c, (void *)&b, sizeof b));
    SHOW(send(c, "me", 2, 0));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    VAL(tstate(c));
    SHOW(shutdown(c, SHUT_WR));
    SHOW(recv(c, buf, 9, MSG_DONTWAIT));
    close(c);
    /* binding */ int x = socket(AF_INET, SOCK_STREAM, 0), y = socket(AF_INET, SOCK_STREAM, 0);
    b.sin_port = 0;
    bind(x, (void *)&b, sizeof b);
    getsockname(x, (void *)&b, &n);
    SHOW(bind(y, (void *)&b, sizeof b));
    int one = 1;
    setsockopt(y, 1, SO_REUSEADDR, &one, 4);
    SHOW(bind(y, (void *)&b, sizeof b));
    setsockopt(x, 1, SO_REUSEADDR, &one, 4);
    SHOW(bind(y, (void *)&b, sizeof b));
    SHOW(listen(x, 1));
    SHOW(listen(y, 1));
    b.sin_addr.s_addr = 0x08080808;
    int z = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind(z, (void *)&b, sizeof b));
    SHOW(bind(z, (void *)&b, 5));
    b.sin_family = 99;
    SHOW(bind(z, (void *)&b, sizeof b));
    b.sin_family = 0;
    b.sin_addr.s_addr = 0;
    b.sin_port = 0;
    SHOW(bind(z, (void *)&b, sizeof b));
    SHOW(bind(z, (void *)&b, sizeof b));
    SHOW(listen(z, 1));
    /* sizes */ c = socket(AF_INET, SOCK_STREAM, 0);
    int v = 1;
    setsockopt(c, 1, SO_RCVBUF, &v, 4);
    VAL(opt(c, 1, SO_RCVBUF));
    setsockopt(c, 1, SO_SNDBUF, &v, 4);
    VAL(opt(c, 1, SO_SNDBUF));
    v = -1;
    SHOW(setsockopt(c, 1, SO_RCVBUF, &v, 4));
    SHOW(setsockopt(c, 1, SO_RCVBUF, &v, 3));
    SHOW(setsockopt(c, 6, TCP_NODELAY, &v, 3));
    SHOW(setsockopt(c, 6, TCP_NODELAY, 0, 4));
    SHOW(setsockopt(c, 1, SO_LINGER, &v, 4));
    v = 0;
    SHOW(setsockopt(c, 6, TCP_KEEPIDLE, &v, 4));
    v = 32768;
    SHOW(setsockopt(c, 6, TCP_KEEPIDLE, &v, 4));
    v = 128;
    SHOW(setsockopt(c, 6, TCP_KEEPCNT, &v, 4));
    v = 1000;
    SHOW(setsockopt(c, 6, TCP_USER_TIMEOUT, &v, 4));
    VAL(opt(c, 6, TCP_USER_TIMEOUT));
    v = -1;
    SHOW(setsockopt(c, 6, TCP_USER_TIMEOUT, &v, 4));
    v = 5;
    SHOW(setsockopt(c, 6, TCP_DEFER_ACCEPT, &v, 4));
    VAL(opt(c, 6, TCP_DEFER_ACCEPT));
    v = 10;
    SHOW(setsockopt(c, 6, TCP_WINDOW_CLAMP, &v, 4));
    v = 200;
    SHOW(setsockopt(c, 6, TCP_MAXSEG, &v, 4));
    VAL(opt(c, 6, TCP_MAXSEG));
    v = 10;
    SHOW(setsockopt(c, 6, TCP_MAXSEG, &v, 4));
    v = 300;
    SHOW(setsockopt(c, 6, TCP_SYNCNT, &v, 4));
    v = -5;
    SHOW(setsockopt(c, 6, TCP_LINGER2, &v, 4));
    VAL(opt(c, 6, TCP_LINGER2));
    v = 400;
    SHOW(setsockopt(c, 6, TCP_LINGER2, &v, 4));
    VAL(opt(c, 6, TCP_LINGER2));
    SHOW(setsockopt(c, 6, TCP_CONGESTION, "nonsense", 8));
    SHOW(setsockopt(c, 6, TCP_CONGESTION, "reno", 4));
    char cc[16] = {0};
    n = 16;
    SHOW(getsockopt(c, 6, TCP_CONGESTION, cc, &n));
    VAL(n);
    puts(cc);
    n = 3;
    SHOW(getsockopt(c, 6, TCP_CONGESTION, cc, &n));
    n = -1;
    SHOW(getsockopt(c, 6, TCP_NODELAY, &v, &n));
    n = 2;
    SHOW(getsockopt(c, 6, TCP_NODELAY, &v, &n));
    VAL(n);
    v = 1;
    SHOW(setsockopt(c, 6, TCP_CORK, &v, 4));
    VAL(opt(c, 6, TCP_CORK));
    VAL(opt(c, 6, TCP_QUICKACK));
    v = 0;
    SHOW(setsockopt(c, 6, TCP_QUICKACK, &v, 4));
    VAL(opt(c, 6, TCP_QUICKACK));
    v = 256;
    SHOW(setsockopt(c, 0, IP_TOS, &v, 4));
    VAL(opt(c, 0, IP_TOS));
    v = 256;
    SHOW(setsockopt(c, 0, IP_TTL, &v, 4));
    v = -1;
    SHOW(setsockopt(c, 0, IP_TTL, &v, 4));
    VAL(opt(c, 0, IP_TTL));
    v = 3;
    SHOW(setsockopt(c, 0, IP_MTU_DISCOVER, &v, 4));
    VAL(opt(c, 0, IP_MTU_DISCOVER));
    v = 9;
    SHOW(setsockopt(c, 0, IP_MTU_DISCOVER, &v, 4));
    struct timeval tv = {-1, 0};
    SHOW(setsockopt(c, 1, SO_RCVTIMEO, &tv, sizeof tv));
    tv.tv_usec = 1000000;
    SHOW(setsockopt(c, 1, SO_RCVTIMEO, &tv, sizeof tv));
    tv.tv_sec = 1;
    tv.tv_usec = 5;
    SHOW(setsockopt(c, 1, SO_RCVTIMEO, &tv, sizeof tv));
    n = sizeof tv;
    getsockopt(c, 1, SO_RCVTIMEO, &tv, &n);
    VAL(tv.tv_usec > 0);
    SHOW(setsockopt(c, 1, SO_RCVTIMEO, &tv, 4));
    SHOW(setsockopt(c, 1, SO_BINDTODEVICE, "lo", 3));
    n = 16;
    memset(cc, 0, 16);
    SHOW(getsockopt(c, 1, SO_BINDTODEVICE, cc, &n));
    VAL(n);
    puts(cc);
    SHOW(setsockopt(c, 1, SO_BINDTODEVICE, "nonesuch", 9));
    SHOW(setsockopt(c, 1, SO_DETACH_FILTER, &v, 4));
    SHOW(setsockopt(c, 99, 1, &v, 4));
    SHOW(setsockopt(c, 1, 9999, &v, 4));
    SHOW(ioctl(c, FIONREAD, &v));
    SHOW(ioctl(c, 0x1234, &v));
    SHOW(fcntl(c, F_GETFL));
    SHOW(setsockopt(c, 1, SO_PRIORITY, (v = 7, &v), 4));
    SHOW(setsockopt(c, 1, SO_RCVLOWAT, (v = 10, &v), 4));
    VAL(opt(c, 1, SO_RCVLOWAT));
    SHOW(setsockopt(c, 1, SO_SNDLOWAT, &v, 4));
    SHOW(setsockopt(c, 1, SO_KEEPALIVE, (v = 5, &v), 4));
    VAL(opt(c, 1, SO_KEEPALIVE));
    SHOW(setsockopt(c, 1, SO_TYPE, &v, 4));
    SHOW(setsockopt(c, 1, SO_ERROR, &v, 4));
    SHOW(setsockopt(c, 1, SO_ACCEPTCONN, &v, 4));
    SHOW(setsockopt(c, 1, SO_DOMAIN, &v, 4));
    SHOW(accept4(l, 0, 0, 99));
    SHOW(accept(99, 0, 0));
    SHOW(accept(0, 0, 0));
    SHOW(getsockname(l, 0, 0));
    n = -1;
    SHOW(getsockname(l, (void *)&b, &n));
    n = 3;
    SHOW(getsockname(l, (void *)&b, &n));
    VAL(n);
    SHOW(connect(l, (void *)&a, sizeof a));
    c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(c, (void *)&a, 3));
    SHOW(connect(c, (void *)1, 16));
    SHOW(shutdown(c, 5));
    SHOW(shutdown(c, 2));
    struct mmsghdr mm[2] = {0};
    SHOW(sendmmsg(c, mm, 2, MSG_NOSIGNAL));
    struct msghdr m = {0};
    m.msg_iovlen = 2000;
    SHOW(sendmsg(c, &m, MSG_NOSIGNAL));
    SHOW(sendmsg(c, (void *)1, 0));
    SHOW(sendto(c, (void *)1, 5, MSG_NOSIGNAL, 0, 0));
}
static void lowat(void) {
    struct sockaddr_in a;
    int l = lst(&a, 5), c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    int s = accept(l, 0, 0);
    int v = 5;
    setsockopt(s, 1, SO_RCVLOWAT, &v, 4);
    send(c, "abc", 3, 0);
    settle();
    pv("below", s);
    send(c, "de", 2, 0);
    settle();
    pv("enough", s);
    SHOW(recv(s, buf, 99, MSG_DONTWAIT));
    fcntl(c, F_SETFL, O_NONBLOCK);
    long t = 0, r;
    while ((r = send(c, buf, 65536, 0)) > 0)
        t += r;
    pv("full", c);
    long g = 0;
    while ((r = recv(s, buf, sizeof buf, MSG_DONTWAIT)) > 0) {
        g += r;
        settle();
    }
    VAL(g == t);
    pv("drained", c);
    VAL(opt(s, 1, SO_INCOMING_NAPI_ID));
}
static void backlog(void) {
    struct sockaddr_in a;
    int l = lst(&a, 1);
    int c[5], ok = 0;
    for (int i = 0; i < 5; i++) {
        c[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(c[i], (void *)&a, sizeof a);
    }
    settle();
    for (int i = 0; i < 5; i++) {
        struct pollfd p = {c[i], POLLOUT, 0};
        poll(&p, 1, 0);
        ok += !!(p.revents & POLLOUT);
    }
    VAL(ok);
}
static void unixs(void) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    pv("u", s[0]);
    SHOW(shutdown(s[0], SHUT_RD));
    pv("rd", s[0]);
    pv("peer", s[1]);
    SHOW(send(s[1], "x", 1, MSG_NOSIGNAL));
    SHOW(recv(s[0], buf, 1, MSG_DONTWAIT));
    SHOW(shutdown(s[0], 9));
    struct sockaddr_un u = {AF_UNIX};
    socklen_t n = sizeof u;
    SHOW(getsockname(s[0], (void *)&u, &n));
    VAL(n);
    n = sizeof u;
    SHOW(getpeername(s[0], (void *)&u, &n));
    VAL(n);
    int b = socket(AF_UNIX, SOCK_DGRAM, 0);
    SHOW(bind(b, (void *)&u, 2));
    n = sizeof u;
    getsockname(b, (void *)&u, &n);
    VAL(n);
    VAL(u.sun_path[0]);
    SHOW(bind(b, (void *)&u, 2));
    strcpy(u.sun_path + 1, "abstract-probe");
    int d = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW(bind(d, (void *)&u, 2 + 1 + 14));
    SHOW(bind(d, (void *)&u, 2 + 1 + 14));
    int e = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW(bind(e, (void *)&u, 2 + 1 + 14));
    SHOW(connect(e, (void *)&u, 2 + 1 + 14));
    listen(d, 1);
    SHOW(connect(e, (void *)&u, 2 + 1 + 13));
    SHOW(connect(e, (void *)&u, 2 + 1 + 14));
    SHOW(connect(e, (void *)&u, 2 + 1 + 14));
    int q = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    SHOW(connect(q, (void *)&u, 2 + 1 + 14));
    struct ucred uc;
    n = sizeof uc;
    SHOW(getsockopt(e, 1, SO_PEERCRED, &uc, &n));
    VAL(uc.pid == getpid());
    n = 4;
    SHOW(getsockopt(e, 1, SO_PEERCRED, &uc, &n));
    VAL(n);
    memset(u.sun_path, 'a', 108);
    SHOW(bind(b, (void *)&u, 111));
    SHOW(bind(b, (void *)&u, 110));
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    SHOW(send(s[0], buf, 300000, MSG_DONTWAIT));
    SHOW(send(s[0], "", 0, 0));
    SHOW(recv(s[1], buf, 9, MSG_DONTWAIT));
    int k = 0;
    while (send(s[0], "x", 1, MSG_DONTWAIT) == 1)
        k++;
    pv("full", s[0]);
    close(s[1]);
    SHOW(send(s[0], "x", 1, MSG_NOSIGNAL));
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s);
    send(s[0], "packet", 6, 0);
    SHOW(recv(s[1], buf, 3, MSG_PEEK | MSG_TRUNC));
    SHOW(recv(s[1], buf, 3, 0));
    SHOW(send(s[0], "", 0, 0));
    close(s[0]);
    SHOW(recv(s[1], buf, 3, 0));
    SHOW(recv(s[1], buf, 3, 0));
    SHOW(send(s[1], "x", 1, MSG_NOSIGNAL));
}
int main(void) {
    signal(SIGPIPE, SIG_IGN);
    pairs();
    lowat();
    backlog();
    unixs();
    return 0;
}
