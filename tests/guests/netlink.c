/* Routing sockets: what dumps hold, what requests are refused for, addresses that come and go, and who acknowledges what. */
#include "case.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

static char buf[65536];
struct req {
    struct nlmsghdr h;
    union {
        struct ifinfomsg i;
        struct ifaddrmsg a;
        struct rtmsg r;
        struct rtgenmsg g;
        char all[256];
    };
};
static int sequence;

static void add(struct req *r, int kind, const void *value, int length) {
    struct rtattr *a = (void *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
    a->rta_type = (unsigned short)kind;
    a->rta_len = (unsigned short)RTA_LENGTH(length);
    memcpy(RTA_DATA(a), value, (size_t)length);
    r->h.nlmsg_len = NLMSG_ALIGN(r->h.nlmsg_len) + (unsigned)RTA_ALIGN(a->rta_len);
}
static struct req make(int type, int flags, int body) {
    struct req r;
    memset(&r, 0, sizeof r);
    r.h.nlmsg_len = (unsigned)NLMSG_LENGTH(body);
    r.h.nlmsg_type = (unsigned short)type;
    r.h.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | flags);
    r.h.nlmsg_seq = (unsigned)++sequence;
    return r;
}
/* The error that is acknowledged (negative), or how many messages of a kind came. */
static int ask(int s, struct req *r, int kind) {
    if (send(s, r, r->h.nlmsg_len, 0) < 0) return -errno;
    int count = 0;
    for (;;) {
        ssize_t n = recv(s, buf, sizeof buf, MSG_DONTWAIT);
        if (n < 0) return errno == EAGAIN && count ? count : -1000 - errno;
        for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            if (h->nlmsg_seq != r->h.nlmsg_seq) return -2000;
            if (h->nlmsg_type == NLMSG_ERROR) return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
            if (h->nlmsg_type == NLMSG_DONE) return count;
            if (h->nlmsg_type == kind) count++;
            if (!(h->nlmsg_flags & NLM_F_MULTI)) return count;
        }
    }
}

static int address(int s, int type, int flags, uint32_t ip, int prefix, int index) {
    struct req r = make(type, flags | NLM_F_ACK, sizeof(struct ifaddrmsg));
    r.a.ifa_family = AF_INET;
    r.a.ifa_prefixlen = (unsigned char)prefix;
    r.a.ifa_index = (unsigned)index;
    ip = htonl(ip);
    add(&r, IFA_LOCAL, &ip, 4);
    add(&r, IFA_ADDRESS, &ip, 4);
    return ask(s, &r, 0);
}
static int binds(uint32_t ip) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(ip)}};
    int result = bind(s, (void *)&a, sizeof a) < 0 ? errno : 0;
    close(s);
    return result;
}

static void making(void) {
    ERR("stream", socket(AF_NETLINK, SOCK_STREAM, 0), ESOCKTNOSUPPORT);
    ERR("protocol", socket(AF_NETLINK, SOCK_RAW, 31), EPROTONOSUPPORT);
    ERR("no protocol", socket(AF_NETLINK, SOCK_RAW, 99), EPROTONOSUPPORT);
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), t = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE);
    struct sockaddr_nl a = {.nl_family = AF_NETLINK}, b;
    socklen_t n = sizeof b;
    OK("no name", getsockname(s, (void *)&b, &n));
    EQ("is zero", b.nl_pid, 0);
    EQ("length", n, sizeof b);
    ERR("short", bind(s, (void *)&a, 11), EINVAL);
    a.nl_family = AF_INET;
    ERR("family", bind(s, (void *)&a, sizeof a), EINVAL);
    a.nl_family = AF_NETLINK;
    OK("bind", bind(s, (void *)&a, sizeof a));
    OK("name", getsockname(s, (void *)&b, &n));
    EQ("is the process", b.nl_pid, getpid());
    OK("same again", bind(s, (void *)&b, sizeof b));
    b.nl_pid++;
    ERR("another", bind(s, (void *)&b, sizeof b), EINVAL);
    b.nl_pid--;
    ERR("taken", bind(t, (void *)&b, sizeof b), EADDRINUSE);
    OK("bind the second", bind(t, (void *)&a, sizeof a));
    OK("its name", getsockname(t, (void *)&b, &n));
    YES("is another number", (int)b.nl_pid < 0);
    OK("peer", getpeername(t, (void *)&b, &n));
    EQ("is the kernel", b.nl_pid, 0);
    OK("connect to the kernel", connect(t, (void *)&a, sizeof a));
    ERR("listen", listen(t, 1), EOPNOTSUPP);
    ERR("accept", accept(t, NULL, NULL), EOPNOTSUPP);
    ERR("shutdown", shutdown(t, SHUT_RD), EOPNOTSUPP);
    ERR("urgent", send(t, "x", 1, MSG_OOB), EOPNOTSUPP);
    EQ("less than a header", send(t, "x", 1, 0), 1);
    ERR("has no answer", recv(t, buf, 9, MSG_DONTWAIT), EAGAIN);
    a.nl_pid = 12345678;
    ERR("nobody there", sendto(t, "x", 1, 0, (void *)&a, sizeof a), ECONNREFUSED);
    a.nl_family = AF_INET;
    ERR("to another family", sendto(t, "x", 1, 0, (void *)&a, sizeof a), EINVAL);
    close(s), close(t);
}

static void dumps(int s) {
    struct req r = make(RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
    YES("links", ask(s, &r, RTM_NEWLINK) >= 1);
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    r.i.ifi_index = 1;
    EQ("by number", ask(s, &r, RTM_NEWLINK), 1);
    struct nlmsghdr *h = (void *)buf;
    struct ifinfomsg *i = NLMSG_DATA(h);
    EQ("number", i->ifi_index, 1);
    EQ("kind", i->ifi_type, 772);
    EQ("up", i->ifi_flags & (IFF_UP | IFF_LOOPBACK), IFF_UP | IFF_LOOPBACK);
    EQ("to me", h->nlmsg_pid, getpid());
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    add(&r, 3, "lo", 3);
    EQ("by name", ask(s, &r, RTM_NEWLINK), 1);
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    add(&r, 3, "nosuch", 7);
    EQ("by no name", ask(s, &r, RTM_NEWLINK), -ENODEV);
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    r.i.ifi_index = 99999;
    EQ("by no number", ask(s, &r, RTM_NEWLINK), -ENODEV);
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    EQ("by nothing", ask(s, &r, RTM_NEWLINK), -EINVAL);
    r = make(RTM_GETLINK, 0, 4);
    EQ("too short", ask(s, &r, RTM_NEWLINK), -EINVAL);
    r = make(RTM_GETADDR, NLM_F_DUMP, sizeof(struct ifaddrmsg));
    r.a.ifa_family = AF_INET;
    YES("addresses", ask(s, &r, RTM_NEWADDR) >= 1);
    r = make(RTM_GETADDR, NLM_F_DUMP, 1);
    r.g.rtgen_family = AF_INET6;
    YES("short question", ask(s, &r, RTM_NEWADDR) >= 1);
    r = make(RTM_GETROUTE, NLM_F_DUMP, sizeof(struct rtmsg));
    r.r.rtm_family = AF_INET;
    YES("routes", ask(s, &r, RTM_NEWROUTE) >= 1);
    r = make(RTM_GETROUTE, 0, sizeof(struct rtmsg));
    r.r.rtm_family = AF_INET;
    r.r.rtm_dst_len = 32;
    add(&r, RTA_DST, "\177\0\0\1", 4);
    EQ("route to itself", ask(s, &r, RTM_NEWROUTE), 1);
    r = make(NLMSG_NOOP, NLM_F_ACK, 0);
    EQ("nothing", ask(s, &r, 0), 0);
    r = make(NLMSG_NOOP, 0, 0);
    EQ("without an answer", ask(s, &r, 0), -1000 - EAGAIN);
    r = make(5000, 0, 16);
    EQ("unknown", ask(s, &r, 0), -EOPNOTSUPP);
    r = make(RTM_GETLINK, NLM_F_ACK, sizeof(struct ifinfomsg));
    r.h.nlmsg_flags = NLM_F_ACK;
    r.i.ifi_index = 1;
    EQ("no request", ask(s, &r, 0), 0);
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    r.h.nlmsg_len = 8;
    send(s, &r, 32, 0);
    ERR("length too small", recv(s, buf, 99, MSG_DONTWAIT), EAGAIN);
    r.h.nlmsg_len = 999;
    send(s, &r, 32, 0);
    ERR("length too large", recv(s, buf, 99, MSG_DONTWAIT), EAGAIN);
    /* The answer has the request, and with NETLINK_CAP_ACK only its header. */
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    r.i.ifi_index = 99999;
    send(s, &r, r.h.nlmsg_len, 0);
    EQ("whole request", recv(s, buf, sizeof buf, MSG_DONTWAIT), 36 + 16);
    EQ("its number", ((struct nlmsgerr *)NLMSG_DATA(h))->msg.nlmsg_seq, r.h.nlmsg_seq);
    int on = 1;
    setsockopt(s, 270, NETLINK_CAP_ACK, &on, sizeof on);
    send(s, &r, r.h.nlmsg_len, 0);
    EQ("header only", recv(s, buf, sizeof buf, MSG_DONTWAIT), 36);
    EQ("says so", h->nlmsg_flags & NLM_F_CAPPED, NLM_F_CAPPED);
    on = 0;
    setsockopt(s, 270, NETLINK_CAP_ACK, &on, sizeof on);
    r = make(RTM_GETLINK, 0, sizeof(struct ifinfomsg));
    r.i.ifi_index = 1;
    send(s, &r, r.h.nlmsg_len, 0);
    EQ("peek at the length", recv(s, NULL, 0, MSG_PEEK | MSG_TRUNC) > 100, 1);
    struct sockaddr_nl from;
    struct iovec v = {buf, 20};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_name = &from, .msg_namelen = sizeof from};
    EQ("cut", recvmsg(s, &m, MSG_DONTWAIT), 20);
    EQ("and said", m.msg_flags, MSG_TRUNC);
    EQ("from the kernel", from.nl_pid, 0);
    ERR("the rest is gone", recv(s, buf, 9, MSG_DONTWAIT), EAGAIN);
}

static void addresses(int s) {
    EQ("not ours", binds(0x0a010203), EADDRNOTAVAIL);
    EQ("add", address(s, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, 0x0a010203, 32, 1), 0);
    EQ("ours", binds(0x0a010203), 0);
    EQ("no other", binds(0x0a010204), EADDRNOTAVAIL);
    EQ("add again", address(s, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, 0x0a010203, 32, 1), -EEXIST);
    struct req r = make(RTM_GETADDR, NLM_F_DUMP, sizeof(struct ifaddrmsg));
    r.a.ifa_family = AF_INET;
    YES("listed", ask(s, &r, RTM_NEWADDR) >= 2);
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(0x0a010203)}};
    socklen_t n = sizeof a;
    bind(l, (void *)&a, sizeof a);
    listen(l, 1);
    getsockname(l, (void *)&a, &n);
    OK("connect there", connect(c, (void *)&a, sizeof a));
    getsockname(c, (void *)&a, &n);
    EQ("from there", ntohl(a.sin_addr.s_addr), 0x0a010203);
    close(l), close(c);
    EQ("no interface", address(s, RTM_NEWADDR, NLM_F_CREATE, 0x0a010205, 32, 99999), -ENODEV);
    EQ("long prefix", address(s, RTM_NEWADDR, NLM_F_CREATE, 0x0a010205, 33, 1), -EINVAL);
    EQ("remove", address(s, RTM_DELADDR, 0, 0x0a010203, 32, 1), 0);
    EQ("not ours any more", binds(0x0a010203), EADDRNOTAVAIL);
    EQ("remove again", address(s, RTM_DELADDR, 0, 0x0a010203, 32, 1), -EADDRNOTAVAIL);
    EQ("a network", address(s, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, 0x0a020001, 24, 1), 0);
    EQ("all of it on the loopback interface", binds(0x0a020077), 0);
    EQ("remove", address(s, RTM_DELADDR, 0, 0x0a020001, 24, 1), 0);
    int status;
    CHILD(status, {
        if (setresuid(7, 7, 7)) _exit(2);
        int own = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
        _exit(address(own, RTM_NEWADDR, NLM_F_CREATE, 0x0a010203, 32, 1) != -EPERM);
    });
    EQ("not for everybody", status, 0);
}

int main(void) {
    alarm(30);
    /* A network of its own, not to change the host's. */
    OK("namespace", unshare(CLONE_NEWNET));
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    making();
    bind(s, (void *)&a, sizeof a);
    struct req r = make(RTM_NEWLINK, NLM_F_ACK, sizeof(struct ifinfomsg));
    r.i.ifi_index = 1;
    r.i.ifi_flags = r.i.ifi_change = IFF_UP;
    EQ("bring it up", ask(s, &r, 0), 0);
    dumps(s);
    addresses(s);
    return 0;
}
