/* Clocks and timers: reading, sleeping, interval timers, POSIX timers, timerfd. */
#include "case.h"
#include <sys/times.h>
#include <sys/timex.h>

static volatile int rings;
static void ring(int number) {
    rings++;
}

static void clocks(void) {
    struct timespec time, other;
    OK("realtime", clock_gettime(CLOCK_REALTIME, &time));
    OK("monotonic", clock_gettime(CLOCK_MONOTONIC, &time));
    OK("boottime", clock_gettime(CLOCK_BOOTTIME, &other));
    YES("boottime near monotonic", other.tv_sec >= time.tv_sec);
    OK("coarse", clock_gettime(CLOCK_MONOTONIC_COARSE, &time));
    OK("raw", clock_gettime(CLOCK_MONOTONIC_RAW, &time));
    OK("tai", clock_gettime(CLOCK_TAI, &time));
    OK("process", clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time));
    OK("thread", clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time));
    ERR("strange", syscall(SYS_clock_gettime, 99, &time), EINVAL);
    ERR("bad pointer", syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8), EFAULT);
    OK("resolution", clock_getres(CLOCK_MONOTONIC, &time));
    EQ("resolution of 1 ns", time.tv_nsec, 1);
    OK("resolution without place", clock_getres(CLOCK_MONOTONIC, NULL));
    ERR("resolution strange", clock_getres(99, NULL), EINVAL);
    clockid_t clock;
    EQ("clock of a process", clock_getcpuclockid(getpid(), &clock), 0);
    OK("read it", clock_gettime(clock, &time));
    EQ("clock of none", clock_getcpuclockid(999999, &clock), ESRCH);
    ERR("set monotonic", clock_settime(CLOCK_MONOTONIC, &time), EINVAL);
    ERR("set strange", clock_settime(99, &time), EINVAL);
    struct timespec before, after;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    for (volatile int i = 0; i < 20000000; i++)
        ;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    YES("thread time runs", (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec > 1000000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    nap(50);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    YES("sleep takes no time", (after.tv_sec - before.tv_sec) * 1000000000LL + after.tv_nsec - before.tv_nsec < 20000000);
    struct tms tms;
    YES("times", times(&tms) != -1 && tms.tms_utime >= 0);
    struct timeval now;
    OK("gettimeofday", gettimeofday(&now, NULL));
    struct timex adjust = {0};
    YES("adjtimex read", adjtimex(&adjust) >= 0);
}

static void sleeping(void) {
    struct timespec time = {0, 1000000000};
    ERR("bad nanoseconds", nanosleep(&time, NULL), EINVAL);
    time = (struct timespec){-1, 0};
    ERR("negative", nanosleep(&time, NULL), EINVAL);
    ERR("bad pointer", syscall(SYS_nanosleep, 8, 0), EFAULT);
    time = (struct timespec){0, 30000000};
    long long start = now_ms();
    OK("nanosleep", nanosleep(&time, NULL));
    YES("slept", now_ms() - start >= 29);
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec -= 1;
    EQ("absolute past", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL), 0);
    EQ("thread clock", clock_nanosleep(CLOCK_THREAD_CPUTIME_ID, 0, &time, NULL), EINVAL);
    EQ("strange clock", syscall(SYS_clock_nanosleep, 99, 0, &time, NULL) == -1 ? errno : 0, EINVAL);
    EQ("coarse clock", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC_COARSE, 0, &time, NULL) == -1 ? errno : 0, EOPNOTSUPP);
}

static void intervals(void) {
    struct itimerval timer = {{0, 0}, {0, 20000}}, old;
    signal(SIGALRM, ring);
    OK("setitimer", setitimer(ITIMER_REAL, &timer, NULL));
    OK("getitimer", getitimer(ITIMER_REAL, &old));
    YES("time left", old.it_value.tv_usec > 0 && old.it_value.tv_usec <= 20000);
    pause();
    EQ("rang", rings, 1);
    getitimer(ITIMER_REAL, &old);
    EQ("disarmed", old.it_value.tv_usec, 0);
    timer.it_interval.tv_usec = 10000;
    timer.it_value.tv_usec = 10000;
    setitimer(ITIMER_REAL, &timer, NULL);
    while (rings < 4)
        pause();
    timer = (struct itimerval){0};
    OK("stop", setitimer(ITIMER_REAL, &timer, &old));
    EQ("old interval", old.it_interval.tv_usec, 10000);
    ERR("strange", setitimer(9, &timer, NULL), EINVAL);
    timer.it_value.tv_usec = 1000000;
    ERR("bad microseconds", setitimer(ITIMER_REAL, &timer, NULL), EINVAL);
    ERR("bad pointer", setitimer(ITIMER_REAL, (void *)8, NULL), EFAULT);
    EQ("alarm", alarm(10), 0);
    EQ("alarm left", alarm(0), 10);
    signal(SIGVTALRM, ring);
    rings = 0;
    timer = (struct itimerval){{0, 0}, {0, 20000}};
    setitimer(ITIMER_VIRTUAL, &timer, NULL);
    nap(60);
    EQ("virtual timer does not run in sleep", rings, 0);
    long long start = now_ms();
    while (!rings && now_ms() - start < 3000)
        ;
    EQ("virtual timer rang", rings, 1);
    signal(SIGPROF, ring);
    rings = 0;
    setitimer(ITIMER_PROF, &timer, NULL);
    start = now_ms();
    while (!rings && now_ms() - start < 3000)
        ;
    EQ("profiling timer rang", rings, 1);
}

static volatile int timer_value;
static void timer_handler(int number, siginfo_t *info, void *context) {
    rings++;
    timer_value = info->si_code == SI_TIMER ? info->si_value.sival_int : -1;
}

static volatile int notified;
static void notify(union sigval value) {
    notified = value.sival_int;
}

static void posix_timers(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 31};
    struct sigaction action = {.sa_sigaction = timer_handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    ERR("timer strange clock", timer_create(99, &event, &timer), EINVAL);
    event.sigev_signo = 100;
    ERR("timer strange signal", timer_create(CLOCK_MONOTONIC, &event, &timer), EINVAL);
    event.sigev_signo = SIGUSR1;
    OK("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec spec = {{0, 0}, {0, 10000000}}, old;
    rings = 0;
    OK("timer_settime", timer_settime(timer, 0, &spec, NULL));
    while (!rings)
        nap(1);
    EQ("value", timer_value, 31);
    OK("timer_gettime", timer_gettime(timer, &old));
    EQ("expired", old.it_value.tv_nsec, 0);
    sigset_t set, before;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, &before);
    spec.it_interval.tv_nsec = 5000000;
    timer_settime(timer, 0, &spec, NULL);
    nap(60);
    rings = 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    spec = (struct itimerspec){0};
    int overrun = timer_getoverrun(timer);
    timer_settime(timer, 0, &spec, NULL);
    YES("overrun", overrun >= 5 && rings >= 1);
    spec.it_value.tv_nsec = -1;
    ERR("bad time", timer_settime(timer, 0, &spec, NULL), EINVAL);
    ERR("no new value", syscall(SYS_timer_settime, 0, 0, NULL, NULL), EINVAL);
    OK("timer_delete", timer_delete(timer));
    ERR("timer_delete again", syscall(SYS_timer_delete, 12345), EINVAL);
    ERR("timer_gettime none", syscall(SYS_timer_gettime, 12345, &old), EINVAL);
    event.sigev_notify = SIGEV_NONE;
    timer_create(CLOCK_REALTIME, &event, &timer);
    spec = (struct itimerspec){{0, 0}, {5, 0}};
    timer_settime(timer, 0, &spec, NULL);
    timer_gettime(timer, &old);
    YES("silent timer runs", old.it_value.tv_sec >= 1 && old.it_value.tv_sec < 5);
    timer_delete(timer);
    event.sigev_notify = SIGEV_THREAD;
    event.sigev_notify_function = notify;
    event.sigev_notify_attributes = NULL;
    event.sigev_value.sival_int = 8;
    timer_create(CLOCK_MONOTONIC, &event, &timer);
    spec = (struct itimerspec){{0, 0}, {0, 5000000}};
    timer_settime(timer, 0, &spec, NULL);
    for (int i = 0; i < 500 && !notified; i++)
        nap(2);
    EQ("thread notified", notified, 8);
    timer_delete(timer);
    event = (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 3};
    timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
    spec = (struct itimerspec){{0, 0}, {0, 20000000}};
    timer_settime(timer, 0, &spec, NULL);
    rings = 0;
    nap(60);
    EQ("processor timer does not run in sleep", rings, 0);
    long long start = now_ms();
    while (!rings && now_ms() - start < 3000)
        ;
    EQ("processor timer rang", rings, 1);
    timer_delete(timer);
}

static void descriptors(void) {
    uint64_t count;
    ERR("timerfd strange clock", timerfd_create(99, 0), EINVAL);
    ERR("timerfd flags", timerfd_create(CLOCK_MONOTONIC, 1), EINVAL);
    ERR("timerfd cpu clock", timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0), EINVAL);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    ERR("not armed", read(fd, &count, 8), EAGAIN);
    struct itimerspec spec = {{0, 10000000}, {0, 10000000}}, old;
    ERR("settime flags", timerfd_settime(fd, 64, &spec, NULL), EINVAL);
    OK("settime", timerfd_settime(fd, 0, &spec, NULL));
    ERR("small", read(fd, &count, 4), EINVAL);
    nap(55);
    EQ("read", read(fd, &count, 8), 8);
    YES("count", count >= 4);
    OK("gettime", timerfd_gettime(fd, &old));
    EQ("interval", old.it_interval.tv_nsec, 10000000);
    YES("left", old.it_value.tv_nsec > 0 && old.it_value.tv_nsec <= 10000000);
    spec = (struct itimerspec){0};
    OK("disarm", timerfd_settime(fd, 0, &spec, NULL));
    ERR("disarmed", read(fd, &count, 8), EAGAIN);
    spec.it_value.tv_nsec = 1;
    timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, NULL);
    struct pollfd ready = {fd, POLLIN, 0};
    EQ("absolute past", poll(&ready, 1, 100), 1);
    EQ("absolute once", ({read(fd, &count, 8); count; }), 1);
    ERR("bad time", ({spec.it_value.tv_nsec = 1000000000; timerfd_settime(fd, 0, &spec, NULL); }), EINVAL);
    ERR("not a timer", timerfd_gettime(0, &old), EINVAL);
    ERR("write", write(fd, &count, 8), EINVAL);
}

/* What a checkpoint puts back: expirations that nobody had read. */
static void ticks(void) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    uint64_t count = 0;
    unsigned long set_ticks = 0x40085400;
    ERR("nothing expired", read(fd, &count, 8), EAGAIN);
    ERR("no ticks", ioctl(fd, set_ticks, &count), EINVAL);
    ERR("ticks from nowhere", ioctl(fd, set_ticks, 8), EFAULT);
    count = 5;
    OK("ticks", ioctl(fd, set_ticks, &count));
    struct pollfd ready = {fd, POLLIN, 0};
    EQ("are there", poll(&ready, 1, 0), 1);
    count = 0;
    EQ("and read", read(fd, &count, 8), 8);
    EQ("as many", count, 5);
    ERR("once", read(fd, &count, 8), EAGAIN);
    ERR("another request", ioctl(fd, 0x5400 + 1, &count), ENOTTY);
    close(fd);
}

int main(void) {
    clocks();
    sleeping();
    intervals();
    posix_timers();
    descriptors();
    ticks();
    return 0;
}
