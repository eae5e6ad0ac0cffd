/* Terminals: pairs, line discipline, job control. */
#include "case.h"
#include <termios.h>
#include <pty.h>

static int master, slave;
static char buffer[256];

/* What the program side reads after this was typed; -1 if there is nothing. */
static int typed(const char *text) {
    write(master, text, strlen(text));
    nap(5);
    memset(buffer, 0, sizeof buffer);
    return read(slave, buffer, sizeof buffer - 1);
}

static int shown(void) {
    nap(5);
    memset(buffer, 0, sizeof buffer);
    return read(master, buffer, sizeof buffer - 1);
}

static void pairs(void) {
    master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    YES("ptmx", master >= 0);
    int number = -1, locked = 1;
    OK("number", ioctl(master, TIOCGPTN, &number));
    char name[32];
    sprintf(name, "/dev/pts/%d", number);
    ERR("locked", open(name, O_RDWR | O_NOCTTY), EIO);
    OK("grant", grantpt(master));
    OK("unlock", unlockpt(master));
    ioctl(master, TIOCGPTLCK, &locked);
    EQ("is unlocked", locked, 0);
    slave = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK);
    YES("slave", slave >= 0);
    YES("isatty", isatty(slave) && isatty(master));
    EQ("not a tty", isatty(open("/dev/null", O_RDWR)), 0);
    EQ("ENOTTY", errno, ENOTTY);
    struct stat st;
    fstat(slave, &st);
    EQ("device", st.st_rdev >> 8, 136);
    struct winsize size = {24, 80};
    OK("set size", ioctl(master, TIOCSWINSZ, &size));
    size.ws_row = 0;
    ioctl(slave, TIOCGWINSZ, &size);
    EQ("size", size.ws_row * 1000 + size.ws_col, 24080);
    ERR("strange ioctl", ioctl(slave, 0x54ff, name), ENOTTY);
    int peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    YES("peer", peer >= 0);
    close(peer);
}

static void discipline(void) {
    struct termios t;
    OK("tcgetattr", tcgetattr(slave, &t));
    EQ("canonical echo", t.c_lflag & (ICANON | ECHO | ISIG), ICANON | ECHO | ISIG);
    EQ("interrupt", t.c_cc[VINTR], 3);
    ERR("nothing typed", read(slave, buffer, 1), EAGAIN);
    write(master, "part", 4);
    nap(5);
    ERR("no line yet", read(slave, buffer, 10), EAGAIN);
    EQ("line", typed("ial\r"), 8);
    YES("line text", strcmp(buffer, "partial\n") == 0);
    shown();
    YES("echo", strcmp(buffer, "partial\r\n") == 0);
    EQ("erase", typed("abc\177\177x\n"), 3);
    YES("erased", strcmp(buffer, "ax\n") == 0);
    shown();
    YES("erase echo", strcmp(buffer, "abc\b \b\b \bx\r\n") == 0);
    EQ("kill", typed("abc\025d\n"), 2);
    EQ("word erase", typed("one two\027x\n"), 6);
    shown();
    EQ("two lines are read one by one", typed("a\nb\n"), 2);
    EQ("second line", read(slave, buffer, 100), 2);
    EQ("end of file", typed("\004"), 0);
    EQ("end of file after text", typed("ab\004"), 2);
    EQ("literal", typed("\026\003\n"), 2);
    EQ("literal byte", buffer[0], 3);
    shown();
    write(slave, "out\n", 4);
    shown();
    YES("output", strcmp(buffer, "out\r\n") == 0);
    typed("\001\n");
    shown();
    YES("echo of control", strcmp(buffer, "^A\r\n") == 0);
    int available;
    write(master, "xyz\n", 4);
    nap(5);
    ioctl(slave, FIONREAD, &available);
    EQ("available", available, 4);
    OK("flush", tcflush(slave, TCIFLUSH));
    ERR("flushed", read(slave, buffer, 10), EAGAIN);
    shown();
    struct termios raw = t;
    cfmakeraw(&raw);
    OK("raw", tcsetattr(slave, TCSANOW, &raw));
    EQ("raw bytes", typed("\003\r"), 2);
    YES("raw text", memcmp(buffer, "\003\r", 2) == 0);
    ERR("no echo", shown(), EAGAIN);
    write(slave, "a\n", 2);
    EQ("no processing", shown(), 2);
    fcntl(slave, F_SETFL, 0);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 1;
    tcsetattr(slave, TCSANOW, &raw);
    long long start = now_ms();
    EQ("timed read", read(slave, buffer, 10), 0);
    YES("timed", now_ms() - start >= 90);
    raw.c_cc[VMIN] = 3;
    raw.c_cc[VTIME] = 0;
    tcsetattr(slave, TCSANOW, &raw);
    EQ("at least three", typed("abc"), 3);
    t.c_iflag |= IGNCR;
    tcsetattr(slave, TCSAFLUSH, &t);
    EQ("ignored return", typed("a\rb\n"), 3);
    t.c_iflag &= ~IGNCR;
    t.c_lflag &= ~ECHO;
    tcsetattr(slave, TCSANOW, &t);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    shown();
    typed("quiet\n");
    ERR("quiet", shown(), EAGAIN);
    int packet = 1;
    OK("packet mode", ioctl(master, TIOCPKT, &packet));
    write(slave, "p", 1);
    EQ("packet", shown(), 2);
    EQ("packet head", buffer[0], 0);
    tcflush(slave, TCIOFLUSH);
    shown();
    YES("packet flush", buffer[0] & 3);
    packet = 0;
    ioctl(master, TIOCPKT, &packet);
    EQ("baud", cfgetospeed(&t), B38400);
    ERR("tcsendbreak none", tcsendbreak(99, 0), EBADF);
    ERR("group without terminal", tcgetpgrp(slave), ENOTTY);
}

static volatile int signals;
static void count(int number) {
    signals++;
}

static void control(void) {
    int status;
    fflush(stdout);
    fcntl(slave, F_SETFL, 0);
    struct termios t;
    tcgetattr(slave, &t);
    t.c_lflag |= ISIG | ICANON;
    tcsetattr(slave, TCSANOW, &t);
    pid_t child = fork();
    if (child == 0) {
        ERR("no terminal", open("/dev/tty", O_RDWR), ENXIO);
        setsid();
        ERR("no terminal in session", open("/dev/tty", O_RDWR), ENXIO);
        OK("take terminal", ioctl(slave, TIOCSCTTY, 0));
        int tty = open("/dev/tty", O_RDWR);
        YES("dev tty", tty >= 0);
        EQ("foreground", tcgetpgrp(tty), getpid());
        EQ("session", tcgetsid(tty), getpid());
        ERR("foreign group", tcsetpgrp(tty, 1), EPERM);
        ERR("no group", tcsetpgrp(tty, 999999), ESRCH);
        signal(SIGINT, count);
        struct sigaction action = {.sa_handler = count};
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGWINCH, &action, NULL);
        write(master, "\003", 1);
        UNTIL(signals == 1);
        EQ("interrupted", signals, 1);
        ioctl(master, TIOCSWINSZ, &(struct winsize){30, 90});
        UNTIL(signals == 2);
        EQ("size signal", signals, 2);
        fflush(stdout);
        pid_t background = fork();
        if (background == 0) {
            setpgid(0, 0);
            char byte;
            read(tty, &byte, 1);
            _exit(0);
        }
        int inner;
        waitpid(background, &inner, WUNTRACED);
        EQ("background reader stops", WIFSTOPPED(inner) ? WSTOPSIG(inner) : 0, SIGTTIN);
        kill(background, SIGKILL);
        waitpid(background, &inner, 0);
        fflush(stdout);
        background = fork();
        if (background == 0) {
            setpgid(0, 0);
            signal(SIGTTIN, SIG_IGN);
            char byte;
            _exit(read(tty, &byte, 1) == -1 ? errno : 0);
        }
        waitpid(background, &inner, 0);
        EQ("background reader that ignores", inner, EIO << 8);
        fflush(stdout);
        background = fork();
        if (background == 0) {
            setpgid(0, 0);
            tcsetpgrp(tty, getpid());
            _exit(0);
        }
        waitpid(background, &inner, WUNTRACED);
        EQ("background setter stops", WIFSTOPPED(inner) ? WSTOPSIG(inner) : 0, SIGTTOU);
        kill(background, SIGKILL);
        waitpid(background, &inner, 0);
        signal(SIGHUP, count);
        signals = 0;
        ioctl(tty, TIOCNOTTY);
        EQ("hang up at leaving", signals, 1);
        ERR("terminal left", open("/dev/tty", O_RDWR), ENXIO);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, &status, 0);
    EQ("session child", status, 0);
    close(master);
    EQ("read after hang up", read(slave, buffer, 10), 0);
    ERR("write after hang up", write(slave, "x", 1), EIO);
    struct pollfd ready = {slave, POLLIN, 0};
    poll(&ready, 1, 0);
    YES("poll after hang up", ready.revents & POLLHUP);
    int second[2];
    openpty(&second[0], &second[1], NULL, NULL, NULL);
    close(second[1]);
    ERR("read of master without slave", read(second[0], buffer, 10), EIO);
}

int main(void) {
    alarm(20);
    setsid();
    pairs();
    discipline();
    control();
    return 0;
}
