/* Options of sockets: sizes of values, ranges, defaults, what is read back, and who does not know an option. */
#include "case.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif
#ifndef NETLINK_CAP_ACK
#define NETLINK_CAP_ACK 10
#endif
#define SOL_NETLINK_ 270

static int set(int s, int level, int name, int value) { return setsockopt(s, level, name, &value, sizeof value); }

/* The number, or minus the error. */
static long get(int s, int level, int name) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(s, level, name, &value, &length) < 0 ? -errno : value;
}

/* How many bytes are told to who has room for so many. */
static long room(int s, int level, int name, int have) {
    char bytes[256];
    socklen_t length = (socklen_t)have;
    return getsockopt(s, level, name, bytes, &length) < 0 ? -errno : (long)length;
}

/* What is read back after a number was set, or minus the error. */
static long kept(int s, int level, int name, int value) { return set(s, level, name, value) < 0 ? -errno : get(s, level, name); }

static void lengths(int t, int u, int t6) {
    int one = 1;
    char byte = 1;
    ERR("too short", setsockopt(t, SOL_SOCKET, SO_KEEPALIVE, &one, 3), EINVAL);
    ERR("too short of an unknown one", setsockopt(t, SOL_SOCKET, 999, &one, 3), EINVAL);
    ERR("unknown", setsockopt(t, SOL_SOCKET, 999, &one, 4), ENOPROTOOPT);
    OK("longer", setsockopt(t, SOL_SOCKET, SO_KEEPALIVE, (int[4]){1}, 16));
    ERR("negative length", setsockopt(t, SOL_SOCKET, SO_KEEPALIVE, &one, -1), EINVAL);
    ERR("nowhere", setsockopt(t, SOL_SOCKET, SO_KEEPALIVE, NULL, 4), EFAULT);
    EQ("no room", room(t, SOL_SOCKET, SO_KEEPALIVE, 0), 0);
    EQ("room for one", room(t, SOL_SOCKET, SO_KEEPALIVE, 1), 1);
    EQ("much room", room(t, SOL_SOCKET, SO_KEEPALIVE, 64), 4);
    EQ("negative room", room(t, SOL_SOCKET, SO_KEEPALIVE, -1), -EINVAL);
    OK("a byte of the internet protocol", setsockopt(u, IPPROTO_IP, IP_TTL, &byte, 1));
    EQ("is the number", get(u, IPPROTO_IP, IP_TTL), 1);
    EQ("told in a byte", room(u, IPPROTO_IP, IP_TTL, 3), 1);
    ERR("but not nothing", setsockopt(u, IPPROTO_IP, IP_TTL, &byte, 0), EINVAL);
    OK("nothing is zero", setsockopt(u, IPPROTO_IP, IP_TOS, &byte, 0));
    ERR("a byte of TCP", setsockopt(t, IPPROTO_TCP, TCP_NODELAY, &byte, 1), EINVAL);
    ERR("a byte of version six", setsockopt(t6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &byte, 1), EINVAL);
    ERR("a byte of UDP", setsockopt(u, IPPROTO_UDP, UDP_CORK, &byte, 1), EINVAL);
}

static void levels(int t, int u, int t6, int x, int n) {
    EQ("TCP of UDP asked", get(u, IPPROTO_TCP, TCP_NODELAY), -EOPNOTSUPP);
    ERR("and set", set(u, IPPROTO_TCP, TCP_NODELAY, 1), ENOPROTOOPT);
    EQ("version six of four asked", get(t, IPPROTO_IPV6, IPV6_V6ONLY), -EOPNOTSUPP);
    ERR("and set version six", set(t, IPPROTO_IPV6, IPV6_V6ONLY, 1), ENOPROTOOPT);
    EQ("a level of nobody's, six", get(t6, 99, 1), -ENOPROTOOPT);
    EQ("a level of nobody's, four", get(t, 99, 1), -EOPNOTSUPP);
    EQ("version four of six", get(t6, IPPROTO_IP, IP_TOS), 0);
    EQ("unix", get(x, IPPROTO_IP, IP_TOS), -EOPNOTSUPP);
    ERR("unix set", set(x, IPPROTO_TCP, 1, 1), EOPNOTSUPP);
    EQ("netlink", get(n, IPPROTO_IP, IP_TOS), -ENOPROTOOPT);
    ERR("netlink set", set(n, IPPROTO_TCP, 1, 1), ENOPROTOOPT);
}

static void common(int t, int u, int x, int n) {
    EQ("flag", kept(t, SOL_SOCKET, SO_REUSEADDR, 77), 1);
    EQ("cleared", kept(t, SOL_SOCKET, SO_REUSEADDR, 0), 0);
    ERR("type", set(t, SOL_SOCKET, SO_TYPE, 1), ENOPROTOOPT);
    ERR("error", set(t, SOL_SOCKET, SO_ERROR, 1), ENOPROTOOPT);
    EQ("protocol", get(t, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    EQ("domain", get(x, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
    EQ("small send", kept(u, SOL_SOCKET, SO_SNDBUF, 1), 4608);
    EQ("small receive", kept(u, SOL_SOCKET, SO_RCVBUF, 0), 2304);
    EQ("doubled", kept(u, SOL_SOCKET, SO_RCVBUF, 65536), 131072);
    YES("negative is the most", kept(u, SOL_SOCKET, SO_RCVBUF, -1) > 400000);
    EQ("forced", kept(u, SOL_SOCKET, SO_SNDBUFFORCE, 1 << 20), -ENOPROTOOPT);
    EQ("is kept", get(u, SOL_SOCKET, SO_SNDBUF), 2 << 20);
    EQ("low mark", kept(u, SOL_SOCKET, SO_RCVLOWAT, 0), 1);
    EQ("negative low mark", kept(u, SOL_SOCKET, SO_RCVLOWAT, -1), INT_MAX);
    ERR("low mark of sending", set(u, SOL_SOCKET, SO_SNDLOWAT, 1), ENOPROTOOPT);
    EQ("priority", kept(u, SOL_SOCKET, SO_PRIORITY, 100), 100);
    EQ("mark", kept(u, SOL_SOCKET, SO_MARK, -1), -1);
    EQ("old", kept(u, SOL_SOCKET, SO_BSDCOMPAT, 1), 0);
    EQ("busy", kept(u, SOL_SOCKET, SO_BUSY_POLL, -1), -EINVAL);
    EQ("lock of buffers", kept(u, SOL_SOCKET, SO_BUF_LOCK, 4), -EINVAL);
    EQ("shared port of unix", kept(x, SOL_SOCKET, SO_REUSEPORT, 1), -EOPNOTSUPP);
    EQ("not shared", kept(x, SOL_SOCKET, SO_REUSEPORT, 0), 0);
    EQ("peek of TCP", get(t, SOL_SOCKET, SO_PEEK_OFF), -1);
    EQ("peek of netlink", get(n, SOL_SOCKET, SO_PEEK_OFF), -EOPNOTSUPP);
    EQ("no copies", kept(t, SOL_SOCKET, SO_ZEROCOPY, 2), -EINVAL);
    EQ("copies of unix", kept(x, SOL_SOCKET, SO_ZEROCOPY, 1), -EOPNOTSUPP);
    EQ("pacing", room(t, SOL_SOCKET, SO_MAX_PACING_RATE, 64), 8);
    EQ("pacing in four", room(t, SOL_SOCKET, SO_MAX_PACING_RATE, 7), 4);
    EQ("memory", room(t, SOL_SOCKET, SO_MEMINFO, 64), 36);
    EQ("cookie", room(t, SOL_SOCKET, SO_COOKIE, 64), 8);
    EQ("half a cookie", room(t, SOL_SOCKET, SO_COOKIE, 4), -EINVAL);
    EQ("cookie of the namespace", room(t, SOL_SOCKET, SO_NETNS_COOKIE, 8), 8);
    EQ("with too much room", room(t, SOL_SOCKET, SO_NETNS_COOKIE, 9), -EINVAL);
    EQ("no filter", room(t, SOL_SOCKET, SO_GET_FILTER, 0), 0);
    ERR("nothing to detach", set(t, SOL_SOCKET, SO_DETACH_FILTER, 0), ENOENT);
    EQ("lock", kept(t, SOL_SOCKET, SO_LOCK_FILTER, 1), 1);
    ERR("and no unlock", set(t, SOL_SOCKET, SO_LOCK_FILTER, 0), EPERM);
    EQ("peer", room(t, SOL_SOCKET, SO_PEERNAME, 16), -ENOTCONN);
    EQ("label of the peer", room(t, SOL_SOCKET, SO_PEERSEC, 16), -ENOPROTOOPT);
    EQ("time stamps", kept(u, SOL_SOCKET, SO_TIMESTAMP, 1), 1);
    EQ("finer ones", kept(u, SOL_SOCKET, SO_TIMESTAMPNS, 1), 1);
    EQ("take their place", get(u, SOL_SOCKET, SO_TIMESTAMP), 0);
    EQ("finest", kept(u, SOL_SOCKET, SO_TIMESTAMPING, 1 << 30), -EINVAL);
    EQ("are a pair", room(u, SOL_SOCKET, SO_TIMESTAMPING, 64), 8);
    struct timeval wait = {0, 1000000};
    ERR("microseconds", setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait), EDOM);
    ERR("half a time", setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &wait, 8), EINVAL);
    wait = (struct timeval){-1, 0};
    OK("over already", setsockopt(t, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait));
    ERR("half a linger", setsockopt(t, SOL_SOCKET, SO_LINGER, &wait, 4), EINVAL);
    OK("device", setsockopt(u, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
    EQ("its name", room(u, SOL_SOCKET, SO_BINDTODEVICE, 16), 3);
    EQ("in no room", room(u, SOL_SOCKET, SO_BINDTODEVICE, 15), -EINVAL);
    EQ("its number", get(u, SOL_SOCKET, SO_BINDTOIFINDEX), 1);
    ERR("no device", setsockopt(u, SOL_SOCKET, SO_BINDTODEVICE, "nosuch", 7), ENODEV);
    OK("none", setsockopt(u, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
    EQ("has no name", room(u, SOL_SOCKET, SO_BINDTODEVICE, 16), 0);
}

static void internet(int t, int u, int t6, int u6) {
    EQ("class", kept(u, IPPROTO_IP, IP_TOS, 0x1ff), 0xff);
    EQ("class of TCP", kept(t, IPPROTO_IP, IP_TOS, 0xff), 0xfc);
    EQ("no hops", kept(u, IPPROTO_IP, IP_TTL, 0), -EINVAL);
    EQ("usual hops", kept(u, IPPROTO_IP, IP_TTL, -1), 64);
    EQ("too many hops", kept(u, IPPROTO_IP, IP_TTL, 256), -EINVAL);
    EQ("path", kept(u, IPPROTO_IP, IP_MTU_DISCOVER, 6), -EINVAL);
    EQ("unit", get(u, IPPROTO_IP, IP_MTU), -ENOTCONN);
    EQ("group hops", kept(u, IPPROTO_IP, IP_MULTICAST_TTL, -1), 1);
    EQ("group hops of TCP", kept(t, IPPROTO_IP, IP_MULTICAST_TTL, 2), -EINVAL);
    EQ("header", kept(u, IPPROTO_IP, IP_HDRINCL, 1), -ENOPROTOOPT);
    EQ("no header", get(u, IPPROTO_IP, IP_HDRINCL), 0);
    EQ("least hops", kept(u, IPPROTO_IP, IP_MINTTL, 256), -EINVAL);
    EQ("header options", room(u, IPPROTO_IP, IP_OPTIONS, 64), 0);
    OK("one that does nothing", setsockopt(u, IPPROTO_IP, IP_OPTIONS, "\1", 1));
    EQ("is padded", room(u, IPPROTO_IP, IP_OPTIONS, 64), 4);
    ERR("bad ones", setsockopt(u, IPPROTO_IP, IP_OPTIONS, "\7\1\0\0", 4), EINVAL);
    EQ("interface", kept(u, IPPROTO_IP, IP_UNICAST_IF, 1), -EADDRNOTAVAIL);
    EQ("loopback", kept(u, IPPROTO_IP, IP_UNICAST_IF, (int)htonl(1)), (int)htonl(1));
    struct ip_mreq group = {{htonl(0xe0000101)}, {htonl(INADDR_LOOPBACK)}};
    ERR("group of TCP", setsockopt(t, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group), EPROTO);
    ERR("never joined", setsockopt(u, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group), EADDRNOTAVAIL);
    EQ("hops of six", kept(u6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 0), 0);
    EQ("usual hops of six", kept(u6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, -1), 64);
    EQ("group loop", kept(u6, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 2), -EINVAL);
    EQ("group hops of TCP, six", kept(t6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 2), -ENOPROTOOPT);
    EQ("class of six", kept(u6, IPPROTO_IPV6, IPV6_TCLASS, 7), 7);
    EQ("class of TCP over six", kept(t6, IPPROTO_IPV6, IPV6_TCLASS, 7), 4);
    EQ("usual class", kept(u6, IPPROTO_IPV6, IPV6_TCLASS, -1), 0);
    EQ("small unit", kept(u6, IPPROTO_IPV6, IPV6_MTU, 1279), -EINVAL);
    OK("least unit", set(u6, IPPROTO_IPV6, IPV6_MTU, 1280));
    EQ("preferences", get(u6, IPPROTO_IPV6, 72), 0x500);
    EQ("temporary", kept(u6, IPPROTO_IPV6, 72, 1), 0x401);
    EQ("and public", kept(u6, IPPROTO_IPV6, 72, 3), -EINVAL);
    EQ("another family", kept(u6, IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET), -ENOTCONN);
    EQ("its own", kept(u6, IPPROTO_IPV6, IPV6_ADDRFORM, AF_INET6), -EINVAL);
    OK("header of hops", setsockopt(u6, IPPROTO_IPV6, IPV6_HOPOPTS, "\0\0\1\4\0\0\0\0", 8));
    EQ("told", room(u6, IPPROTO_IPV6, IPV6_HOPOPTS, 64), 8);
    ERR("of a wrong length", setsockopt(u6, IPPROTO_IPV6, IPV6_HOPOPTS, "\0\1\1\4\0\0\0\0", 8), EINVAL);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    OK("bound", bind(u6, (void *)&any, sizeof any));
    EQ("only six, too late", kept(u6, IPPROTO_IPV6, IPV6_V6ONLY, 1), -EINVAL);
}

static void tcp(int t, int l) {
    EQ("segment", get(t, IPPROTO_TCP, TCP_MAXSEG), 536);
    EQ("small segment", kept(t, IPPROTO_TCP, TCP_MAXSEG, 87), -EINVAL);
    EQ("chosen segment", kept(t, IPPROTO_TCP, TCP_MAXSEG, 1000), 1000);
    EQ("large segment", kept(t, IPPROTO_TCP, TCP_MAXSEG, 32768), -EINVAL);
    EQ("idle", kept(t, IPPROTO_TCP, TCP_KEEPIDLE, 0), -EINVAL);
    EQ("probes", kept(t, IPPROTO_TCP, TCP_KEEPCNT, 128), -EINVAL);
    EQ("linger", kept(t, IPPROTO_TCP, TCP_LINGER2, -5), -1);
    EQ("longest linger", kept(t, IPPROTO_TCP, TCP_LINGER2, 1000), 120);
    EQ("usual linger", kept(t, IPPROTO_TCP, TCP_LINGER2, 0), 60);
    EQ("deferred", kept(t, IPPROTO_TCP, TCP_DEFER_ACCEPT, 2), 3);
    EQ("window", kept(t, IPPROTO_TCP, TCP_WINDOW_CLAMP, 0), 0);
    YES("small window", kept(t, IPPROTO_TCP, TCP_WINDOW_CLAMP, 1) > 1);
    EQ("no patience", kept(t, IPPROTO_TCP, TCP_USER_TIMEOUT, -1), -EINVAL);
    EQ("patience", kept(t, IPPROTO_TCP, TCP_USER_TIMEOUT, 10), 10);
    EQ("congestion", room(t, IPPROTO_TCP, TCP_CONGESTION, 64), 16);
    ERR("unknown congestion", setsockopt(t, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6), ENOENT);
    ERR("no name", setsockopt(t, IPPROTO_TCP, TCP_CONGESTION, "", 0), EINVAL);
    ERR("unknown layer", setsockopt(t, IPPROTO_TCP, TCP_ULP, "nosuch", 6), ENOENT);
    EQ("fast", kept(t, IPPROTO_TCP, TCP_FASTOPEN, -1), -EINVAL);
    ERR("key", setsockopt(t, IPPROTO_TCP, TCP_FASTOPEN_KEY, "123", 3), EINVAL);
    EQ("repair", kept(t, IPPROTO_TCP, TCP_REPAIR, 2), -EINVAL);
    EQ("repair of a listener", kept(l, IPPROTO_TCP, TCP_REPAIR, 1), -EPERM);
    EQ("queue without repair", kept(t, IPPROTO_TCP, TCP_REPAIR_QUEUE, 1), -EPERM);
    ERR("information", set(t, IPPROTO_TCP, TCP_INFO, 1), ENOPROTOOPT);
    EQ("unread", kept(t, IPPROTO_TCP, 36, 2), -EINVAL);
}

static void others(int u, int r, int r6, int n) {
    EQ("cork", kept(u, IPPROTO_UDP, UDP_CORK, 5), 1);
    EQ("segments", kept(u, IPPROTO_UDP, 103, 65536), -EINVAL);
    EQ("segments kept", kept(u, IPPROTO_UDP, 103, 100), 100);
    EQ("filter", kept(r, 255, 1, 7), 7);
    EQ("no such filter", get(r, 255, 2), -ENOPROTOOPT);
    EQ("raw address", get(r, SOL_SOCKET, SO_REUSEADDR), 1);
    EQ("protocol of raw", get(r, IPPROTO_IP, 52), IPPROTO_ICMP);
    EQ("filter of six", room(r6, IPPROTO_ICMPV6, 1, 64), 32);
    EQ("checksum", get(r6, 255, IPV6_CHECKSUM), 2);
    EQ("odd checksum", kept(r6, 255, IPV6_CHECKSUM, 3), -EINVAL);
    EQ("fixed checksum", kept(r6, IPPROTO_IPV6, IPV6_CHECKSUM, 2), -EINVAL);
    EQ("netlink flag", kept(n, SOL_NETLINK_, NETLINK_CAP_ACK, 9), 1);
    EQ("in no room of netlink", room(n, SOL_NETLINK_, NETLINK_CAP_ACK, 3), -EINVAL);
    ERR("no group", set(n, SOL_NETLINK_, 1, 0), EINVAL);
    ERR("too high a group", set(n, SOL_NETLINK_, 1, 1000), EINVAL);
    OK("group of netlink", set(n, SOL_NETLINK_, 1, 1));
    ERR("unknown of netlink", set(n, SOL_NETLINK_, 99, 1), ENOPROTOOPT);
}

int main(void) {
    alarm(30);
    int t = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0), t6 = socket(AF_INET6, SOCK_STREAM, 0);
    int u6 = socket(AF_INET6, SOCK_DGRAM, 0), x = socket(AF_UNIX, SOCK_STREAM, 0), n = socket(AF_NETLINK, SOCK_RAW, 0);
    int r = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), r6 = socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), l = socket(AF_INET, SOCK_STREAM, 0);
    listen(l, 1);
    lengths(t, u, t6);
    levels(t, u, t6, x, n);
    common(t, u, x, n);
    internet(t, u, t6, u6);
    tcp(t, l);
    others(u, r, r6, n);
    return 0;
}
