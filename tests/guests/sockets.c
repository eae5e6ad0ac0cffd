/* Prints what socket calls answer, for comparison with the host's own. Nothing that is printed may depend on time or numbers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Prints a call with its result. */
#define SHOW(call)                                                                                                                  \
    do {                                                                                                                            \
        errno = 0;                                                                                                                  \
        long result_ = (call);                                                                                                      \
        int errno_ = errno;                                                                                                         \
        printf("%s:%d %s = %ld %s\n", __func__, __LINE__, #call, result_, result_ < 0 ? strerrorname_np(errno_) : "");              \
        fflush(stdout);                                                                                                             \
    } while (0)

/* How often SIGPIPE came. */
static volatile int pipes;

static void on_pipe(int signal) {
    (void)signal;
    pipes++;
}

static void show_poll(const char *name, int fd) {
    struct pollfd entry = {fd, POLLIN | POLLOUT | POLLRDHUP | POLLPRI | POLLRDNORM | POLLWRNORM, 0};
    poll(&entry, 1, 0);
    printf("  poll %s %x\n", name, entry.revents);
}

static int option(int fd, int level, int name) {
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, name, &value, &length) < 0 ? -errno : value;
}

static char buf[1 << 20];

static void unix_streams(int type) {
    int s[2];
    SHOW(socketpair(AF_UNIX, type, 0, s));
    show_poll("fresh", s[0]);
    SHOW(send(s[0], "hello", 5, 0));
    SHOW(send(s[0], "world", 5, 0));
    int n;
    ioctl(s[1], FIONREAD, &n);
    printf("fionread %d\n", n);
    SHOW(recv(s[1], buf, 3, MSG_PEEK));
    SHOW(recv(s[1], buf, 3, MSG_TRUNC));
    SHOW(recv(s[1], buf, 100, 0));
    SHOW(recv(s[1], buf, 100, MSG_DONTWAIT));
    SHOW(send(s[0], "", 0, 0));
    SHOW(recv(s[1], buf, 10, MSG_DONTWAIT));
    SHOW(shutdown(s[0], SHUT_WR));
    show_poll("wr0", s[0]);
    show_poll("wr1", s[1]);
    SHOW(recv(s[1], buf, 10, 0));
    SHOW(send(s[0], "x", 1, 0));
    SHOW(send(s[1], "back", 4, 0));
    SHOW(recv(s[0], buf, 10, 0));
    SHOW(shutdown(s[1], SHUT_RD));
    show_poll("rd0", s[0]);
    show_poll("rd1", s[1]);
    SHOW(shutdown(s[0], SHUT_RD));
    show_poll("all0", s[0]);
    show_poll("all1", s[1]);
    SHOW(send(s[1], "x", 1, MSG_NOSIGNAL));
    close(s[0]);
    show_poll("closed", s[1]);
    SHOW(recv(s[1], buf, 1, 0));
    close(s[1]);
    SHOW(socketpair(AF_UNIX, type, 0, s));
    SHOW(send(s[0], "u", 1, 0));
    SHOW(send(s[1], "v", 1, 0));
    close(s[1]);
    show_poll("reset", s[0]);
    SHOW(send(s[0], "x", 1, 0));
    SHOW(recv(s[0], buf, 5, 0));
    SHOW(recv(s[0], buf, 5, 0));
    SHOW(recv(s[0], buf, 5, 0));
    show_poll("after", s[0]);
    close(s[0]);
    socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, s);
    int c = 0;
    long t = 0;
    while ((n = send(s[0], buf, 4096, 0)) > 0) {
        c++;
        t += n;
    }
    printf("full %s %d\n", strerrorname_np(errno), c > 10);
    show_poll("full", s[0]);
    close(s[0]);
    close(s[1]);
    int l = socket(AF_UNIX, type, 0);
    struct sockaddr_un a = {AF_UNIX, "/tmp/cf.sock"};
    unlink(a.sun_path);
    SHOW(listen(l, 5));
    show_poll("idle", l);
    SHOW(accept(l, 0, 0));
    SHOW(recv(l, buf, 1, 0));
    SHOW(send(l, "x", 1, MSG_NOSIGNAL));
    SHOW(bind(l, (void *)&a, sizeof a));
    struct stat st;
    stat(a.sun_path, &st);
    printf("mode %o\n", st.st_mode);
    int k = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);
    SHOW(connect(k, (void *)&a, sizeof a));
    SHOW(listen(l, 0));
    SHOW(connect(k, (void *)&a, sizeof a));
    int k2 = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);
    SHOW(connect(k2, (void *)&a, sizeof a));
    show_poll("lst", l);
    struct sockaddr_un b;
    socklen_t bl = sizeof b;
    int d;
    SHOW((d = accept(l, (void *)&b, &bl)) > 0);
    printf("acc len %d\n", bl);
    bl = sizeof b;
    SHOW(getsockname(d, (void *)&b, &bl));
    printf("%d %s\n", bl, b.sun_path);
    bl = sizeof b;
    SHOW(getpeername(k, (void *)&b, &bl));
    printf("%d %s\n", bl, b.sun_path);
    bl = sizeof b;
    SHOW(getpeername(d, (void *)&b, &bl));
    printf("%d\n", bl);
    bl = 4;
    SHOW(getsockname(d, (void *)&b, &bl));
    printf("%d\n", bl);
    SHOW(getpeername(l, (void *)&b, &bl));
    SHOW(connect(l, (void *)&a, sizeof a));
    printf("acceptconn %d %d\n", option(l, SOL_SOCKET, SO_ACCEPTCONN), option(d, SOL_SOCKET, SO_ACCEPTCONN));
    SHOW(connect(k2, (void *)&a, sizeof a));
    close(l);
    show_poll("never accepted", k2);
    SHOW(recv(k2, buf, 1, 0));
    SHOW(recv(k2, buf, 1, 0));
    int k3 = socket(AF_UNIX, type, 0);
    SHOW(connect(k3, (void *)&a, sizeof a));
    unlink(a.sun_path);
    SHOW(connect(k3, (void *)&a, sizeof a));
    SHOW(sendto(k, "x", 1, 0, (void *)&a, sizeof a));
    SHOW(sendto(k3, "x", 1, MSG_NOSIGNAL, (void *)&a, sizeof a));
    SHOW(shutdown(k3, SHUT_RD));
    SHOW(shutdown(k, 5));
    close(k);
    close(k2);
    close(k3);
    close(d);
    SHOW(open("/tmp/cf.sock", O_RDONLY));
}

static void unix_datagrams(void) {
    int s[2];
    SHOW(socketpair(AF_UNIX, SOCK_DGRAM, 0, s));
    show_poll("fresh", s[0]);
    SHOW(send(s[0], "", 0, 0));
    SHOW(send(s[0], "abc", 3, 0));
    SHOW(recv(s[1], buf, 9, 0));
    SHOW(recv(s[1], buf, 2, MSG_TRUNC));
    SHOW(recv(s[1], buf, 2, MSG_DONTWAIT));
    SHOW(send(s[0], buf, 300000, 0));
    SHOW(send(s[0], "unread", 6, 0));
    close(s[1]);
    show_poll("closed", s[0]);
    SHOW(send(s[0], "x", 1, 0));
    SHOW(send(s[0], "x", 1, 0));
    SHOW(recv(s[0], buf, 1, MSG_DONTWAIT));
    close(s[0]);
    int a = socket(AF_UNIX, SOCK_DGRAM, 0), b = socket(AF_UNIX, SOCK_DGRAM, 0);
    struct sockaddr_un n = {AF_UNIX, "\0cfa"};
    socklen_t nl = offsetof(struct sockaddr_un, sun_path) + 4;
    SHOW(bind(a, (void *)&n, nl));
    SHOW(sendto(b, "hi", 2, 0, (void *)&n, nl));
    struct sockaddr_un f;
    socklen_t fl = sizeof f;
    SHOW(recvfrom(a, buf, 9, 0, (void *)&f, &fl));
    printf("from %d\n", fl);
    SHOW(bind(b, (void *)&n, sizeof(sa_family_t)));
    fl = sizeof f;
    SHOW(getsockname(b, (void *)&f, &fl));
    printf("auto %d\n", fl);
    SHOW(sendto(b, "hi", 2, 0, (void *)&n, nl));
    fl = sizeof f;
    SHOW(recvfrom(a, buf, 9, 0, (void *)&f, &fl));
    printf("from %d %d\n", fl, f.sun_path[0]);
    SHOW(send(b, "x", 1, 0));
    SHOW(connect(b, (void *)&n, nl));
    SHOW(send(b, "x", 1, 0));
    SHOW(connect(a, (void *)&f, fl));
    int c = socket(AF_UNIX, SOCK_DGRAM, 0);
    SHOW(sendto(c, "x", 1, 0, (void *)&n, nl));
    SHOW(connect(c, (void *)&n, nl));
    struct sockaddr u = {AF_UNSPEC};
    SHOW(connect(a, &u, sizeof u));
    SHOW(send(a, "x", 1, 0));
    SHOW(listen(a, 1));
    SHOW(accept(a, 0, 0));
    int k = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW(connect(k, (void *)&n, nl));
    SHOW(shutdown(b, SHUT_RDWR));
    show_poll("shut", b);
    SHOW(send(b, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(b, buf, 1, 0));
    close(a);
    struct sockaddr_un m = {AF_UNIX, "/tmp/none.sock"};
    SHOW(sendto(c, "x", 1, 0, (void *)&m, sizeof m));
    m.sun_family = AF_INET;
    SHOW(sendto(c, "x", 1, 0, (void *)&m, sizeof m));
    SHOW(bind(c, (void *)&m, 2));
    SHOW(bind(c, (void *)&n, 200));
    strcpy(m.sun_path, "/nodir/x");
    m.sun_family = AF_UNIX;
    SHOW(bind(c, (void *)&m, sizeof m));
    strcpy(m.sun_path, "/tmp");
    SHOW(bind(c, (void *)&m, sizeof m));
    SHOW(connect(c, (void *)&m, sizeof m));
    close(b);
    close(c);
    close(k);
}

static void rights(void) {
    int s[2], p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    pipe(p);
    union {
        char b[CMSG_SPACE(3 * 4)];
        struct cmsghdr h;
    } u;
    struct iovec v = {"ab", 2};
    struct msghdr m = {0};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = u.b;
    m.msg_controllen = CMSG_SPACE(8);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(8);
    memcpy(CMSG_DATA(h), p, 8);
    SHOW(sendmsg(s[0], &m, 0));
    SHOW(send(s[0], "cd", 2, 0));
    SHOW(sendmsg(s[0], &m, 0));
    close(p[0]);
    close(p[1]);
    char q[100];
    struct iovec w = {q, 100};
    memset(&m, 0, sizeof m);
    m.msg_iov = &w;
    m.msg_iovlen = 1;
    m.msg_control = u.b;
    m.msg_controllen = sizeof u.b;
    SHOW(recvmsg(s[1], &m, MSG_CMSG_CLOEXEC));
    h = CMSG_FIRSTHDR(&m);
    printf("ctl %zu flags %x len %zu\n", m.msg_controllen, m.msg_flags, h ? h->cmsg_len : 0);
    int f[2];
    memcpy(f, CMSG_DATA(h), 8);
    printf("cloexec %d\n", fcntl(f[0], F_GETFD));
    write(f[1], "Z", 1);
    SHOW(read(f[0], q, 1));
    close(f[0]);
    close(f[1]);
    m.msg_controllen = CMSG_LEN(4);
    SHOW(recvmsg(s[1], &m, 0));
    h = CMSG_FIRSTHDR(&m);
    printf("ctl %zu flags %x len %zu\n", m.msg_controllen, m.msg_flags, h ? h->cmsg_len : 0);
    int one = 1;
    setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &one, 4);
    SHOW(send(s[0], "x", 1, 0));
    m.msg_controllen = sizeof u.b;
    SHOW(recvmsg(s[1], &m, 0));
    h = CMSG_FIRSTHDR(&m);
    printf("cred %zu %d len %zu\n", m.msg_controllen, h ? h->cmsg_type : -1, h ? h->cmsg_len : 0);
    struct ucred *c = (void *)CMSG_DATA(h);
    printf("%d %d %d\n", c->pid == getpid(), c->uid, c->gid);
    SHOW(send(s[0], "x", 1, 0));
    m.msg_control = 0;
    m.msg_controllen = 0;
    SHOW(recvmsg(s[1], &m, 0));
    printf("flags %x\n", m.msg_flags);
    m.msg_iov = &v;
    m.msg_control = u.b;
    m.msg_controllen = CMSG_SPACE(4);
    h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(4);
    int bad = 999;
    memcpy(CMSG_DATA(h), &bad, 4);
    SHOW(sendmsg(s[0], &m, 0));
    h->cmsg_type = 77;
    SHOW(sendmsg(s[0], &m, 0));
    h->cmsg_len = 3;
    SHOW(sendmsg(s[0], &m, 0));
    close(s[0]);
    close(s[1]);
}

static int listener(struct sockaddr_in *a, int bl) {
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

static void tcp(void) {
    struct sockaddr_in a;
    int l = listener(&a, 5);
    show_poll("lst", l);
    int c = socket(AF_INET, SOCK_STREAM, 0);
    show_poll("idle", c);
    SHOW(send(c, "x", 1, MSG_NOSIGNAL));
    SHOW(recv(c, buf, 1, 0));
    SHOW(connect(c, (void *)&a, sizeof a));
    SHOW(connect(c, (void *)&a, sizeof a));
    show_poll("lst+", l);
    struct sockaddr_in p;
    socklen_t pl = sizeof p;
    int d;
    SHOW((d = accept4(l, (void *)&p, &pl, SOCK_CLOEXEC)) > 0);
    printf("%d %s\n", pl, inet_ntoa(p.sin_addr));
    show_poll("con", c);
    SHOW(send(c, "hello", 5, 0));
    usleep(1000);
    SHOW(recv(d, buf, 2, MSG_PEEK));
    SHOW(recv(d, buf, 2, MSG_TRUNC));
    SHOW(recv(d, buf, 9, 0));
    SHOW(send(c, "", 0, 0));
    SHOW(recv(d, buf, 9, MSG_DONTWAIT));
    SHOW(recv(d, buf, 0, MSG_DONTWAIT));
    SHOW(shutdown(c, SHUT_WR));
    usleep(1000);
    show_poll("c", c);
    show_poll("d", d);
    SHOW(send(c, "x", 1, 0));
    SHOW(recv(d, buf, 1, 0));
    SHOW(send(d, "yo", 2, 0));
    usleep(1000);
    SHOW(recv(c, buf, 9, 0));
    close(d);
    usleep(1000);
    show_poll("closed", c);
    SHOW(recv(c, buf, 1, 0));
    SHOW(shutdown(c, SHUT_RDWR));
    SHOW(getpeername(c, (void *)&p, &pl));
    close(c);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    d = accept(l, 0, 0);
    close(d);
    usleep(1000);
    show_poll("peer closed", c);
    SHOW(send(c, "x", 1, 0));
    usleep(1000);
    show_poll("rst", c);
    SHOW(send(c, "x", 1, 0));
    SHOW(recv(c, buf, 1, 0));
    SHOW(option(c, SOL_SOCKET, SO_ERROR));
    close(c);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    d = accept(l, 0, 0);
    send(c, "unread", 6, 0);
    send(d, "data", 4, 0);
    usleep(1000);
    close(d);
    usleep(1000);
    show_poll("reset", c);
    SHOW(option(c, SOL_SOCKET, SO_ERROR));
    SHOW(recv(c, buf, 9, 0));
    SHOW(recv(c, buf, 9, 0));
    SHOW(send(c, "x", 1, 0));
    close(c);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect(c, (void *)&a, sizeof a);
    d = accept(l, 0, 0);
    struct linger lg = {1, 0};
    SHOW(setsockopt(d, SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    close(d);
    usleep(1000);
    show_poll("linger", c);
    SHOW(recv(c, buf, 9, 0));
    SHOW(recv(c, buf, 9, 0));
    SHOW(send(c, "x", 1, 0));
    close(c);
    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(c, (void *)&a, sizeof a));
    usleep(1000);
    show_poll("nb", c);
    SHOW(option(c, SOL_SOCKET, SO_ERROR));
    SHOW(connect(c, (void *)&a, sizeof a));
    SHOW(connect(c, (void *)&a, sizeof a));
    close(c);
    d = accept(l, 0, 0);
    usleep(1000);
    show_poll("d", d);
    close(d);
    SHOW(fcntl(l, F_SETFL, O_NONBLOCK));
    SHOW(accept(l, 0, 0));
    close(l);
    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SHOW(connect(c, (void *)&a, sizeof a));
    usleep(1000);
    show_poll("refused", c);
    SHOW(option(c, SOL_SOCKET, SO_ERROR));
    show_poll("refused2", c);
    close(c);
    c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(connect(c, (void *)&a, sizeof a));
    show_poll("refused3", c);
    SHOW(recv(c, buf, 1, 0));
    close(c);
    l = socket(AF_INET, SOCK_STREAM, 0);
    int k = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind(l, (void *)&a, sizeof a));
    SHOW(bind(k, (void *)&a, sizeof a));
    SHOW(listen(l, 1));
    int one = 1;
    SHOW(setsockopt(k, SOL_SOCKET, SO_REUSEADDR, &one, 4));
    SHOW(bind(k, (void *)&a, sizeof a));
    close(l);
    SHOW(bind(k, (void *)&a, sizeof a));
    SHOW(bind(k, (void *)&a, sizeof a));
    l = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, 4);
    SHOW(bind(l, (void *)&a, sizeof a));
    SHOW(listen(l, 1));
    SHOW(listen(k, 1));
    close(k);
    close(l);
    a.sin_addr.s_addr = inet_addr("10.9.8.7");
    k = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind(k, (void *)&a, sizeof a));
    SHOW(bind(k, (void *)&a, 8));
    a.sin_family = AF_INET6;
    SHOW(bind(k, (void *)&a, sizeof a));
    SHOW(connect(k, (void *)&a, sizeof a));
    a.sin_family = AF_UNSPEC;
    SHOW(connect(k, (void *)&a, sizeof a));
    SHOW(listen(k, 1));
    SHOW(shutdown(k, SHUT_RDWR));
    SHOW(accept(k, 0, 0));
    show_poll("shut lst", k);
    close(k);
    k = socket(AF_INET, SOCK_STREAM, 0);
    printf("opts %d %d %d %d %d %d %d\n", option(k, SOL_SOCKET, SO_TYPE), option(k, SOL_SOCKET, SO_DOMAIN), option(k, SOL_SOCKET, SO_PROTOCOL),
           option(k, IPPROTO_TCP, TCP_NODELAY), option(k, IPPROTO_TCP, TCP_KEEPIDLE),
           option(k, SOL_SOCKET, SO_KEEPALIVE), option(k, IPPROTO_IP, IP_TTL));
    printf("%d %d %d %d\n", option(k, IPPROTO_IP, IP_MTU), option(k, IPPROTO_IPV6, IPV6_V6ONLY), option(k, IPPROTO_TCP, 9999),
           option(k, 99, 1));
    int v = 1;
    SHOW(setsockopt(k, IPPROTO_TCP, TCP_NODELAY, &v, 4));
    SHOW(setsockopt(k, IPPROTO_TCP, TCP_NODELAY, &v, 2));
    SHOW(option(k, IPPROTO_TCP, TCP_NODELAY));
    v = 5000;
    SHOW(setsockopt(k, SOL_SOCKET, SO_SNDBUF, &v, 4));
    SHOW(option(k, SOL_SOCKET, SO_SNDBUF));
    v = 1;
    SHOW(setsockopt(k, SOL_SOCKET, SO_RCVBUF, &v, 4));
    SHOW(option(k, SOL_SOCKET, SO_RCVBUF));
    struct timeval tv = {1, 500000};
    SHOW(setsockopt(k, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    tv.tv_sec = 0;
    socklen_t tl = sizeof tv;
    SHOW(getsockopt(k, SOL_SOCKET, SO_RCVTIMEO, &tv, &tl));
    printf("%ld %ld\n", tv.tv_sec, tv.tv_usec);
    tv.tv_usec = 2000000;
    SHOW(setsockopt(k, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    struct tcp_info ti;
    tl = sizeof ti;
    SHOW(getsockopt(k, IPPROTO_TCP, TCP_INFO, &ti, &tl));
    printf("state %d\n", ti.tcpi_state);
    close(k);
    SHOW(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    SHOW(socket(AF_INET, SOCK_SEQPACKET, 0));
    SHOW(socket(AF_INET, 99, 0));
    SHOW(socket(200, SOCK_STREAM, 0));
    SHOW(socket(AF_UNIX, SOCK_STREAM, 5));
    SHOW(socket(AF_UNIX, 9, 0));
    int sv[2];
    SHOW(socketpair(AF_INET, SOCK_STREAM, 0, sv));
    SHOW(socket(AF_NETLINK, SOCK_STREAM, 0));
    SHOW(socket(AF_NETLINK, SOCK_RAW, 77));
    SHOW(listen(0, 1));
    SHOW(bind(55, 0, 0));
    SHOW(socket(AF_UNIX, SOCK_STREAM | 0x10000, 0));
}

static void ipv6(void) {
    int l = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 a = {.sin6_family = AF_INET6};
    socklen_t n = sizeof a;
    SHOW(bind(l, (void *)&a, sizeof a));
    SHOW(getsockname(l, (void *)&a, &n));
    listen(l, 3);
    int one = 1;
    SHOW(setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &one, 4));
    struct sockaddr_in b = {.sin_family = AF_INET, .sin_port = a.sin6_port};
    int c = socket(AF_INET, SOCK_STREAM, 0);
    SHOW(bind(c, (void *)&b, sizeof b));
    b.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    SHOW(connect(c, (void *)&b, sizeof b));
    struct sockaddr_in6 p;
    n = sizeof p;
    int d = accept(l, (void *)&p, &n);
    char t[99];
    printf("%d %s\n", n, inet_ntop(AF_INET6, &p.sin6_addr, t, 99));
    n = sizeof p;
    getsockname(d, (void *)&p, &n);
    printf("%s\n", inet_ntop(AF_INET6, &p.sin6_addr, t, 99));
    close(c);
    close(d);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(connect(c, (void *)&b, sizeof b));
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr);
    SHOW(connect(c, (void *)&a, sizeof a));
    n = sizeof p;
    getpeername(c, (void *)&p, &n);
    printf("%s\n", inet_ntop(AF_INET6, &p.sin6_addr, t, 99));
    close(c);
    c = socket(AF_INET6, SOCK_STREAM, 0);
    SHOW(setsockopt(c, IPPROTO_IPV6, IPV6_V6ONLY, &one, 4));
    SHOW(connect(c, (void *)&a, sizeof a));
    a.sin6_addr = in6addr_any;
    SHOW(connect(c, (void *)&a, sizeof a));
    n = sizeof p;
    getpeername(c, (void *)&p, &n);
    printf("%s\n", inet_ntop(AF_INET6, &p.sin6_addr, t, 99));
    close(c);
    close(l);
}

static void udp(void) {
    int u = socket(AF_INET, SOCK_DGRAM, 0), v = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    show_poll("fresh", u);
    SHOW(bind(u, (void *)&a, sizeof a));
    socklen_t n = sizeof a;
    getsockname(u, (void *)&a, &n);
    SHOW(send(v, "x", 1, 0));
    SHOW(sendto(v, "", 0, 0, (void *)&a, n));
    SHOW(recv(u, buf, 9, 0));
    SHOW(sendto(v, "abcdef", 6, 0, (void *)&a, n));
    usleep(1000);
    int q;
    ioctl(u, FIONREAD, &q);
    printf("%d\n", q);
    SHOW(recv(u, buf, 3, MSG_PEEK | MSG_TRUNC));
    struct sockaddr_in f;
    n = sizeof f;
    SHOW(recvfrom(u, buf, 3, 0, (void *)&f, &n));
    printf("%d %s\n", n, inet_ntoa(f.sin_addr));
    SHOW(recv(u, buf, 3, MSG_DONTWAIT));
    SHOW(sendto(v, buf, 70000, 0, (void *)&a, sizeof a));
    SHOW(recv(u, buf, 1, MSG_DONTWAIT | MSG_ERRQUEUE));
    SHOW(connect(v, (void *)&a, sizeof a));
    SHOW(send(v, "x", 1, 0));
    close(u);
    SHOW(send(v, "x", 1, 0));
    usleep(1000);
    show_poll("unreach", v);
    SHOW(recv(v, buf, 1, MSG_DONTWAIT));
    SHOW(recv(v, buf, 1, MSG_DONTWAIT));
    SHOW(send(v, "x", 1, 0));
    usleep(1000);
    SHOW(option(v, SOL_SOCKET, SO_ERROR));
    n = sizeof f;
    getsockname(v, (void *)&f, &n);
    printf("%s\n", inet_ntoa(f.sin_addr));
    struct sockaddr x = {AF_UNSPEC};
    SHOW(connect(v, &x, sizeof x));
    n = sizeof f;
    getsockname(v, (void *)&f, &n);
    printf("%s\n", inet_ntoa(f.sin_addr));
    SHOW(getpeername(v, (void *)&f, &n));
    SHOW(shutdown(v, SHUT_RD));
    a.sin_port = 0;
    SHOW(sendto(v, "x", 1, 0, (void *)&a, sizeof a));
    SHOW(listen(v, 1));
    SHOW(sendto(v, "x", 1, 0, (void *)&a, 3));
    a.sin_family = 77;
    SHOW(sendto(v, "x", 1, 0, (void *)&a, sizeof a));
    struct mmsghdr mm[3] = {0};
    struct iovec iv[3];
    int w = socket(AF_INET, SOCK_DGRAM, 0);
    a.sin_family = AF_INET;
    bind(w, (void *)&a, sizeof a);
    n = sizeof a;
    getsockname(w, (void *)&a, &n);
    for (int i = 0;i < 3;i++) {
        iv[i].iov_base="message";
        iv[i].iov_len = i+1;
        mm[i].msg_hdr.msg_iov = iv+i;
        mm[i].msg_hdr.msg_iovlen = 1;
        mm[i].msg_hdr.msg_name = &a;
        mm[i].msg_hdr.msg_namelen = n;
    }
    SHOW(sendmmsg(v, mm, 3, 0));
    printf("%d %d %d\n", mm[0].msg_len, mm[1].msg_len, mm[2].msg_len);
    char bb[4][10];
    struct mmsghdr m4[4] = {0};
    struct iovec i4[4];
    for (int i = 0;i < 4;i++) {
        i4[i].iov_base = bb[i];
        i4[i].iov_len = 10;
        m4[i].msg_hdr.msg_iov = i4+i;
        m4[i].msg_hdr.msg_iovlen = 1;
    }
    SHOW(recvmmsg(w, m4, 4, MSG_WAITFORONE, 0));
    printf("%d %d %d\n", m4[0].msg_len, m4[1].msg_len, m4[2].msg_len);
    SHOW(recvmmsg(w, m4, 4, MSG_DONTWAIT, 0));
    close(v);
    close(w);
}

static void on_alarm(int signal) {
}

static void waits(void) {
    int s[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    struct itimerval it = {{0, 0}, {0, 50000}};
    setitimer(ITIMER_REAL, &it, 0);
    SHOW(recv(s[0], buf, 1, 0));
    sa.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &sa, 0);
    struct timeval tv = {0, 300000};
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    setitimer(ITIMER_REAL, &it, 0);
    SHOW(recv(s[0], buf, 1, 0));
    SHOW(recv(s[0], buf, 1, 0));
    SHOW(read(s[0], buf, 1));
    if (!fork()) {
        usleep(30000);
        send(s[1], "ab", 2, 0);
        usleep(30000);
        send(s[1], "cd", 2, 0);
        _exit(0);
    }
    SHOW(recv(s[0], buf, 4, MSG_WAITALL));
    wait(0);
    if (!fork()) {
        usleep(30000);
        send(s[1], "ab", 2, 0);
        _exit(0);
    }
    SHOW(recv(s[0], buf, 4, MSG_WAITALL));
    wait(0);
    setsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    long t = 0, n;
    while ((n = send(s[0], buf, 65536, 0)) > 0) t += n;
    printf("sndtimeo %s\n", strerrorname_np(errno));
    if (!fork()) {
        close(s[1]);
        usleep(50000);
        _exit(0);
    }
    close(s[1]);
    tv.tv_usec = 0;
    setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    SHOW(recv(s[0], buf, 1, 0));
    wait(0);
    SHOW(write(s[0], "x", 1));
    struct iovec iv[2] = {{"a", 1}, {"b", 1}};
    SHOW(writev(s[0], iv, 2));
    close(s[0]);
    SHOW(lseek(socket(AF_UNIX, SOCK_STREAM, 0), 0, 0));
    int r = socket(AF_UNIX, SOCK_STREAM, 0);
    SHOW(pread(r, buf, 1, 0));
    SHOW(ftruncate(r, 0));
    SHOW(fsync(r));
    struct stat st;
    fstat(r, &st);
    printf("%o %ld\n", st.st_mode, (long)st.st_size);
    char ln[99] = {0}, pp[99];
    sprintf(pp, "/proc/self/fd/%d", r);
    readlink(pp, ln, 98);
    ln[8] = 0;
    printf("%s\n", ln);
    SHOW(open(pp, O_RDWR));
    printf("fl %x\n", fcntl(r, F_GETFL));
}

int main(void) {
    umask(022);
    signal(SIGPIPE, on_pipe);
    printf("== stream\n");
    unix_streams(SOCK_STREAM);
    printf("== seq\n");
    unix_streams(SOCK_SEQPACKET);
    printf("pipes %d\n", pipes);
    printf("== dgram\n");
    unix_datagrams();
    printf("pipes %d\n", pipes);
    rights();
    tcp();
    printf("pipes %d\n", pipes);
    ipv6();
    udp();
    waits();
    printf("pipes %d\n", pipes);
    return 0;
}
