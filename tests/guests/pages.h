/* What the programs about memory share: mapping pages, and touching them without dying of it. */
#include <setjmp.h>

#define PAGE 4096
static sigjmp_buf back;
static void fault(int number) {
    siglongjmp(back, number);
}

/* The signal that touching a byte raises, or 0. */
static int touch(volatile char *at, int write) {
    int number = sigsetjmp(back, 1);
    if (!number) {
        char byte = *at;
        if (write)
            *at = byte;
    }
    return number;
}

static void *map(size_t pages, int protection, int flags, int fd, off_t offset) {
    return mmap(NULL, pages * PAGE, protection, flags, fd, offset);
}
