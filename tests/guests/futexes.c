/* Futexes of all kinds: waits, wakes, bit sets, requeues, robust lists, priority inheritance, many words; membarrier. */
#include "case.h"
#include <linux/futex.h>
#include <linux/membarrier.h>

static long futex(void *word, int operation, unsigned value, void *timeout, void *word2, unsigned value3) {
    return syscall(SYS_futex, word, operation, value, timeout, word2, value3);
}

static uint32_t word, word2;
static volatile int woken;
static uint32_t use_bits = ~0u;

static void *waiter(void *flags) {
    long result = futex(&word, FUTEX_WAIT_BITSET | (long)flags, 0, NULL, NULL, use_bits);
    __sync_fetch_and_add(&woken, 1);
    return (void *)(result == -1 ? (long)errno : 0);
}

static void plain(void) {
    struct timespec soon = {0, 20000000};
    ERR("other value", futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0), EAGAIN);
    ERR("timeout", futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0), ETIMEDOUT);
    soon.tv_nsec = -1;
    ERR("bad time", futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0), EINVAL);
    soon.tv_nsec = 1000000000;
    ERR("bad nanoseconds", futex(&word, FUTEX_WAIT, 0, &soon, NULL, 0), EINVAL);
    ERR("misaligned", futex((char *)&word + 1, FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
    ERR("misaligned wake", futex((char *)&word + 1, FUTEX_WAKE, 0, NULL, NULL, 0), EINVAL);
    ERR("bad address", futex((void *)4096, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0), EFAULT);
    ERR("bad address shared", futex((void *)4096, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
    ERR("bad address wake shared", futex((void *)4096, FUTEX_WAKE, 1, NULL, NULL, 0), EFAULT);
    ERR("strange", futex(&word, 60, 0, NULL, NULL, 0), ENOSYS);
    ERR("empty bits", futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
    ERR("empty wake bits", futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0), EINVAL);
    ERR("real time wake", futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, NULL, NULL, 0), ENOSYS);
    struct timespec past = {1, 0};
    ERR("past absolute", futex(&word, FUTEX_WAIT_BITSET, 0, &past, NULL, ~0u), ETIMEDOUT);
    ERR("past real time", futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &past, NULL, ~0u), ETIMEDOUT);
    EQ("wake none", futex(&word, FUTEX_WAKE, 10, NULL, NULL, 0), 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, waiter, (void *)FUTEX_PRIVATE_FLAG);
    nap(300);
    EQ("shared wake finds no private waiter", futex(&word2, FUTEX_WAKE, 10, NULL, NULL, 0), 0);
    EQ("wake one", futex(&word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 1);
    EQ("requeue", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, &word2, 0), 2);
    ERR("requeue other value", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)1, &word2, 7), EAGAIN);
    ERR("requeue negative", futex(&word, FUTEX_REQUEUE_PRIVATE, -1, (void *)1, &word2, 7), EINVAL);
    EQ("wake on second", futex(&word2, FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0), 1);
    EQ("wake last", futex(&word, FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0), 1);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    EQ("all woken", woken, 4);
    use_bits = 2;
    pthread_create(&threads[0], NULL, waiter, NULL);
    nap(200);
    EQ("other bits", futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 5), 0);
    EQ("own bits", futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 6), 1);
    pthread_join(threads[0], NULL);
    use_bits = ~0u;
    word2 = 5;
    EQ("wake op", futex(&word, FUTEX_WAKE_OP, 1, (void *)1, &word2, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)), 0);
    EQ("wake op added", word2, 8);
    ERR("wake op strange", futex(&word, FUTEX_WAKE_OP, 1, (void *)1, &word2, FUTEX_OP(7, 3, FUTEX_OP_CMP_EQ, 5)), ENOSYS);
    ERR("wake op bad", futex(&word, FUTEX_WAKE_OP, 1, (void *)1, (void *)8, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5)), EFAULT);
    /* Two processes over shared memory. */
    uint32_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        futex(shared, FUTEX_WAIT, 0, NULL, NULL, 0);
        _exit(*shared);
    }
    nap(200);
    *shared = 9;
    EQ("wake of a process", futex(shared, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
    int status;
    waitpid(child, &status, 0);
    EQ("woken process", status, 9 << 8);
}

struct waitv { uint64_t value, address; uint32_t flags, reserved; };

static void *wake_later(void *address) {
    /* Until the waiter was there to be woken. */
    UNTIL(futex(address, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 1);
    return NULL;
}

static void many(void) {
    static uint32_t words[3];
    struct waitv vector[3];
    for (int i = 0; i < 3; i++)
        vector[i] = (struct waitv){0, (uintptr_t)&words[i], 2 | FUTEX_PRIVATE_FLAG, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, wake_later, &words[2]);
    EQ("waitv", syscall(SYS_futex_waitv, vector, 3, 0, NULL, 0), 2);
    pthread_join(thread, NULL);
    ERR("waitv none", syscall(SYS_futex_waitv, vector, 0, 0, NULL, 0), EINVAL);
    ERR("waitv many", syscall(SYS_futex_waitv, vector, 129, 0, NULL, 0), EINVAL);
    ERR("waitv flags", syscall(SYS_futex_waitv, vector, 1, 1, NULL, 0), EINVAL);
    vector[1].value = 4;
    ERR("waitv other value", syscall(SYS_futex_waitv, vector, 3, 0, NULL, 0), EAGAIN);
    vector[1].flags = 99;
    ERR("waitv strange word", syscall(SYS_futex_waitv, vector, 3, 0, NULL, 0), EINVAL);
    vector[1].flags = vector[0].flags;
    vector[1].value = 0;
    struct timespec past = {1, 0};
    ERR("waitv timeout", syscall(SYS_futex_waitv, vector, 3, 0, &past, CLOCK_MONOTONIC), ETIMEDOUT);
    ERR("waitv clock", syscall(SYS_futex_waitv, vector, 3, 0, &past, CLOCK_BOOTTIME), EINVAL);
}

static pthread_mutex_t mutex;
static void *die_with_mutex(void *unused) {
    pthread_mutex_lock(&mutex);
    return NULL;
}

static volatile int is_held, let_go;
static void *hold_mutex(void *unused) {
    pthread_mutex_lock(&mutex);
    is_held = 1;
    while (!let_go)
        nap(2);
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void *let_go_later(void *unused) {
    nap(50);
    let_go = 1;
    return NULL;
}

static void robust(int protocol, const char *prefix) {
    char name[64];
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&attributes, protocol);
    pthread_mutex_init(&mutex, &attributes);
    pthread_t thread;
    pthread_create(&thread, NULL, die_with_mutex, NULL);
    pthread_join(thread, NULL);
    sprintf(name, "%s owner died", prefix);
    EQ(name, pthread_mutex_lock(&mutex), EOWNERDEAD);
    pthread_mutex_consistent(&mutex);
    pthread_mutex_unlock(&mutex);
    sprintf(name, "%s consistent again", prefix);
    EQ(name, pthread_mutex_lock(&mutex), 0);
    sprintf(name, "%s try", prefix);
    pthread_mutex_unlock(&mutex);
    pthread_t other;
    is_held = let_go = 0;
    pthread_create(&thread, NULL, hold_mutex, NULL);
    UNTIL(is_held);
    EQ(name, pthread_mutex_trylock(&mutex), EBUSY);
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += 20000000;
    if (at.tv_nsec >= 1000000000)
        at.tv_sec++, at.tv_nsec -= 1000000000;
    sprintf(name, "%s timed", prefix);
    EQ(name, pthread_mutex_timedlock(&mutex, &at), ETIMEDOUT);
    sprintf(name, "%s waited", prefix);
    pthread_create(&other, NULL, let_go_later, NULL);
    EQ(name, pthread_mutex_lock(&mutex), 0);
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
    pthread_mutex_destroy(&mutex);
}

static long counter;
static void *add(void *unused) {
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    return NULL;
}

static void inheritance(void) {
    uint32_t lock = 0;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&mutex, &attributes);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    EQ("contended", counter, 8000);
    pthread_mutex_destroy(&mutex);
    OK("lock", futex(&lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    EQ("owner", lock, gettid());
    ERR("lock again", futex(&lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    ERR("try again", futex(&lock, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0), EDEADLK);
    OK("unlock", futex(&lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    EQ("free", lock, 0);
    ERR("unlock not owned", futex(&lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0), EPERM);
    lock = 999999;
    ERR("lock of none", futex(&lock, FUTEX_LOCK_PI, 0, NULL, NULL, 0), ESRCH);
    lock = 0;
    OK("lock2", futex(&lock, FUTEX_LOCK_PI2, 0, NULL, NULL, 0));
    lock |= FUTEX_WAITERS;
    OK("unlock with waiters bit", futex(&lock, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    EQ("free again", lock, 0);
    lock = FUTEX_OWNER_DIED;
    OK("lock of the dead", futex(&lock, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
    ERR("requeue to itself", futex(&lock, FUTEX_CMP_REQUEUE_PI, 1, NULL, &lock, 0), EINVAL);
    ERR("requeue of two", futex(&word, FUTEX_CMP_REQUEUE_PI, 2, NULL, &lock, 0), EINVAL);
    ERR("wait requeue to itself", futex(&lock, FUTEX_WAIT_REQUEUE_PI, lock, NULL, &lock, 0), EINVAL);
}

static uint32_t condition, target_lock;
static volatile int got;
static void *requeued(void *unused) {
    long result = futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &target_lock, 0);
    if (result == 0 && (target_lock & FUTEX_TID_MASK) == gettid())
        __sync_fetch_and_add(&got, 1);
    futex(&target_lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0);
    return (void *)(result == -1 ? (long)errno : 0);
}

static void requeue_inheritance(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, requeued, NULL);
    nap(300);
    futex(&target_lock, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0);
    condition = 1;
    EQ("requeue pi", futex(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, (void *)10, &target_lock, 1), 3);
    EQ("held back", got, 0);
    OK("release", futex(&target_lock, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    EQ("each got the lock", got, 3);
    struct timespec past = {1, 0};
    condition = 0;
    ERR("wait requeue timeout", futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, &past, &target_lock, 0), ETIMEDOUT);
}

static void barriers(void) {
    int commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    YES("commands", commands > 0 && commands & MEMBARRIER_CMD_GLOBAL && commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    OK("global", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
    ERR("expedited unregistered", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
    OK("register", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    OK("expedited", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    OK("register global", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0));
    OK("global expedited", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0));
    ERR("flags", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 1, 0), EINVAL);
    ERR("strange command", syscall(SYS_membarrier, 3, 0, 0), EINVAL);
}

int main(void) {
    alarm(20);
    plain();
    many();
    robust(PTHREAD_PRIO_NONE, "robust");
    robust(PTHREAD_PRIO_INHERIT, "robust pi");
    inheritance();
    requeue_inheritance();
    barriers();
    return 0;
}
