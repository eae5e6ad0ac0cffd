/* Tracers in detail, ptrace(2): threads, tracers beside parents, who learns of ends, what becomes of tracees without their tracer. */
#include "tracing.h"

/* The parent hears of stops of its child that another traces. */
static void stops_for_parent(pid_t tracee) {
    trace(PTRACE_SEIZE, tracee, 0, 0);
    shared[2] = 1;
    wait_for(tracee);
    trace(PTRACE_CONT, tracee, 0, SIGSTOP);
    wait_for(tracee);
    UNTIL(shared[3]);
    trace(PTRACE_DETACH, tracee, 0, 0);
    UNTIL(shared[4]);
}

/* A tracer of its own for a tracee: what it does, then it ends. */
static pid_t with_tracer(pid_t tracee, void (*body)(pid_t)) {
    fflush(stdout);
    pid_t tracer = fork();
    if (tracer == 0) {
        alarm(20);
        body(tracee);
        _exit(0);
    }
    return tracer;
}

static void stops_of_another(void) {
    int status = 0;
    shared[2] = shared[3] = shared[4] = 0;
    pid_t pid = sleeper();
    pid_t tracer = with_tracer(pid, stops_for_parent);
    UNTIL(shared[2]);
    kill(pid, SIGSTOP);
    EQ("a stop for two", waitpid(pid, &status, WUNTRACED), pid);
    EQ("the signal", status, STOPPED(SIGSTOP));
    shared[3] = 1;
    UNTIL(state(pid) == 'T');
    EQ("stays when the tracer goes", state(pid), 'T');
    shared[4] = 1;
    wait_for(tracer);
    kill(pid, SIGCONT);
    UNTIL(state(pid) == 'S');
    EQ("until continued", state(pid), 'S');
    EQ("which is heard", waitpid(pid, &status, WCONTINUED), pid);
    kill(pid, SIGKILL);
    wait_for(pid);
}

static void two_parents(void) {
    int status;
    shared[0] = shared[1] = shared[2] = 0;
    fflush(stdout);
    pid_t tracee = fork();
    if (tracee == 0) {
        alarm(20);
        UNTIL(shared[1]);
        _exit(3);
    }
    pid_t tracer = fork();
    if (tracer == 0) {
        alarm(20);
        int bad = trace(PTRACE_SEIZE, tracee, 0, 0) != 0;
        shared[0] = 1;
        UNTIL(shared[2]);
        int status = wait_for(tracee);
        _exit(bad ? 100 : WIFEXITED(status) ? WEXITSTATUS(status) : 101);
    }
    UNTIL(shared[0]);
    shared[1] = 1;
    UNTIL(state(tracee) == 'Z');
    EQ("ended", state(tracee), 'Z');
    EQ("for its tracer first", waitpid(tracee, &status, WNOHANG), 0);
    siginfo_t info = {0};
    EQ("however it is asked for", waitid(P_PID, tracee, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    EQ("there is nothing", info.si_pid, 0);
    shared[2] = 1;
    EQ("the tracer's", wait_for(tracer), 3 << 8);
    EQ("then its parent's", wait_for(tracee), 3 << 8);
    /* The tracer ends without having asked. */
    shared[0] = shared[1] = shared[2] = 0;
    tracee = fork();
    if (tracee == 0) {
        alarm(20);
        UNTIL(shared[1]);
        _exit(4);
    }
    tracer = fork();
    if (tracer == 0) {
        alarm(20);
        trace(PTRACE_SEIZE, tracee, 0, 0);
        shared[0] = 1;
        UNTIL(shared[2]);
        _exit(0);
    }
    UNTIL(shared[0]);
    shared[1] = 1;
    UNTIL(state(tracee) == 'Z');
    EQ("nobody asks", waitpid(tracee, &status, WNOHANG), 0);
    shared[2] = 1;
    EQ("the tracer ends", wait_for(tracer), 0);
    EQ("its parent asks", wait_for(tracee), 4 << 8);
}

static void seizes_and_goes(pid_t tracee) {
    trace(PTRACE_SEIZE, tracee, 0, 0);
    trace(PTRACE_INTERRUPT, tracee, 0, 0);
    wait_for(tracee);
}

static void seizes_to_kill(pid_t tracee) {
    trace(PTRACE_SEIZE, tracee, 0, PTRACE_O_EXITKILL);
}

static void sees_a_signal(pid_t tracee) {
    trace(PTRACE_SEIZE, tracee, 0, 0);
    kill(tracee, SIGUSR1);
    wait_for(tracee);
}

static void does_not_see_it(pid_t tracee) {
    trace(PTRACE_SEIZE, tracee, 0, 0);
    kill(tracee, SIGUSR1);
    UNTIL(state(tracee) == 't');
}

static pid_t spinner(void) {
    shared[0] = shared[1] = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        hear(SIGUSR1);
        shared[0] = 1;
        UNTIL(shared[1]);
        _exit(caught ? 9 : 8);
    }
    UNTIL(shared[0]);
    return pid;
}

static void without_tracer(void) {
    pid_t pid = spinner();
    EQ("a tracer goes", wait_for(with_tracer(pid, seizes_and_goes)), 0);
    shared[1] = 1;
    EQ("its tracee goes on", wait_for(pid), 8 << 8);
    pid = spinner();
    EQ("one that kills", wait_for(with_tracer(pid, seizes_to_kill)), 0);
    EQ("has killed", wait_for(pid), SIGKILL);
    pid = spinner();
    EQ("one that saw a signal", wait_for(with_tracer(pid, sees_a_signal)), 0);
    shared[1] = 1;
    EQ("took it along", wait_for(pid), 8 << 8);
    pid = spinner();
    EQ("one that did not", wait_for(with_tracer(pid, does_not_see_it)), 0);
    shared[1] = 1;
    EQ("did not", wait_for(pid), 9 << 8);
}

static void *execs(void *unused) {
    shared[0] = syscall(SYS_gettid);
    execl("/bin/sh", "sh", "-c", "exit 6", NULL);
    return NULL;
}

static void thread_execs(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, execs, NULL);
    rests();
}

static void thread_ends(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, (void *(*)(void *))syscall, (void *)SYS_gettid);
    pthread_join(thread, NULL);
    _exit(2);
}

static void threads(void) {
    unsigned long message = 0, thread = 0;
    shared[0] = 0;
    pid_t pid = start(thread_execs, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
    EQ("a new thread", go(PTRACE_CONT, pid, 0), EVENT(PTRACE_EVENT_CLONE));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&thread);
    EQ("it stops", wait_for(thread), STOPPED(SIGSTOP));
    siginfo_t info;
    trace(PTRACE_CONT, pid, 0, 0);
    trace(PTRACE_CONT, thread, 0, 0);
    EQ("it runs a program", wait_for(pid), EVENT(PTRACE_EVENT_EXEC));
    OK("message", trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message));
    EQ("is its old number", message, thread);
    EQ("which it was", shared[0], thread);
    ERR("and is no more", trace(PTRACE_CONT, thread, 0, 0), ESRCH);
    ERR("to wait for neither", waitpid(thread, NULL, __WALL | WNOHANG), ECHILD);
    trace(PTRACE_GETSIGINFO, pid, 0, (long)&info);
    EQ("details", info.si_code, SIGTRAP | PTRACE_EVENT_EXEC << 8);
    EQ("a signal here is none", go(PTRACE_CONT, pid, SIGUSR1), 6 << 8);
    pid = start(thread_execs, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT);
    go(PTRACE_CONT, pid, 0);
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&thread);
    wait_for(thread);
    trace(PTRACE_CONT, pid, 0, 0);
    trace(PTRACE_CONT, thread, 0, 0);
    EQ("the first thread is to go", wait_for(pid), EVENT(PTRACE_EVENT_EXIT));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
    EQ("for no reason of its own", message, 0);
    EQ("before the program runs", go(PTRACE_CONT, pid, 0), EVENT(PTRACE_EVENT_EXEC));
    OK("it is left", trace(PTRACE_DETACH, pid, 0, 0));
    EQ("and ends", wait_for(pid), 6 << 8);
    pid = start(thread_ends, PTRACE_O_TRACECLONE);
    EQ("a thread that ends", go(PTRACE_CONT, pid, 0), EVENT(PTRACE_EVENT_CLONE));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&thread);
    wait_for(thread);
    trace(PTRACE_CONT, pid, 0, 0);
    trace(PTRACE_CONT, thread, 0, 0);
    EQ("its end", wait_for(thread), 0);
    EQ("its process's", wait_for(pid), 2 << 8);
}

static void returns(void) {
}

static void *asks(void *pid) {
    return (void *)(long)(trace(PTRACE_CONT, (long)pid, 0, 0) ? errno : 0);
}

static void *waits(void *pid) {
    return (void *)(long)wait_for((long)pid);
}

static void *seizes(void *pid) {
    return (void *)(long)(trace(PTRACE_SEIZE, (long)pid, 0, 0) ? errno : 0);
}

static void tracing_threads(void) {
    pthread_t thread;
    void *result;
    pid_t pid = start(returns, 0);
    pthread_create(&thread, NULL, asks, (void *)(long)pid);
    pthread_join(thread, &result);
    EQ("a tracer is a thread", (long)result, ESRCH);
    trace(PTRACE_CONT, pid, 0, 0);
    pthread_create(&thread, NULL, waits, (void *)(long)pid);
    pthread_join(thread, &result);
    EQ("any of them waits", (long)result, 0);
    pid = spinner();
    pthread_create(&thread, NULL, seizes, (void *)(long)pid);
    pthread_join(thread, &result);
    EQ("a thread seizes", (long)result, 0);
    ERR("and is gone", trace(PTRACE_INTERRUPT, pid, 0, 0), ESRCH);
    OK("for another", trace(PTRACE_SEIZE, pid, 0, 0));
    shared[1] = 1;
    EQ("who is told", wait_for(pid), 8 << 8);
}

/* The stop before the end, which even SIGKILL waits at. */
static void ends(void) {
    unsigned long message = 0;
    pid_t pid = sleeper();
    trace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT);
    kill(pid, SIGKILL);
    EQ("killed, but not gone", wait_for(pid), EVENT(PTRACE_EVENT_EXIT));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
    EQ("by this", message, SIGKILL);
    struct user_regs_struct registers;
    nap(700);
    OK("registers are there", trace(PTRACE_GETREGS, pid, 0, (long)&registers));
    kill(pid, SIGKILL);
    EQ("killing does not help", waitpid(pid, NULL, WNOHANG | __WALL), 0);
    EQ("gone", go(PTRACE_CONT, pid, 0), SIGKILL);
    pid = sleeper();
    trace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT);
    kill(pid, SIGUSR1);
    EQ("a signal", wait_for(pid), STOPPED(SIGUSR1));
    kill(pid, SIGKILL);
    EQ("killed while stopped", wait_for(pid), EVENT(PTRACE_EVENT_EXIT));
    EQ("gone, too", go(PTRACE_CONT, pid, 0), SIGKILL);
    pid = start(stops_itself, PTRACE_O_TRACEEXIT);
    go(PTRACE_CONT, pid, 0);
    go(PTRACE_CONT, pid, 0);
    EQ("an end of its own", go(PTRACE_CONT, pid, 0), EVENT(PTRACE_EVENT_EXIT));
    trace(PTRACE_GETEVENTMSG, pid, 0, (long)&message);
    EQ("with this status", message, 7 << 8);
    EQ("which it has", go(PTRACE_CONT, pid, 0), 7 << 8);
}

static void clones_traced(void) {
    pid_t pid = syscall(SYS_clone, CLONE_PTRACE | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(9);
    waitpid(pid, NULL, 0);
    _exit(1);
}

static void made_traced(void) {
    pid_t pid = start(clones_traced, 0);
    trace(PTRACE_CONT, pid, 0, 0);
    int status = -1;
    pid_t inner = waitpid(-1, &status, __WALL);
    YES("a tracee's child that is one", inner > 0 && inner != pid);
    EQ("stops", status, STOPPED(SIGSTOP));
    EQ("ends for its tracer", go(PTRACE_CONT, inner, 0), 9 << 8);
    EQ("then for its parent", wait_for(pid), STOPPED(SIGCHLD));
    EQ("who goes on", go(PTRACE_CONT, pid, 0), 1 << 8);
}

static void *has_children(void *unused) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    shared[0] = pid;
    UNTIL(shared[1]);
    int status = -1;
    return (void *)(long)(waitpid(pid, &status, __WNOTHREAD) == pid ? status : -errno);
}

static void children_of_threads(void) {
    pthread_t thread;
    void *result;
    shared[0] = shared[1] = 0;
    pthread_create(&thread, NULL, has_children, NULL);
    UNTIL(shared[0]);
    UNTIL(state(shared[0]) == 'Z');
    ERR("another thread's child", waitpid(shared[0], NULL, __WNOTHREAD | WNOHANG), ECHILD);
    shared[1] = 1;
    pthread_join(thread, &result);
    EQ("is its own", (long)result, 3 << 8);
}

int main(void) {
    alarm(30);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    stops_of_another();
    two_parents();
    without_tracer();
    threads();
    tracing_threads();
    ends();
    made_traced();
    children_of_threads();
    return 0;
}
