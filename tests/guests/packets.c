/* Prints what sockets say of packets: hops, classes, interfaces, errors that come back, raw sockets, echoes. For comparison with
 * the host's own answers: nothing that is printed may depend on time or numbers. Raw sockets need root. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHOW(call)                                                                                                                 \
    do {                                                                                                                           \
        errno = 0;                                                                                                                 \
        long result_ = (long)(call);                                                                                               \
        int errno_ = errno;                                                                                                        \
        printf("%s:%d %s = %ld %s\n", __func__, __LINE__, #call, result_, result_ < 0 ? strerrorname_np(errno_) : "");             \
        fflush(stdout);                                                                                                            \
    } while (0)
/* The same where the number of a descriptor does not matter. */
#define ERRNO(call) SHOW((call) < 0 ? -1 : 0)
#define VAL(value) printf("%s:%d %s = %lld\n", __func__, __LINE__, #value, (long long)(value))

static char buf[1 << 17];

/* Lets what was sent over the loopback arrive, and what comes back for it. */
static void settle(void) { usleep(20000); }

static int opt(int fd, int l, int n) {
    int v = -1;
    socklen_t s = 4;
    return getsockopt(fd, l, n, &v, &s) < 0 ? -errno : v;
}

static int udp4(int bindit) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (bindit) {
        struct sockaddr_in a = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
        bind(s, (void *)&a, sizeof a);
    }
    return s;
}

static struct sockaddr_in name(int s) {
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    getsockname(s, (void *)&a, &n);
    return a;
}

static void show_controls(struct msghdr *m) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        printf("  cmsg %d %d len %zu:", c->cmsg_level, c->cmsg_type, c->cmsg_len - CMSG_LEN(0));
        if (c->cmsg_level == SOL_SOCKET) {
            puts("");
            continue;
        }
        for (size_t i = 0; i < c->cmsg_len - CMSG_LEN(0); i++) {
            int skip = (c->cmsg_level == 0 && c->cmsg_type == IP_ORIGDSTADDR && (i == 2 || i == 3)) ||
                       (c->cmsg_level == 41 && c->cmsg_type == 74 && (i == 2 || i == 3));
            if (!skip)
                printf(" %02x", CMSG_DATA(c)[i]);
        }
        puts("");
    }
}

static void rcv(int s, int fl) {
    struct iovec v = {buf, 100};
    char ctl[512];
    struct sockaddr_in6 from;
    struct msghdr m = {&from, sizeof from, &v, 1, ctl, sizeof ctl, 0};
    errno = 0;
    long r = recvmsg(s, &m, fl | MSG_DONTWAIT);
    printf(" recv %ld %s flags %x name %d\n", r, r < 0 ? strerrorname_np(errno) : "", m.msg_flags, r < 0 ? 0 : m.msg_namelen);
    if (r >= 0)
        show_controls(&m);
}

static void cmsgs(void) {
    puts("== cmsgs");
    int r = udp4(1), s = udp4(1), one = 1;
    struct sockaddr_in a = name(r);
    int o[] = {IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR};
    for (int i = 0; i < 4; i++)
        SHOW(setsockopt(r, 0, o[i], &one, 4));
    int tos = 0x28;
    SHOW(setsockopt(s, 0, IP_TOS, &tos, 4));
    int ttl = 9;
    SHOW(setsockopt(s, 0, IP_TTL, &ttl, 4));
    sendto(s, "a", 1, 0, (void *)&a, sizeof a);
    rcv(r, 0);
    char ctl[128];
    struct iovec v = {"b", 1};
    struct msghdr m = {&a, sizeof a, &v, 1, ctl, 0, 0};
    memset(ctl, 0, sizeof ctl);
    m.msg_controllen = CMSG_SPACE(4);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = 0;
    c->cmsg_type = IP_TTL;
    c->cmsg_len = CMSG_LEN(4);
    *(int *)CMSG_DATA(c) = 33;
    SHOW(sendmsg(s, &m, 0));
    rcv(r, 0);
    c->cmsg_type = IP_TOS;
    *(int *)CMSG_DATA(c) = 0x10;
    SHOW(sendmsg(s, &m, 0));
    rcv(r, 0);
    c->cmsg_type = IP_TTL;
    *(int *)CMSG_DATA(c) = 0;
    SHOW(sendmsg(s, &m, 0));
    *(int *)CMSG_DATA(c) = 256;
    SHOW(sendmsg(s, &m, 0));
    c->cmsg_type = IP_TOS;
    *(int *)CMSG_DATA(c) = 256;
    SHOW(sendmsg(s, &m, 0));
    c->cmsg_len = CMSG_LEN(1);
    *(char *)CMSG_DATA(c) = 4;
    SHOW(sendmsg(s, &m, 0));
    rcv(r, 0);
    c->cmsg_type = 99;
    SHOW(sendmsg(s, &m, 0));
    c->cmsg_level = 41;
    SHOW(sendmsg(s, &m, 0));
    c->cmsg_level = 99;
    SHOW(sendmsg(s, &m, 0));
    m.msg_controllen = CMSG_SPACE(12);
    c->cmsg_level = 0;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(12);
    struct in_pktinfo pi = {1, {htonl(0x7f000009)}, {0}};
    memcpy(CMSG_DATA(c), &pi, 12);
    SHOW(sendmsg(s, &m, 0));
    rcv(r, 0);
    pi.ipi_ifindex = 77;
    memcpy(CMSG_DATA(c), &pi, 12);
    SHOW(sendmsg(s, &m, 0));
    pi.ipi_ifindex = 0;
    pi.ipi_spec_dst.s_addr = htonl(0x08080808);
    memcpy(CMSG_DATA(c), &pi, 12);
    SHOW(sendmsg(s, &m, 0));
    c->cmsg_len = CMSG_LEN(4);
    SHOW(sendmsg(s, &m, 0));
    /* v6 */ int r6 = socket(AF_INET6, SOCK_DGRAM, 0), s6 = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 b = {AF_INET6};
    b.sin6_addr = in6addr_loopback;
    bind(r6, (void *)&b, sizeof b);
    socklen_t n = sizeof b;
    getsockname(r6, (void *)&b, &n);
    int o6[] = {IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, 74 /*RECVORIGDSTADDR*/};
    for (int i = 0; i < 4; i++)
        SHOW(setsockopt(r6, 41, o6[i], &one, 4));
    sendto(s6, "a", 1, 0, (void *)&b, sizeof b);
    rcv(r6, 0);
    int hl = 5;
    SHOW(setsockopt(s6, 41, IPV6_UNICAST_HOPS, &hl, 4));
    int tc = 0x20;
    SHOW(setsockopt(s6, 41, IPV6_TCLASS, &tc, 4));
    sendto(s6, "a", 1, 0, (void *)&b, sizeof b);
    rcv(r6, 0);
    struct msghdr m6 = {&b, sizeof b, &v, 1, ctl, CMSG_SPACE(4), 0};
    memset(ctl, 0, sizeof ctl);
    c = CMSG_FIRSTHDR(&m6);
    c->cmsg_level = 41;
    c->cmsg_type = IPV6_HOPLIMIT;
    c->cmsg_len = CMSG_LEN(4);
    *(int *)CMSG_DATA(c) = 44;
    SHOW(sendmsg(s6, &m6, 0));
    rcv(r6, 0);
    *(int *)CMSG_DATA(c) = -1;
    SHOW(sendmsg(s6, &m6, 0));
    rcv(r6, 0);
    *(int *)CMSG_DATA(c) = 256;
    SHOW(sendmsg(s6, &m6, 0));
    c->cmsg_type = IPV6_TCLASS;
    *(int *)CMSG_DATA(c) = 0x44;
    SHOW(sendmsg(s6, &m6, 0));
    rcv(r6, 0);
    *(int *)CMSG_DATA(c) = 256;
    SHOW(sendmsg(s6, &m6, 0));
    c->cmsg_type = 98;
    SHOW(sendmsg(s6, &m6, 0));
    c->cmsg_len = CMSG_LEN(2);
    c->cmsg_type = IPV6_HOPLIMIT;
    SHOW(sendmsg(s6, &m6, 0));
    m6.msg_controllen = CMSG_SPACE(20);
    c->cmsg_type = IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(20);
    struct in6_pktinfo p6 = {in6addr_loopback, 1};
    memcpy(CMSG_DATA(c), &p6, 20);
    SHOW(sendmsg(s6, &m6, 0));
    rcv(r6, 0);
    /* v4 mapped with v6 recv options */ int d = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 any = {AF_INET6};
    bind(d, (void *)&any, sizeof any);
    n = sizeof any;
    getsockname(d, (void *)&any, &n);
    for (int i = 0; i < 4; i++)
        setsockopt(d, 41, o6[i], &one, 4);
    for (int i = 0; i < 4; i++)
        SHOW(setsockopt(d, 0, o[i], &one, 4));
    a.sin_port = any.sin6_port;
    sendto(s, "a", 1, 0, (void *)&a, sizeof a);
    rcv(d, 0);
    any.sin6_addr = in6addr_loopback;
    sendto(s6, "a", 1, 0, (void *)&any, sizeof any);
    rcv(d, 0);
}

static void errq(void) {
    puts("== errq");
    int t = udp4(1);
    struct sockaddr_in a = name(t);
    close(t);
    int s = udp4(1), one = 1;
    SHOW(setsockopt(s, 0, IP_RECVERR, &one, 4));
    SHOW(sendto(s, "lost", 4, 0, (void *)&a, sizeof a));
    settle();
    struct pollfd p = {s, POLLIN, 0};
    SHOW(poll(&p, 1, 0));
    VAL(p.revents);
    SHOW(opt(s, SOL_SOCKET, SO_ERROR));
    SHOW(poll(&p, 1, 0));
    VAL(p.revents);
    struct iovec v = {buf, 100};
    char ctl[512];
    struct sockaddr_in from;
    struct msghdr m = {&from, sizeof from, &v, 1, ctl, sizeof ctl, 0};
    SHOW(recvmsg(s, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
    printf("%x %d %d\n", m.msg_flags, m.msg_namelen, from.sin_port == a.sin_port);
    buf[4] = 0;
    puts(buf);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct sock_extended_err *e = (void *)CMSG_DATA(c);
        printf("%d %d len %zu: %d %d %d %d %d %d fam %d %x\n", c->cmsg_level, c->cmsg_type, c->cmsg_len, e->ee_errno, e->ee_origin,
               e->ee_type, e->ee_code, e->ee_info, e->ee_data, ((struct sockaddr_in *)(e + 1))->sin_family,
               ((struct sockaddr_in *)(e + 1))->sin_addr.s_addr);
    }
    SHOW(recvmsg(s, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(poll(&p, 1, 0));
    SHOW(sendto(s, "lost", 4, 0, (void *)&a, sizeof a));
    settle();
    SHOW(send(s, "x", 1, 0));
    SHOW(sendto(s, "y", 1, 0, (void *)&a, sizeof a));
    SHOW(sendto(s, "y", 1, 0, (void *)&a, sizeof a));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(recv(s, buf, 9, MSG_DONTWAIT));
    SHOW(recvmsg(s, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
    int s6 = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 b = {AF_INET6, a.sin_port};
    b.sin6_addr = in6addr_loopback;
    SHOW(setsockopt(s6, 41, IPV6_RECVERR, &one, 4));
    SHOW(sendto(s6, "lost", 4, 0, (void *)&b, sizeof b));
    settle();
    SHOW(recv(s6, buf, 9, MSG_DONTWAIT));
    struct sockaddr_in6 f6;
    m.msg_name = &f6;
    m.msg_namelen = sizeof f6;
    m.msg_controllen = sizeof ctl;
    SHOW(recvmsg(s6, &m, MSG_ERRQUEUE));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct sock_extended_err *e = (void *)CMSG_DATA(c);
        printf("%d %d len %zu: %d %d %d %d %d %d fam %d\n", c->cmsg_level, c->cmsg_type, c->cmsg_len, e->ee_errno, e->ee_origin,
               e->ee_type, e->ee_code, e->ee_info, e->ee_data, ((struct sockaddr_in *)(e + 1))->sin_family);
    }
}

static void icmp(int type) {
    printf("== icmp %d\n", type);
    int s = socket(AF_INET, type, IPPROTO_ICMP);
    VAL(s >= 0);
    if (s < 0) {
        VAL(errno);
        return;
    }
    struct sockaddr_in a = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    struct {
        struct icmphdr h;
        char d[20];
    } e = {0};
    e.h.type = 8;
    e.h.un.echo.id = htons(77);
    e.h.un.echo.sequence = htons(3);
    strcpy(e.d, "hello");
    if (type == SOCK_RAW) {
        unsigned sum = 0;
        unsigned short *w = (void *)&e;
        for (int i = 0; i < sizeof e / 2; i++)
            sum += w[i];
        sum = (sum >> 16) + (sum & 0xffff);
        sum += sum >> 16;
        e.h.checksum = ~sum;
    }
    SHOW(sendto(s, &e, sizeof e, 0, (void *)&a, sizeof a));
    settle();
    for (int k = 0; k < 3; k++) {
        struct sockaddr_in f = {0};
        socklen_t n = sizeof f;
        errno = 0;
        long r = recvfrom(s, buf, sizeof buf, MSG_DONTWAIT, (void *)&f, &n);
        printf("recv %ld %s from %x port %d\n", r, r < 0 ? strerrorname_np(errno) : "", f.sin_addr.s_addr, f.sin_port);
        if (r > 0) {
            unsigned char *q = (void *)buf;
            int off = type == SOCK_RAW ? 20 : 0;
            if (off)
                printf("ip %02x %02x len %d ttl %d proto %d src %x dst %x\n", q[0], q[1], q[2] << 8 | q[3], q[8], q[9],
                       *(int *)(q + 12), *(int *)(q + 16));
            printf("type %d code %d id? %d seq %d data %s\n", q[off], q[off + 1],
                   type == SOCK_RAW ? (q[off + 4] << 8 | q[off + 5]) : 0, q[off + 6] << 8 | q[off + 7], q + off + 8);
        }
    }
    SHOW(sendto(s, &e, 4, 0, (void *)&a, sizeof a));
    e.h.type = 0;
    SHOW(sendto(s, &e, sizeof e, 0, (void *)&a, sizeof a));
    SHOW(bind(s, (void *)&a, sizeof a));
    SHOW(connect(s, (void *)&a, sizeof a));
    e.h.type = 8;
    SHOW(send(s, &e, sizeof e, 0));
    SHOW(shutdown(s, SHUT_RD));
    SHOW(listen(s, 1));
    VAL(opt(s, SOL_SOCKET, SO_TYPE));
    VAL(opt(s, SOL_SOCKET, SO_PROTOCOL));
}

static void icmp6(int type) {
    printf("== icmp6 %d\n", type);
    int s = socket(AF_INET6, type, IPPROTO_ICMPV6);
    VAL(s >= 0);
    if (s < 0) {
        VAL(errno);
        return;
    }
    struct sockaddr_in6 a = {AF_INET6};
    a.sin6_addr = in6addr_loopback;
    struct {
        struct icmp6_hdr h;
        char d[20];
    } e = {0};
    e.h.icmp6_type = 128;
    e.h.icmp6_id = htons(9);
    e.h.icmp6_seq = htons(3);
    strcpy(e.d, "hello");
    SHOW(sendto(s, &e, sizeof e, 0, (void *)&a, sizeof a));
    settle();
    for (int k = 0; k < 3; k++) {
        struct sockaddr_in6 f = {0};
        socklen_t n = sizeof f;
        errno = 0;
        long r = recvfrom(s, buf, sizeof buf, MSG_DONTWAIT, (void *)&f, &n);
        printf("recv %ld %s\n", r, r < 0 ? strerrorname_np(errno) : "");
        if (r > 0)
            printf("type %d code %d data %s\n", (unsigned char)buf[0], buf[1], buf + 8);
    }
}

static void rawip(void) {
    puts("== raw");
    ERRNO(socket(AF_INET, SOCK_RAW, 0));
    ERRNO(socket(AF_INET, SOCK_RAW, -1));
    ERRNO(socket(AF_INET, SOCK_RDM, 0));
    ERRNO(socket(AF_INET, SOCK_SEQPACKET, 0));
    ERRNO(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    ERRNO(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    ERRNO(socket(AF_INET, 0, 0));
    ERRNO(socket(AF_INET, 11, 0));
    ERRNO(socket(46, SOCK_STREAM, 0));
    ERRNO(socket(-1, SOCK_STREAM, 0));
    ERRNO(socket(AF_UNIX, SOCK_STREAM, 2));
    ERRNO(socket(AF_NETLINK, SOCK_STREAM, 0));
    ERRNO(socket(AF_NETLINK, SOCK_RAW, 99));
    ERRNO(socket(38, SOCK_SEQPACKET, 0));
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    if (s < 0) {
        VAL(errno);
        return;
    }
    struct sockaddr_in a = {AF_INET, htons(5), {htonl(INADDR_LOOPBACK)}};
    SHOW(sendto(s, "abcdefgh", 8, 0, (void *)&a, sizeof a));
    settle();
    rcv(s, 0);
    rcv(s, 0);
    SHOW(bind(s, (void *)&a, sizeof a));
    socklen_t n = sizeof a;
    getsockname(s, (void *)&a, &n);
    VAL(a.sin_port);
    SHOW(connect(s, (void *)&a, sizeof a));
    n = sizeof a;
    SHOW(getpeername(s, (void *)&a, &n));
    VAL(a.sin_port);
    SHOW(send(s, "xy", 2, 0));
    settle();
    rcv(s, 0);
    VAL(opt(s, 0, IP_HDRINCL));
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    VAL(opt(raw, 0, IP_HDRINCL));
    SHOW(recv(raw, buf, 1, MSG_DONTWAIT));
    int u = udp4(1);
    struct sockaddr_in t = name(u);
    int sender = udp4(1);
    sendto(sender, "viaudp", 6, 0, (void *)&t, sizeof t);
    settle();
    rcv(s, 0);
    SHOW(getpeername(raw, (void *)&a, &n));
    SHOW(listen(s, 1));
    SHOW(accept(s, 0, 0));
    SHOW(shutdown(raw, SHUT_WR));
    struct {
        unsigned char ip[20];
        char d[8];
    } h = {0};
    h.ip[0] = 0x45;
    h.ip[8] = 64;
    h.ip[9] = 17;
    *(int *)(h.ip + 12) = htonl(0x7f000003);
    *(int *)(h.ip + 16) = htonl(0x7f000001);
    strcpy(h.d, "payload");
    a.sin_addr.s_addr = htonl(0x7f000001);
    SHOW(sendto(raw, &h, sizeof h, 0, (void *)&a, sizeof a));
    settle();
    rcv(s, 0);
    SHOW(sendto(raw, &h, 10, 0, (void *)&a, sizeof a));
    struct icmp_filter {
        unsigned d;
    } f = {1};
    int ic = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    SHOW(setsockopt(ic, 255, 1, &f, 4));
    SHOW(opt(ic, 255, 1));
    SHOW(setsockopt(s, 255, 1, &f, 4));
}

int main(void) {
    cmsgs();
    errq();
    icmp(SOCK_RAW);
    icmp6(SOCK_RAW);
    rawip();
    return 0;
}
