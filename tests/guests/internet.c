/* Sockets of the internet's protocols on the loopback interface: order of checks, shutting down, peeking, waiting, ports, families, what ioctls and
 * control data tell. */
#include "case.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <linux/sockios.h>

static int set(int s, int level, int name, int value) { return setsockopt(s, level, name, &value, sizeof value); }
static long get(int s, int level, int name) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(s, level, name, &value, &length) < 0 ? -errno : value;
}
static char buf[70000];
static long first(int s, int count, int flags) {
    memset(buf, 0, 16);
    ssize_t got = recv(s, buf, (size_t)count, flags | MSG_DONTWAIT);
    return got < 0 ? -errno : got * 1000 + buf[0];
}
static void settle(void) { usleep(20000); }
static struct sockaddr_in v4(uint32_t ip, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(ip)}};
    return a;
}
static struct sockaddr_in6 v6(const char *ip, int port) {
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
    inet_pton(AF_INET6, ip, &a.sin6_addr);
    return a;
}
static int port(int s) {
    struct sockaddr_in6 a;
    socklen_t n = sizeof a;
    getsockname(s, (void *)&a, &n);
    return ntohs(a.sin6_port);
}
/* Two ends of a connection. */
static void connected(int p[2]) {
    int l = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = v4(INADDR_LOOPBACK, 0);
    socklen_t n = sizeof a;
    bind(l, (void *)&a, n);
    listen(l, 1);
    getsockname(l, (void *)&a, &n);
    p[0] = socket(AF_INET, SOCK_STREAM, 0);
    connect(p[0], (void *)&a, n);
    p[1] = accept(l, NULL, NULL);
    close(l);
}
static int events(int s) {
    struct pollfd p = {s, POLLIN | POLLOUT | POLLPRI | POLLRDHUP, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void making(void) {
    ERR("kind", socket(AF_INET, 99, 0), EINVAL);
    ERR("flags", socket(AF_INET, SOCK_STREAM | 0x100, 0), EINVAL);
    ERR("family", socket(77, SOCK_STREAM, 0), EAFNOSUPPORT);
    ERR("negative family", socket(-1, SOCK_STREAM, 0), EAFNOSUPPORT);
    ERR("stream of datagrams", socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
    ERR("packets in sequence", socket(AF_INET, SOCK_SEQPACKET, 0), ESOCKTNOSUPPORT);
    ERR("reliable", socket(AF_INET, SOCK_RDM, 0), ESOCKTNOSUPPORT);
    ERR("raw of nothing", socket(AF_INET, SOCK_RAW, 0), EPROTONOSUPPORT);
    ERR("protocol too high", socket(AF_INET, SOCK_STREAM, 300), EINVAL);
    ERR("negative protocol", socket(AF_INET, SOCK_STREAM, -1), EINVAL);
    ERR("no socket", listen(0, 1), ENOTSOCK);
    ERR("no descriptor", listen(-1, 1), EBADF);
    int d = open("/", O_PATH);
    ERR("path only", listen(d, 1), EBADF);
    close(d);
}

static void binding(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = v4(INADDR_LOOPBACK, 0);
    ERR("short", bind(s, (void *)&a, sizeof a - 1), EINVAL);
    ERR("negative", bind(s, (void *)&a, (socklen_t)-1), EINVAL);
    ERR("nowhere", bind(s, (void *)8, sizeof a), EFAULT);
    a.sin_family = AF_INET6;
    ERR("family", bind(s, (void *)&a, sizeof a), EAFNOSUPPORT);
    a.sin_family = AF_UNSPEC;
    ERR("no family", bind(s, (void *)&a, sizeof a), EAFNOSUPPORT);
    a = v4(0x08080808, 0);
    ERR("not ours", bind(s, (void *)&a, sizeof a), EADDRNOTAVAIL);
    a = v4(0x7f010203, 0);
    OK("all of the loopback network", bind(s, (void *)&a, sizeof a));
    ERR("twice", bind(s, (void *)&a, sizeof a), EINVAL);
    a = v4(0x7f010203, port(s));
    ERR("taken", bind(t, (void *)&a, sizeof a), EADDRINUSE);
    a = v4(INADDR_ANY, port(s));
    ERR("by all", bind(t, (void *)&a, sizeof a), EADDRINUSE);
    a = v4(0x7f010204, port(s));
    OK("another address", bind(t, (void *)&a, sizeof a));
    close(t);
    t = socket(AF_INET, SOCK_STREAM, 0);
    set(t, SOL_SOCKET, SO_REUSEADDR, 1);
    a = v4(0x7f010203, port(s));
    ERR("one reuses", bind(t, (void *)&a, sizeof a), EADDRINUSE);
    set(s, SOL_SOCKET, SO_REUSEADDR, 1);
    OK("both reuse", bind(t, (void *)&a, sizeof a));
    OK("listen", listen(s, 1));
    ERR("but one listens", listen(t, 1), EADDRINUSE);
    close(s), close(t);
    s = socket(AF_INET, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0);
    set(s, SOL_SOCKET, SO_REUSEPORT, 1);
    a = v4(INADDR_LOOPBACK, 0);
    bind(s, (void *)&a, sizeof a);
    a = v4(INADDR_LOOPBACK, port(s));
    ERR("one shares", bind(t, (void *)&a, sizeof a), EADDRINUSE);
    set(t, SOL_SOCKET, SO_REUSEPORT, 1);
    OK("both share", bind(t, (void *)&a, sizeof a));
    OK("listen together", listen(s, 1) + listen(t, 1));
    close(s), close(t);
    s = socket(AF_INET, SOCK_STREAM, 0);
    OK("listen unbound", listen(s, 1));
    YES("has a port", port(s) > 0);
    close(s);
    s = socket(AF_INET6, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in6 b = v6("::", 0);
    ERR("short six", bind(s, (void *)&b, 23), EINVAL);
    OK("any", bind(s, (void *)&b, sizeof b));
    a = v4(INADDR_ANY, port(s));
    ERR("both families", bind(t, (void *)&a, sizeof a), EADDRINUSE);
    close(s);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    set(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    OK("only six", bind(s, (void *)&b, sizeof b));
    a = v4(INADDR_ANY, port(s));
    OK("beside four", bind(t, (void *)&a, sizeof a));
    close(s), close(t);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    b = v6("::ffff:127.0.0.1", 0);
    OK("mapped", bind(s, (void *)&b, sizeof b));
    close(s);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    set(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    ERR("mapped of six only", bind(s, (void *)&b, sizeof b), EINVAL);
    b = v6("2001:db8::1", 0);
    ERR("not ours, six", bind(s, (void *)&b, sizeof b), EADDRNOTAVAIL);
    b = v6("fe80::1", 0);
    ERR("link without a link", bind(s, (void *)&b, sizeof b), EINVAL);
    close(s);
    s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0);
    a = v4(INADDR_LOOPBACK, 0);
    bind(s, (void *)&a, sizeof a);
    a = v4(INADDR_LOOPBACK, port(s));
    ERR("datagrams taken", bind(t, (void *)&a, sizeof a), EADDRINUSE);
    close(s), close(t);
}

static void connecting(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), l = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = v4(INADDR_LOOPBACK, 0);
    ERR("too short for a family", connect(s, (void *)&a, 1), EINVAL);
    ERR("short", connect(s, (void *)&a, sizeof a - 1), EINVAL);
    a.sin_family = AF_INET6;
    ERR("family", connect(s, (void *)&a, sizeof a), EAFNOSUPPORT);
    a.sin_family = AF_UNSPEC;
    OK("unspecified", connect(s, (void *)&a, sizeof a));
    a = v4(INADDR_LOOPBACK, 1);
    ERR("nobody", connect(s, (void *)&a, sizeof a), ECONNREFUSED);
    EQ("no error is left", get(s, SOL_SOCKET, SO_ERROR), 0);
    a = v4(0xe0000001, 1);
    ERR("a group", connect(s, (void *)&a, sizeof a), ENETUNREACH);
    a = v4(INADDR_LOOPBACK, 0);
    bind(l, (void *)&a, sizeof a);
    ERR("bound, not listening", ({ a = v4(INADDR_LOOPBACK, port(l)); connect(s, (void *)&a, sizeof a); }), ECONNREFUSED);
    listen(l, 3);
    OK("any is here", ({ a = v4(INADDR_ANY, port(l)); connect(s, (void *)&a, sizeof a); }));
    struct sockaddr_in b;
    socklen_t n = sizeof b;
    getpeername(s, (void *)&b, &n);
    EQ("the loopback address", ntohl(b.sin_addr.s_addr), INADDR_LOOPBACK);
    n = 4;
    OK("name in little room", getpeername(s, (void *)&b, &n));
    EQ("whole length", n, sizeof b);
    n = (socklen_t)-1;
    ERR("negative room", getsockname(s, (void *)&b, &n), EINVAL);
    ERR("connected", connect(s, (void *)&a, sizeof a), EISCONN);
    ERR("listens to a connection", listen(s, 1), EINVAL);
    ERR("accepts from a connection", accept(s, NULL, NULL), EINVAL);
    ERR("bad flags", accept4(l, NULL, NULL, 1), EINVAL);
    ERR("a listener connects", connect(l, (void *)&a, sizeof a), EISCONN);
    ERR("a listener sends", send(l, "x", 1, MSG_NOSIGNAL), EPIPE);
    EQ("a listener receives", first(l, 1, 0), -ENOTCONN);
    n = sizeof b;
    ERR("a listener's peer", getpeername(l, (void *)&b, &n), ENOTCONN);
    int c = accept(l, (void *)&b, &n);
    EQ("accepted", ntohs(b.sin_port), port(s));
    /* Dissolved by AF_UNSPEC: the other end is reset. */
    a.sin_family = AF_UNSPEC;
    OK("dissolved", connect(s, (void *)&a, sizeof a));
    settle();
    EQ("reset", first(c, 1, 0), -ECONNRESET);
    ERR("has no peer", getpeername(s, (void *)&b, &n), ENOTCONN);
    a = v4(INADDR_LOOPBACK, port(l));
    OK("connects again", connect(s, (void *)&a, sizeof a));
    close(c);
    c = accept(l, NULL, NULL);
    close(c), close(s), close(l);
    /* Without waiting. */
    l = socket(AF_INET, SOCK_STREAM, 0);
    listen(l, 5);
    s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    a = v4(INADDR_LOOPBACK, port(l));
    ERR("under way", connect(s, (void *)&a, sizeof a), EINPROGRESS);
    settle();
    OK("done", connect(s, (void *)&a, sizeof a));
    ERR("done before", connect(s, (void *)&a, sizeof a), EISCONN);
    close(s);
    s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    a = v4(INADDR_LOOPBACK, 1);
    ERR("under way to nobody", connect(s, (void *)&a, sizeof a), EINPROGRESS);
    settle();
    EQ("events", events(s), POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDHUP);
    EQ("error", get(s, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    EQ("once", get(s, SOL_SOCKET, SO_ERROR), 0);
    close(s), close(l);
}

static void ends(void) {
    int p[2];
    signal(SIGPIPE, SIG_IGN);
    connected(p);
    EQ("open", events(p[0]), POLLOUT);
    OK("writes end", shutdown(p[0], SHUT_WR));
    settle();
    EQ("half open", events(p[0]), POLLOUT);
    EQ("other half", events(p[1]), POLLIN | POLLOUT | POLLRDHUP);
    EQ("the end", first(p[1], 1, 0), 0);
    ERR("no more", send(p[0], "x", 1, 0), EPIPE);
    OK("the other way", send(p[1], "abc", 3, 0));
    settle();
    EQ("arrives", first(p[0], 2, 0), 2000 + 'a');
    OK("again", shutdown(p[0], SHUT_WR));
    OK("both end", shutdown(p[1], SHUT_WR));
    settle();
    EQ("closed", events(p[1]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    EQ("with rest", events(p[0]), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    EQ("the rest", first(p[0], 9, 0), 1000 + 'c');
    EQ("then the end", first(p[0], 9, 0), 0);
    ERR("over", shutdown(p[1], SHUT_RDWR), ENOTCONN);
    close(p[0]), close(p[1]);
    connected(p);
    OK("reads end", shutdown(p[0], SHUT_RD));
    EQ("readable", events(p[0]), POLLIN | POLLOUT | POLLRDHUP);
    EQ("as the end", first(p[0], 1, 0), 0);
    OK("but bytes come", send(p[1], "x", 1, 0));
    settle();
    EQ("and are read", first(p[0], 1, 0), 1000 + 'x');
    close(p[0]), close(p[1]);
    /* Lingering for no time resets. */
    connected(p);
    struct linger none = {1, 0};
    setsockopt(p[0], SOL_SOCKET, SO_LINGER, &none, sizeof none);
    send(p[0], "lost", 4, 0);
    close(p[0]);
    settle();
    EQ("reset", events(p[1]), POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP);
    EQ("is an error", get(p[1], SOL_SOCKET, SO_ERROR), ECONNRESET);
    EQ("what came before", first(p[1], 9, 0), 4000 + 'l');
    EQ("then the end", first(p[1], 9, 0), 0);
    ERR("and no writing", send(p[1], "x", 1, 0), EPIPE);
    close(p[1]);
    /* Closing with bytes unread resets. */
    connected(p);
    send(p[1], "unread", 6, 0);
    settle();
    close(p[0]);
    settle();
    EQ("unread", first(p[1], 1, 0), -ECONNRESET);
    close(p[1]);
    connected(p);
    close(p[0]);
    settle();
    EQ("closed peer", first(p[1], 1, 0), 0);
    OK("first write", send(p[1], "x", 1, 0));
    settle();
    ERR("second write", send(p[1], "x", 1, 0), EPIPE);
    close(p[1]);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    ERR("fresh", shutdown(s, SHUT_RDWR), ENOTCONN);
    EQ("fresh events", events(s), POLLIN | POLLOUT | POLLRDHUP | POLLHUP);
    ERR("fresh send", send(s, "x", 1, 0), EPIPE);
    EQ("fresh receive", first(s, 1, 0), 0);
    ERR("no way", shutdown(s, 3), EINVAL);
    close(s);
    s = socket(AF_INET, SOCK_STREAM, 0);
    listen(s, 1);
    EQ("listener", events(s), 0);
    OK("listener stops", shutdown(s, SHUT_RD));
    EQ("as fresh", events(s), POLLOUT | POLLHUP);
    ERR("accepts no more", accept(s, NULL, NULL), EINVAL);
    OK("but again", listen(s, 1));
    close(s);
}

static void bytes(void) {
    int p[2];
    connected(p);
    send(p[0], "abcdef", 6, 0);
    settle();
    int n = 0;
    OK("waiting", ioctl(p[1], FIONREAD, &n));
    EQ("six", n, 6);
    OK("unsent", ioctl(p[0], SIOCOUTQ, &n));
    EQ("none", n, 0);
    OK("unsent yet", ioctl(p[0], SIOCOUTQNSD, &n));
    EQ("none either", n, 0);
    EQ("peek", first(p[1], 3, MSG_PEEK), 3000 + 'a');
    EQ("peek with lengths", recv(p[1], NULL, 100, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT), 6);
    OK("offset", set(p[1], SOL_SOCKET, SO_PEEK_OFF, 2));
    EQ("peek further", first(p[1], 2, MSG_PEEK), 2000 + 'c');
    EQ("and on", first(p[1], 9, MSG_PEEK), 2000 + 'e');
    EQ("thrown away", recv(p[1], NULL, 2, MSG_TRUNC), 2);
    EQ("next", first(p[1], 1, 0), 1000 + 'c');
    set(p[1], SOL_SOCKET, SO_PEEK_OFF, -1);
    EQ("waitall and peek", recv(p[1], buf, 3, MSG_PEEK | MSG_WAITALL), 3);
    /* TCP_INQ. */
    OK("tell what is left", set(p[1], IPPROTO_TCP, TCP_INQ, 1));
    char control[64];
    struct iovec v = {buf, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    EQ("one", recvmsg(p[1], &m, 0), 1);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    EQ("control", c ? c->cmsg_type : -1, TCP_CM_INQ);
    EQ("two left", c ? *(int *)CMSG_DATA(c) : -1, 2);
    set(p[1], IPPROTO_TCP, TCP_INQ, 0);
    first(p[1], 9, 0);
    /* SO_RCVLOWAT. */
    OK("low mark", set(p[1], SOL_SOCKET, SO_RCVLOWAT, 4));
    send(p[0], "123", 3, 0);
    settle();
    EQ("not enough", events(p[1]), POLLOUT);
    EQ("is there", first(p[1], 1, MSG_PEEK), 1000 + '1');
    send(p[0], "4", 1, 0);
    settle();
    EQ("enough", events(p[1]), POLLIN | POLLOUT);
    first(p[1], 9, 0);
    set(p[1], SOL_SOCKET, SO_RCVLOWAT, 1);
    struct timeval t = {0, 30000};
    setsockopt(p[1], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    send(p[0], "12", 2, 0);
    EQ("all that comes in time", recv(p[1], buf, 3, MSG_WAITALL), 2);
    ERR("nothing in time", recv(p[1], buf, 3, MSG_WAITALL), EAGAIN);
    ERR("error queue", recv(p[1], buf, 1, MSG_ERRQUEUE), EAGAIN);
    ERR("nothing urgent", recv(p[1], buf, 1, MSG_OOB), EINVAL);
    /* Held back. */
    OK("cork", set(p[0], IPPROTO_TCP, TCP_CORK, 1));
    send(p[0], "x", 1, 0);
    OK("uncork", set(p[0], IPPROTO_TCP, TCP_CORK, 0));
    settle();
    EQ("comes", first(p[1], 9, 0), 1000 + 'x');
    send(p[0], "more", 4, MSG_MORE);
    send(p[0], "x", 1, 0);
    settle();
    EQ("comes together", first(p[1], 9, 0), 5000 + 'm');
    EQ("nothing is sent", send(p[0], buf, 0, 0), 0);

    struct tcp_info info;
    socklen_t length = sizeof info;
    OK("information", getsockopt(p[0], IPPROTO_TCP, TCP_INFO, &info, &length));
    EQ("established", info.tcpi_state, TCP_ESTABLISHED);
    EQ("unsent bytes", info.tcpi_unacked, 0);
    EQ("options", info.tcpi_options & 7, 7);
    YES("segments", info.tcpi_snd_mss > 500 && info.tcpi_rcv_mss > 500);
    ERR("address of a connected one", sendto(p[0], "x", 1, 0, (void *)8, 16), EFAULT);
    struct sockaddr_in a = v4(INADDR_LOOPBACK, 1);
    EQ("is not looked at", sendto(p[0], "x", 1, 0, (void *)&a, sizeof a), 1);
    struct sockaddr_in from;
    length = sizeof from;
    memset(&from, 7, sizeof from);
    EQ("received from", recvfrom(p[1], buf, 1, 0, (void *)&from, &length), 1);
    EQ("nobody in particular", length, 0);
    close(p[0]), close(p[1]);
}

static void datagrams(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = v4(INADDR_LOOPBACK, 0), b, none = {.sin_family = AF_UNSPEC};
    socklen_t n = sizeof b;
    ERR("no destination", send(s, "x", 1, 0), EDESTADDRREQ);
    ERR("not connected", shutdown(s, SHUT_RD), ENOTCONN);
    bind(t, (void *)&a, sizeof a);
    a = v4(INADDR_LOOPBACK, port(t));
    ERR("short address", sendto(s, "x", 1, 0, (void *)&a, 15), EINVAL);
    a.sin_port = 0;
    ERR("port zero", sendto(s, "x", 1, 0, (void *)&a, sizeof a), EINVAL);
    a = v4(INADDR_LOOPBACK, port(t));
    a.sin_family = AF_INET6;
    ERR("other family", sendto(s, "x", 1, 0, (void *)&a, sizeof a), EAFNOSUPPORT);
    a.sin_family = AF_UNSPEC;
    EQ("no family is this one", sendto(s, "x", 1, 0, (void *)&a, sizeof a), 1);
    a.sin_family = AF_INET;
    EQ("empty", sendto(s, "", 0, 0, (void *)&a, sizeof a), 0);
    ERR("too long", sendto(s, buf, 65508, 0, (void *)&a, sizeof a), EMSGSIZE);
    EQ("longest", sendto(s, buf, 65507, 0, (void *)&a, sizeof a), 65507);
    settle();
    EQ("first", recvfrom(t, buf, 9, 0, (void *)&b, &n), 1);
    EQ("from", ntohs(b.sin_port), port(s));
    int waiting = -1;
    ioctl(t, FIONREAD, &waiting);
    EQ("empty waits", waiting, 0);
    EQ("events of empty", events(t), POLLIN | POLLOUT);
    EQ("empty one", first(t, 9, 0), 0);
    ioctl(t, FIONREAD, &waiting);
    EQ("long waits", waiting, 65507);
    EQ("cut, whole length", recv(t, buf, 9, MSG_TRUNC | MSG_DONTWAIT), 65507);
    EQ("nothing", first(t, 9, 0), -EAGAIN);
    /* SO_PEEK_OFF. */
    sendto(s, "abc", 3, 0, (void *)&a, sizeof a), sendto(s, "def", 3, 0, (void *)&a, sizeof a);
    settle();
    OK("offset", set(t, SOL_SOCKET, SO_PEEK_OFF, 1));
    EQ("peek", first(t, 9, MSG_PEEK), 2000 + 'b');
    EQ("peek on", first(t, 1, MSG_PEEK), 1000 + 'd');
    EQ("peek inside", first(t, 9, MSG_PEEK), 2000 + 'e');
    EQ("take", first(t, 9, 0), 3000 + 'a');
    EQ("moved", get(t, SOL_SOCKET, SO_PEEK_OFF), 3);
    first(t, 9, 0);
    set(t, SOL_SOCKET, SO_PEEK_OFF, -1);
    /* Held back. */
    EQ("first part", sendto(s, "ab", 2, MSG_MORE, (void *)&a, sizeof a), 2);
    settle();
    EQ("nothing yet", first(t, 9, 0), -EAGAIN);
    EQ("second part", sendto(s, "c", 1, 0, (void *)&a, sizeof a), 1);
    settle();
    EQ("one datagram", first(t, 9, 0), 3000 + 'a');
    OK("cork", set(s, IPPROTO_UDP, 1, 1));
    OK("connect", connect(s, (void *)&a, sizeof a));
    send(s, "x", 1, 0), send(s, "y", 1, 0);
    OK("uncork", set(s, IPPROTO_UDP, 1, 0));
    settle();
    EQ("as one", first(t, 9, 0), 2000 + 'x');
    /* Connected ones. */
    n = sizeof b;
    getsockname(s, (void *)&b, &n);
    EQ("own address", ntohl(b.sin_addr.s_addr), INADDR_LOOPBACK);
    OK("dissolved", connect(s, (void *)&none, sizeof none));
    n = sizeof b;
    getsockname(s, (void *)&b, &n);
    EQ("no address", b.sin_addr.s_addr, 0);
    EQ("no port either", b.sin_port, 0);
    ERR("no peer", getpeername(s, (void *)&b, &n), ENOTCONN);
    a = v4(INADDR_LOOPBACK, 1);
    connect(s, (void *)&a, sizeof a);
    OK("to nobody", send(s, "x", 1, 0));
    settle();
    EQ("refused", events(s) & POLLERR, POLLERR);
    EQ("told once", first(s, 1, 0), -ECONNREFUSED);
    EQ("only once", first(s, 1, 0), -EAGAIN);
    OK("reads end", shutdown(s, SHUT_RD));
    EQ("not a message", first(s, 1, 0), -EAGAIN);
    EQ("waiting is over", recv(s, buf, 1, 0), 0);
    EQ("events", events(s), POLLIN | POLLOUT | POLLRDHUP);
    OK("writes end", shutdown(s, SHUT_WR));
    ERR("no more", send(s, "x", 1, MSG_NOSIGNAL), EPIPE);
    close(s), close(t);
    /* Segments of one message. */
    s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0);
    a = v4(INADDR_LOOPBACK, 0);
    bind(t, (void *)&a, sizeof a);
    a = v4(INADDR_LOOPBACK, port(t));
    set(s, IPPROTO_UDP, 103, 3);
    EQ("eight bytes", sendto(s, "abcdefgh", 8, 0, (void *)&a, sizeof a), 8);
    settle();
    EQ("three", first(t, 99, 0), 3000 + 'a');
    EQ("and three", first(t, 99, 0), 3000 + 'd');
    EQ("and two", first(t, 99, 0), 2000 + 'g');
    close(s), close(t);
    /* From four to six. */
    s = socket(AF_INET6, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in6 c = v6("::", 0);
    bind(s, (void *)&c, sizeof c);
    a = v4(INADDR_LOOPBACK, port(s));
    sendto(t, "x", 1, 0, (void *)&a, sizeof a);
    settle();
    n = sizeof c;
    EQ("to six", recvfrom(s, buf, 9, MSG_DONTWAIT, (void *)&c, &n), 1);
    YES("mapped", IN6_IS_ADDR_V4MAPPED(&c.sin6_addr));
    EQ("whole", n, sizeof c);
    EQ("back", sendto(s, "y", 1, 0, (void *)&c, n), 1);
    settle();
    EQ("to four", first(t, 9, 0), 1000 + 'y');
    c = v6("::1", port(t));
    EQ("six to itself", sendto(s, "y", 1, 0, (void *)&c, sizeof c), 1);
    close(s), close(t);
}

static void interfaces(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq r;
    memset(&r, 0, sizeof r);
    strcpy(r.ifr_name, "lo");
    OK("index", ioctl(s, SIOCGIFINDEX, &r));
    EQ("one", r.ifr_ifindex, 1);
    OK("name", ioctl(s, SIOCGIFNAME, &r));
    EQ("lo", strcmp(r.ifr_name, "lo"), 0);
    OK("flags", ioctl(s, SIOCGIFFLAGS, &r));
    EQ("up", r.ifr_flags & (IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_BROADCAST), IFF_UP | IFF_LOOPBACK | IFF_RUNNING);
    OK("address", ioctl(s, SIOCGIFADDR, &r));
    EQ("loopback", ntohl(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr), INADDR_LOOPBACK);
    OK("mask", ioctl(s, SIOCGIFNETMASK, &r));
    EQ("of eight", ntohl(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr), 0xff000000);
    OK("unit", ioctl(s, SIOCGIFMTU, &r));
    EQ("65536", r.ifr_mtu, 65536);
    OK("hardware", ioctl(s, SIOCGIFHWADDR, &r));
    EQ("none", r.ifr_hwaddr.sa_family, 772);
    OK("queue", ioctl(s, SIOCGIFTXQLEN, &r));
    EQ("long", r.ifr_qlen, 1000);
    OK("metric", ioctl(s, SIOCGIFMETRIC, &r));
    r.ifr_ifindex = 9999;
    ERR("no index", ioctl(s, SIOCGIFNAME, &r), ENODEV);
    strcpy(r.ifr_name, "nosuch");
    ERR("no name", ioctl(s, SIOCGIFINDEX, &r), ENODEV);
    ERR("no flags", ioctl(s, SIOCGIFFLAGS, &r), ENODEV);
    ERR("nowhere", ioctl(s, SIOCGIFINDEX, NULL), EFAULT);
    ERR("unknown", ioctl(s, 0x12345, &r), ENOTTY);
    ERR("no terminal", ioctl(s, TIOCGWINSZ, &r), ENOTTY);
    char place[4096];
    struct ifconf all = {.ifc_len = sizeof place, .ifc_buf = place};
    OK("all", ioctl(s, SIOCGIFCONF, &all));
    YES("at least one", all.ifc_len >= (int)sizeof(struct ifreq) && all.ifc_len % (int)sizeof(struct ifreq) == 0);
    all.ifc_len = 10;
    OK("in little room", ioctl(s, SIOCGIFCONF, &all));
    EQ("none", all.ifc_len, 0);
    all.ifc_buf = NULL;
    OK("how many", ioctl(s, SIOCGIFCONF, &all));
    YES("bytes", all.ifc_len >= (int)sizeof(struct ifreq));
    EQ("by name", if_nametoindex("lo"), 1);
    int mark = -1;
    ERR("mark of datagrams", ioctl(s, SIOCATMARK, &mark), ENOTTY);
    int on = 1;
    OK("without waiting", ioctl(s, FIONBIO, &on));
    EQ("at once", recv(s, buf, 1, 0) < 0 ? errno : 0, EAGAIN);
    int owner = getpid();
    OK("owner", ioctl(s, FIOSETOWN, &owner));
    owner = 0;
    OK("told", ioctl(s, SIOCGPGRP, &owner));
    EQ("me", owner, getpid());
    close(s);
    int p[2];
    connected(p);
    OK("mark", ioctl(p[1], SIOCATMARK, &mark));
    EQ("not there", mark, 0);
    send(p[0], "ab", 2, MSG_OOB);
    settle();
    EQ("urgent", events(p[1]) & POLLPRI, POLLPRI);
    EQ("before", first(p[1], 9, 0), 1000 + 'a');
    OK("mark", ioctl(p[1], SIOCATMARK, &mark));
    EQ("there", mark, 1);
    EQ("the byte", first(p[1], 9, MSG_OOB), 1000 + 'b');
    EQ("once", first(p[1], 9, MSG_OOB), -EINVAL);
    close(p[0]), close(p[1]);
}

static void choosing(void) {
    struct sockaddr_in a = v4(INADDR_LOOPBACK, 0);
    int s = socket(AF_INET, SOCK_STREAM, 0), l = socket(AF_INET, SOCK_STREAM, 0);
    EQ("own range", set(s, IPPROTO_IP, 51, (40010 << 16) | 40000), 0);
    bind(s, (void *)&a, sizeof a);
    YES("is chosen from", port(s) >= 40000 && port(s) <= 40010);
    close(s);
    bind(l, (void *)&a, sizeof a);
    listen(l, 1);
    s = socket(AF_INET, SOCK_STREAM, 0);
    a = v4(INADDR_LOOPBACK, port(l));
    EQ("connects by sending", sendto(s, "abc", 3, MSG_FASTOPEN, (void *)&a, sizeof a), 3);
    ERR("once", sendto(s, "abc", 3, MSG_FASTOPEN, (void *)&a, sizeof a), EISCONN);
    int c = accept(l, NULL, NULL);
    settle();
    EQ("arrives", first(c, 9, 0), 3000 + 'a');
    close(c), close(s), close(l);
    s = socket(AF_INET, SOCK_DGRAM, 0), l = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval stamp = {0, 0};
    ERR("no stamp", ioctl(l, 0x8906, &stamp), ENOENT);
    a = v4(INADDR_LOOPBACK, 0);
    bind(l, (void *)&a, sizeof a);
    a = v4(INADDR_LOOPBACK, port(l));
    sendto(s, "x", 1, 0, (void *)&a, sizeof a);
    settle();
    first(l, 1, 0);
    OK("stamp", ioctl(l, 0x8906, &stamp));
    YES("is a time", stamp.tv_sec > 1000000);
    close(s), close(l);
}

int main(void) {
    alarm(35);
    making();
    binding();
    connecting();
    ends();
    bytes();
    datagrams();
    interfaces();
    choosing();
    return 0;
}
