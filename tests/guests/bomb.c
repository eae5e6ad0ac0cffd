/* Forks for ever; with an argument, takes memory for ever instead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc > 1)
        for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    for (;;) fork();
}
