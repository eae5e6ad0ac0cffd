/* Unix sockets: peeking at offsets, who the peer is, control data that does not fit, names, pairs, and messages by the dozen. */
#include "case.h"
#include <grp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#define PEERPIDFD 77
#define PASSPIDFD 76
#define SCM_PIDFD_ 4

static int set(int s, int level, int name, int value) { return setsockopt(s, level, name, &value, sizeof value); }
static long get(int s, int level, int name) {
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(s, level, name, &value, &length) < 0 ? -errno : value;
}
static char buf[70000];
/* The first byte of what came, 1000 times how many, or minus the error. */
static long first(int s, int count, int flags) {
    memset(buf, 0, 16);
    ssize_t got = recv(s, buf, (size_t)count, flags | MSG_DONTWAIT);
    return got < 0 ? -errno : got * 1000 + buf[0];
}

static void peeking(void) {
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    send(p[0], "abcd", 4, 0);
    send(p[0], "efgh", 4, 0);
    OK("offset", set(p[1], SOL_SOCKET, SO_PEEK_OFF, 1));
    EQ("second byte", first(p[1], 1, MSG_PEEK), 1000 + 'b');
    EQ("and on", first(p[1], 2, MSG_PEEK), 2000 + 'c');
    EQ("moved", get(p[1], SOL_SOCKET, SO_PEEK_OFF), 4);
    EQ("next message", first(p[1], 2, MSG_PEEK), 2000 + 'e');
    EQ("a read moves back", first(p[1], 3, 0), 3000 + 'a');
    EQ("by as much", get(p[1], SOL_SOCKET, SO_PEEK_OFF), 3);
    EQ("same place", first(p[1], 1, MSG_PEEK), 1000 + 'g');
    EQ("last", first(p[1], 9, MSG_PEEK), 1000 + 'h');
    EQ("past the end", first(p[1], 9, MSG_PEEK), -EAGAIN);
    OK("off", set(p[1], SOL_SOCKET, SO_PEEK_OFF, -1));
    EQ("from the start", first(p[1], 2, MSG_PEEK), 2000 + 'd');
    EQ("stays off", get(p[1], SOL_SOCKET, SO_PEEK_OFF), -1);
    OK("at zero", set(p[1], SOL_SOCKET, SO_PEEK_OFF, 0));
    EQ("a large read", first(p[1], 9, 0), 5000 + 'd');
    EQ("not below zero", get(p[1], SOL_SOCKET, SO_PEEK_OFF), 0);
    close(p[0]);
    close(p[1]);
    for (int kind = SOCK_DGRAM;; kind = SOCK_SEQPACKET) {
        socketpair(AF_UNIX, kind, 0, p);
        send(p[0], "abcd", 4, 0);
        send(p[0], "efgh", 4, 0);
        set(p[1], SOL_SOCKET, SO_PEEK_OFF, 2);
        EQ("inside a message", first(p[1], 1, MSG_PEEK), 1000 + 'c');
        EQ("its rest", first(p[1], 8, MSG_PEEK), 1000 + 'd');
        EQ("the next one", first(p[1], 8, MSG_PEEK), 4000 + 'e');
        EQ("none left", first(p[1], 8, MSG_PEEK), -EAGAIN);
        EQ("taken", first(p[1], 8, 0), 4000 + 'a');
        EQ("goes back", get(p[1], SOL_SOCKET, SO_PEEK_OFF), 4);
        EQ("whole lengths", first(p[1], 1, MSG_TRUNC), 4000 + 'e');
        close(p[0]);
        close(p[1]);
        if (kind == SOCK_SEQPACKET) break;
    }
}

static void peers(void) {
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    struct ucred who;
    socklen_t length = sizeof who;
    OK("peer", getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &who, &length));
    EQ("is me", who.pid, getpid());
    length = 4;
    OK("in less room", getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &who, &length));
    EQ("less is told", length, 4);
    gid_t own[3] = {5, 6, 7}, got[8];
    int status;
    CHILD(status, {
              setgroups(3, own);
              int q[2];
              socketpair(AF_UNIX, SOCK_DGRAM, 0, q);
              length = sizeof got;
              int result = getsockopt(q[0], SOL_SOCKET, SO_PEERGROUPS, got, &length);
              int good = result == 0 && length == 12 && got[0] == 5 && got[2] == 7;
              length = 8;
              result = getsockopt(q[0], SOL_SOCKET, SO_PEERGROUPS, got, &length);
              good = good && result < 0 && errno == ERANGE && length == 12;
              _exit(!good);
          });
    EQ("groups", status, 0);
    int fd = -1;
    length = sizeof fd;
    OK("descriptor of the peer", getsockopt(p[0], SOL_SOCKET, PEERPIDFD, &fd, &length));
    OK("is of a process", fd < 0 ? -1 : (int)syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    EQ("closed when executing", fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    int lone = socket(AF_UNIX, SOCK_STREAM, 0);
    length = sizeof fd;
    ERR("no peer", getsockopt(lone, SOL_SOCKET, PEERPIDFD, &fd, &length), ENODATA);
    length = sizeof got;
    ERR("no groups of no peer", getsockopt(lone, SOL_SOCKET, SO_PEERGROUPS, got, &length), ENODATA);
    length = sizeof who;
    OK("nobody", getsockopt(lone, SOL_SOCKET, SO_PEERCRED, &who, &length));
    EQ("at all", who.pid, 0);
    EQ("unknown user", who.uid, (uid_t)-1);
    close(lone);
    close(p[0]);
    close(p[1]);
}

struct cmsg {
    long count, flags, length, kind, n;
};
static struct cmsg take(int s, void *control, size_t room, int flags) {
    struct iovec piece = {buf, 8};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
    struct cmsg got = {recvmsg(s, &message, flags | MSG_DONTWAIT), 0, 0, 0, 0};
    if (got.count < 0) {
        got.count = -errno;
        return got;
    }
    got.flags = message.msg_flags;
    got.length = (long)message.msg_controllen;
    struct cmsghdr *item = CMSG_FIRSTHDR(&message);
    if (item) got.kind = item->cmsg_type, got.n = (long)item->cmsg_len;
    return got;
}
static int give(int s, const int *fds, int count, int times) {
    char control[2048] = {0};
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control};
    struct cmsghdr *item = (void *)control;
    for (int i = 0; i < times; i++) {
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
        memcpy(CMSG_DATA(item), fds, sizeof(int) * (size_t)count);
        message.msg_controllen += CMSG_SPACE(sizeof(int) * (size_t)count);
        item = (void *)(control + message.msg_controllen);
    }
    return (int)sendmsg(s, &message, 0);
}

static void rights(int kind) {
    int p[2], many[254];
    char room[2048];
    socketpair(AF_UNIX, kind, 0, p);
    for (int i = 0; i < 254; i++) many[i] = 0;
    struct cmsg got;
    OK("give one", give(p[0], many, 1, 1));
    got = take(p[1], room, 0, 0);
    EQ("no room for control data", got.flags, MSG_CTRUNC);
    EQ("and nothing told", got.length, 0);
    OK("give two", give(p[0], many, 2, 1));
    got = take(p[1], room, CMSG_LEN(sizeof(int)), MSG_CMSG_CLOEXEC);
    EQ("room for one", got.flags, MSG_CTRUNC | MSG_CMSG_CLOEXEC);
    EQ("one told", got.n, CMSG_LEN(sizeof(int)));
    int fd = *(int *)CMSG_DATA((struct cmsghdr *)room);
    EQ("closed when executing", fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
    give(p[0], many, 2, 1);
    got = take(p[1], room, CMSG_LEN(sizeof(int)) - 1, 0);
    EQ("room for a part", got.flags, MSG_CTRUNC);
    EQ("nothing comes", got.length, 0);
    give(p[0], many, 2, 1);
    got = take(p[1], room, 3, 0);
    EQ("less than a header", got.flags, MSG_CTRUNC);
    give(p[0], many, 3, 1);
    got = take(p[1], room, sizeof room, 0);
    EQ("three", got.n, CMSG_LEN(3 * sizeof(int)));
    EQ("padded", got.length, CMSG_SPACE(3 * sizeof(int)));
    EQ("plain", got.flags, 0);
    for (int i = 0; i < 3; i++) close(((int *)CMSG_DATA((struct cmsghdr *)room))[i]);
    ERR("too many", give(p[0], many, 254, 1), EINVAL);
    OK("most", give(p[0], many, 253, 1));
    got = take(p[1], NULL, 0, 0);
    EQ("lost", got.flags, MSG_CTRUNC);
    OK("two lists", give(p[0], many, 2, 2));
    got = take(p[1], room, sizeof room, 0);
    EQ("come as one", got.n, CMSG_LEN(4 * sizeof(int)));
    for (int i = 0; i < 4; i++) close(((int *)CMSG_DATA((struct cmsghdr *)room))[i]);
    int bad = 999;
    ERR("bad descriptor", give(p[0], &bad, 1, 1), EBADF);
    OK("empty list", give(p[0], many, 0, 1));
    got = take(p[1], room, sizeof room, 0);
    EQ("is none", got.length, 0);
    give(p[0], many, 1, 1);
    got = take(p[1], room, sizeof room, MSG_PEEK);
    EQ("peeked", got.n, CMSG_LEN(sizeof(int)));
    int seen = *(int *)CMSG_DATA((struct cmsghdr *)room);
    got = take(p[1], room, sizeof room, 0);
    int taken = *(int *)CMSG_DATA((struct cmsghdr *)room);
    YES("twice", seen != taken && fcntl(seen, F_GETFD) == 0 && fcntl(taken, F_GETFD) == 0);
    close(seen);
    close(taken);
    /* Credentials. */
    set(p[1], SOL_SOCKET, SO_PASSCRED, 1);
    send(p[0], "c", 1, 0);
    got = take(p[1], room, sizeof room, 0);
    EQ("credentials", got.kind, SCM_CREDENTIALS);
    EQ("whose", ((struct ucred *)CMSG_DATA((struct cmsghdr *)room))->pid, getpid());
    send(p[0], "c", 1, 0);
    got = take(p[1], room, CMSG_LEN(4), 0);
    EQ("cut credentials", got.flags, MSG_CTRUNC);
    EQ("as far as there is room", got.n, CMSG_LEN(4));
    give(p[0], many, 1, 1);
    got = take(p[1], room, CMSG_SPACE(sizeof(struct ucred)), 0);
    EQ("files do not fit", got.flags, MSG_CTRUNC);
    EQ("credentials do", got.length, CMSG_SPACE(sizeof(struct ucred)));
    /* Descriptors of processes. */
    set(p[1], SOL_SOCKET, SO_PASSCRED, 0);
    OK("wants descriptors", set(p[1], SOL_SOCKET, PASSPIDFD, 1));
    send(p[0], "p", 1, 0);
    got = take(p[1], room, sizeof room, 0);
    EQ("a descriptor of the sender", got.kind, SCM_PIDFD_);
    fd = *(int *)CMSG_DATA((struct cmsghdr *)room);
    OK("of a process", got.kind == SCM_PIDFD_ ? (int)syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) : -1);
    close(got.kind == SCM_PIDFD_ ? fd : -1);
    close(p[0]);
    close(p[1]);
}

static void forged(void) {
    int p[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
    char control[64] = {0};
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(struct ucred))};
    struct cmsghdr *item = (void *)control;
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_CREDENTIALS;
    item->cmsg_len = CMSG_LEN(sizeof(struct ucred));
    *(struct ucred *)CMSG_DATA(item) = (struct ucred){1, 0, 0};
    OK("root names others", sendmsg(p[0], &message, 0));
    *(struct ucred *)CMSG_DATA(item) = (struct ucred){999999, 0, 0};
    ERR("who exist", sendmsg(p[0], &message, 0), ESRCH);
    *(struct ucred *)CMSG_DATA(item) = (struct ucred){getpid(), (uid_t)-1, 0};
    ERR("valid users", sendmsg(p[0], &message, 0), EINVAL);
    item->cmsg_len = CMSG_LEN(4);
    ERR("of the right size", sendmsg(p[0], &message, 0), EINVAL);
    item->cmsg_len = 3;
    ERR("too short a length", sendmsg(p[0], &message, 0), EINVAL);
    item->cmsg_len = 500;
    ERR("too long a length", sendmsg(p[0], &message, 0), EINVAL);
    item->cmsg_len = CMSG_LEN(4);
    item->cmsg_type = 77;
    ERR("unknown kind", sendmsg(p[0], &message, 0), EINVAL);
    item->cmsg_level = 77;
    OK("another level", sendmsg(p[0], &message, 0));
    int status;
    CHILD(status, {
              item->cmsg_level = SOL_SOCKET;
              item->cmsg_type = SCM_CREDENTIALS;
              item->cmsg_len = CMSG_LEN(sizeof(struct ucred));
              *(struct ucred *)CMSG_DATA(item) = (struct ucred){getpid(), 7, 7};
              int refused = setresuid(7, 7, 7) == 0 && sendmsg(p[0], &message, 0) < 0 && errno == EPERM;
              *(struct ucred *)CMSG_DATA(item) = (struct ucred){getpid(), 7, 0};
              _exit(!(refused && sendmsg(p[0], &message, 0) == 1));
          });
    EQ("others do not", status, 0);
    close(p[0]);
    close(p[1]);
}

static socklen_t name(struct sockaddr_un *a, const char *text, int length) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    memcpy(a->sun_path, text, (size_t)length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length);
}

static void names(void) {
    struct sockaddr_un a, b;
    socklen_t length;
    int s = socket(AF_UNIX, SOCK_STREAM, 0), t = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_UNIX, SOCK_DGRAM, 0);
    length = sizeof b;
    OK("no name", getsockname(s, (void *)&b, &length));
    EQ("is a family", length, 2);
    length = 0;
    OK("in no room", getsockname(s, (void *)&b, &length));
    EQ("but told", length, 2);
    a.sun_family = AF_UNIX;
    OK("automatic", bind(s, (void *)&a, sizeof a.sun_family));
    length = sizeof b;
    getsockname(s, (void *)&b, &length);
    EQ("five letters", length, 2 + 6);
    EQ("abstract", b.sun_path[0], 0);
    OK("automatic again", bind(s, (void *)&a, sizeof a.sun_family));
    ERR("a name beside", bind(s, (void *)&a, name(&a, "\0abc", 4)), EINVAL);
    ERR("taken", bind(t, (void *)&b, length), EADDRINUSE);
    OK("of another kind", bind(d, (void *)&b, length));
    ERR("nobody listens", connect(t, (void *)&b, length), ECONNREFUSED);
    OK("listen", listen(s, 5));
    OK("connect", connect(t, (void *)&b, length));
    ERR("again", connect(t, (void *)&b, length), EISCONN);
    ERR("to nobody", connect(t, (void *)&a, name(&a, "\0nobody", 7)), ECONNREFUSED);
    ERR("listen to a connection", listen(t, 1), EINVAL);
    ERR("a listener connects", connect(s, (void *)&b, length), EINVAL);
    length = sizeof a;
    OK("peer's name", getpeername(t, (void *)&a, &length));
    EQ("is the listener's", length, 2 + 6);
    int c = accept(s, (void *)&a, &length);
    EQ("accepted from nobody", length, 2);
    length = sizeof a;
    OK("accepted name", getsockname(c, (void *)&a, &length));
    EQ("is the listener's, too", length, 2 + 6);
    close(s);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    ERR("a name that a connection keeps is nobody's", connect(s, (void *)&b, 8), ECONNREFUSED);
    close(c), close(t), close(d);
    t = socket(AF_UNIX, SOCK_STREAM, 0);
    OK("free again", bind(t, (void *)&b, 8));
    close(t);
    t = socket(AF_UNIX, SOCK_STREAM, 0);
    ERR("too short", bind(t, (void *)&b, 1), EINVAL);
    ERR("too long", bind(t, (void *)buf, sizeof(struct sockaddr_un) + 1), EINVAL);
    b.sun_family = AF_INET;
    ERR("another family", bind(t, (void *)&b, 8), EINVAL);
    ERR("connect to another family", connect(t, (void *)&b, 8), EINVAL);
    unlink("case.sock");
    length = name(&a, "case.sock", 9);
    OK("a path without its end", bind(t, (void *)&a, length));
    length = sizeof b;
    getsockname(t, (void *)&b, &length);
    EQ("has one", length, 2 + 10);
    struct stat st;
    OK("is there", stat("case.sock", &st));
    YES("as a socket", S_ISSOCK(st.st_mode));
    ERR("cannot be opened", open("case.sock", O_RDWR), ENXIO);
    int e = socket(AF_UNIX, SOCK_STREAM, 0);
    ERR("exists", bind(e, (void *)&a, 2 + 9), EADDRINUSE);
    ERR("not listening", connect(e, (void *)&a, 2 + 9), ECONNREFUSED);
    close(t);
    ERR("nobody behind it", connect(e, (void *)&a, 2 + 9), ECONNREFUSED);
    unlink("case.sock");
    ERR("gone", connect(e, (void *)&a, 2 + 9), ENOENT);
    int f = open("case.sock", O_CREAT | O_RDWR, 0600);
    ERR("a file", connect(e, (void *)&a, 2 + 9), ECONNREFUSED);
    close(f);
    unlink("case.sock");
    length = name(&a, "nowhere/case.sock", 17);
    ERR("no directory", bind(e, (void *)&a, length), ENOENT);
    length = name(&a, "\0same", 5);
    OK("abstract name", bind(e, (void *)&a, length));
    length = name(&b, "\0same\0", 6);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    OK("every byte counts", bind(s, (void *)&b, length));
    close(e), close(s);
    /* Datagrams: connected to by one only. */
    int x = socket(AF_UNIX, SOCK_DGRAM, 0), y = socket(AF_UNIX, SOCK_DGRAM, 0), z = socket(AF_UNIX, SOCK_DGRAM, 0);
    socklen_t xl = name(&a, "\0x-case", 7), yl = name(&b, "\0y-case", 7);
    bind(x, (void *)&a, xl), bind(y, (void *)&b, yl);
    OK("connect x to y", connect(x, (void *)&b, yl));
    ERR("z cannot reach x", sendto(z, "z", 1, 0, (void *)&a, xl), EPERM);
    ERR("nor connect", connect(z, (void *)&a, xl), EPERM);
    OK("y can", sendto(y, "y", 1, 0, (void *)&a, xl));
    OK("x elsewhere in spite of that", sendto(x, "y", 1, 0, (void *)&b, yl));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK("x disconnects", connect(x, &none, sizeof none));
    ERR("has no peer", send(x, "n", 1, 0), ENOTCONN);
    length = sizeof a;
    ERR("none to name", getpeername(x, (void *)&b, &length), ENOTCONN);
    OK("z can now", sendto(z, "z", 1, 0, (void *)&a, xl));
    close(x);
    ERR("nobody there", sendto(z, "z", 1, 0, (void *)&a, xl), ECONNREFUSED);
    ERR("no destination", send(z, "z", 1, 0), ENOTCONN);
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    ERR("kinds differ", connect(s, (void *)name, 0), EINVAL);
    yl = name(&b, "\0y-case", 7);
    ERR("streams find no datagrams", connect(s, (void *)&b, yl), ECONNREFUSED);
    close(s), close(y), close(z);
}

static void pairs(void) {
    int p[2];
    for (int kind = SOCK_STREAM; kind <= SOCK_SEQPACKET; kind++) {
        if (kind == SOCK_RDM) {
            ERR("reliable pair", socketpair(AF_UNIX, kind, 0, p), ESOCKTNOSUPPORT);
            continue;
        }
        OK("pair", socketpair(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, p));
        EQ("of its kind", get(p[0], SOL_SOCKET, SO_TYPE), kind == SOCK_RAW ? SOCK_DGRAM : kind);
        EQ("closed when executing", fcntl(p[1], F_GETFD), FD_CLOEXEC);
        EQ("nothing yet", first(p[0], 1, 0), -EAGAIN);
        EQ("a write of nothing", write(p[0], "", 0), 0);
        EQ("is a message of some", first(p[1], 1, 0), kind == SOCK_STREAM ? -EAGAIN : 0);
        close(p[0]);
        close(p[1]);
    }
    ERR("internet", socketpair(AF_INET, SOCK_STREAM, 0, p), EOPNOTSUPP);
    ERR("netlink", socketpair(AF_NETLINK, SOCK_RAW, 0, p), EOPNOTSUPP);
    ERR("unknown family", socketpair(99, SOCK_STREAM, 0, p), EAFNOSUPPORT);
    ERR("protocol", socketpair(AF_UNIX, SOCK_STREAM, 7, p), EPROTONOSUPPORT);
    OK("its own number", socketpair(AF_UNIX, SOCK_STREAM, PF_UNIX, p));
    close(p[0]), close(p[1]);
    ERR("bad kind", socketpair(AF_UNIX, 99, 0, p), EINVAL);
    ERR("bad place", socketpair(AF_UNIX, SOCK_STREAM, 0, NULL), EFAULT);
}

static void ends(void) {
    int p[2];
    signal(SIGPIPE, SIG_IGN);
    for (int kind = SOCK_STREAM; kind <= SOCK_SEQPACKET; kind += kind == SOCK_STREAM ? 1 : 3) {
        socketpair(AF_UNIX, kind, 0, p);
        OK("no more writing", shutdown(p[0], SHUT_WR));
        ERR("nothing is written", send(p[0], "x", 1, 0), EPIPE);
        EQ("end", first(p[1], 1, 0), kind == SOCK_DGRAM ? -EAGAIN : 0);
        OK("the other way", send(p[1], "x", 1, 0));
        OK("no more reading", shutdown(p[0], SHUT_RD));
        EQ("what was there", first(p[0], 1, 0), 1000 + 'x');
        EQ("then the end", first(p[0], 1, 0), kind == SOCK_DGRAM ? -EAGAIN : 0);
        ERR("peer cannot", send(p[1], "x", 1, 0), EPIPE);
        ERR("no such way", shutdown(p[0], 3), EINVAL);
        close(p[0]);
        EQ("peer closed", first(p[1], 1, 0), kind == SOCK_DGRAM ? -EAGAIN : 0);
        ERR("to a closed peer", send(p[1], "x", 1, 0), kind == SOCK_DGRAM ? ECONNREFUSED : EPIPE);
        close(p[1]);
    }
    for (int kind = SOCK_STREAM; kind <= SOCK_SEQPACKET; kind += 4) {
        socketpair(AF_UNIX, kind, 0, p);
        send(p[1], "unread", 6, 0);
        close(p[0]);
        EQ("unread bytes break it", first(p[1], 1, 0), -ECONNRESET);
        EQ("once", first(p[1], 1, 0), 0);
        close(p[1]);
    }
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    ERR("unconnected send", send(s, "x", 1, 0), ENOTCONN);
    EQ("unconnected receive", first(s, 1, 0), -EINVAL);
    ERR("unconnected accept", accept(s, NULL, NULL), EINVAL);
    ERR("unbound listen", listen(s, 1), EINVAL);
    OK("unconnected shutdown", shutdown(s, SHUT_RDWR));
    struct pollfd q = {s, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&q, 1, 0);
    close(s);
    s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    EQ("unconnected packet", first(s, 1, 0), -ENOTCONN);
    close(s);
    s = socket(AF_UNIX, SOCK_DGRAM, 0);
    ERR("datagrams accept", accept(s, NULL, NULL), EOPNOTSUPP);
    ERR("datagrams listen", listen(s, 1), EOPNOTSUPP);
    ERR("urgent datagram", send(s, "x", 1, MSG_OOB), EOPNOTSUPP);
    close(s);
}

static void dozens(void) {
    int p[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
    struct mmsghdr m[4];
    struct iovec v[4];
    char texts[4][8] = {"a", "bb", "ccc", "dddd"};
    memset(m, 0, sizeof m);
    for (int i = 0; i < 4; i++) v[i] = (struct iovec){texts[i], (size_t)i + 1}, m[i].msg_hdr.msg_iov = &v[i], m[i].msg_hdr.msg_iovlen = 1;
    EQ("send four", sendmmsg(p[0], m, 4, 0), 4);
    EQ("length", m[3].msg_len, 4);
    EQ("none", sendmmsg(p[0], m, 0, 0), 0);
    for (int i = 0; i < 4; i++) v[i].iov_len = 8;
    EQ("receive three", recvmmsg(p[1], m, 3, 0, NULL), 3);
    EQ("third length", m[2].msg_len, 3);
    EQ("what is there", recvmmsg(p[1], m, 4, MSG_DONTWAIT, NULL), 1);
    ERR("nothing", recvmmsg(p[1], m, 4, MSG_DONTWAIT, NULL), EAGAIN);
    struct timespec bad = {0, 1000000000}, none = {0, 0};
    ERR("bad time", recvmmsg(p[1], m, 1, MSG_DONTWAIT, &bad), EINVAL);
    send(p[0], "1", 1, 0), send(p[0], "2", 1, 0);
    EQ("no time", recvmmsg(p[1], m, 4, 0, &none), 1);
    EQ("wait for one", recvmmsg(p[1], m, 4, MSG_WAITFORONE, NULL), 1);
    v[1].iov_base = NULL;
    for (int i = 0; i < 4; i++) v[i].iov_len = 1;
    EQ("as far as it goes", sendmmsg(p[0], m, 4, 0), 1);
    ERR("bad first", sendmmsg(p[0], m + 1, 2, 0), EFAULT);
    close(p[0]), close(p[1]);
}

static void waits(void) {
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    struct timeval t = {0, 20000};
    setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(p[0], SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    ERR("no reader's patience", recv(p[0], buf, 1, 0), EAGAIN);
    set(p[0], SOL_SOCKET, SO_SNDBUF, 4608);
    long sent = 0, got;
    while ((got = send(p[0], buf, sizeof buf, 0)) > 0) sent += got;
    EQ("no writer's patience", got < 0 ? errno : 0, EAGAIN);
    YES("after some", sent > 0);
    t.tv_sec = -1;
    setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    ERR("none at all", recv(p[0], buf, 1, 0), EAGAIN);
    close(p[0]), close(p[1]);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    bind(s, (void *)&a, 2);
    listen(s, 1);
    t = (struct timeval){0, 20000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    ERR("nobody connects", accept(s, NULL, NULL), EAGAIN);
    close(s);
    /* MSG_WAITALL and records. */
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    send(p[0], "abc", 3, 0);
    close(p[0]);
    EQ("all that ever comes", recv(p[1], buf, 10, MSG_WAITALL), 3);
    close(p[1]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    send(p[0], "abc", 3, 0);
    EQ("truncated stream", recv(p[1], buf, 2, MSG_TRUNC), 2);
    EQ("the rest", recv(p[1], buf, 2, 0), 1);
    ERR("out of band of nothing", recv(p[1], buf, 1, MSG_OOB), EINVAL);
    close(p[0]), close(p[1]);
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, p);
    send(p[0], "abc", 3, 0);
    struct cmsg m = take(p[1], NULL, 0, 0);
    EQ("record", m.flags, 0);
    send(p[0], "abc", 3, MSG_EOR);
    m = take(p[1], NULL, 0, 0);
    EQ("end of record", m.flags, 0);
    send(p[0], "0123456789", 10, 0);
    m = take(p[1], NULL, 0, 0);
    EQ("cut record", m.flags, MSG_TRUNC);
    close(p[0]), close(p[1]);
    /* Stamps of time. */
    socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
    char room[256];
    set(p[1], SOL_SOCKET, SO_TIMESTAMP, 1);
    send(p[0], "t", 1, 0);
    m = take(p[1], room, sizeof room, 0);
    EQ("stamp", m.kind, SO_TIMESTAMP);
    set(p[1], SOL_SOCKET, SO_TIMESTAMPNS, 1);
    send(p[0], "t", 1, 0);
    m = take(p[1], room, sizeof room, 0);
    EQ("finer stamp", m.kind, SO_TIMESTAMPNS);
    set(p[1], SOL_SOCKET, SO_TIMESTAMPNS, 0);
    send(p[0], "t", 1, 0);
    m = take(p[1], room, sizeof room, 0);
    EQ("no stamp", m.length, 0);
    close(p[0]), close(p[1]);
}

int main(void) {
    alarm(30);
    enter_directory();
    peeking();
    peers();
    rights(SOCK_STREAM);
    rights(SOCK_DGRAM);
    rights(SOCK_SEQPACKET);
    forged();
    names();
    pairs();
    ends();
    dozens();
    waits();
    return 0;
}
