/* A function in C without any library: asks for calls over Lambda's runtime interface, and answers each with what it was started as. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char answer[1 << 16];

static void ask(const char *request) {
    struct sockaddr_in where = {.sin_family = AF_INET};
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    where.sin_port = htons(atoi(strchr(api, ':') + 1));
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(connection, (struct sockaddr *)&where, sizeof where) || write(connection, request, strlen(request)) < 0)
        exit(1);
    size_t size = 0;
    ssize_t count;
    while ((count = read(connection, answer + size, sizeof answer - 1 - size)) > 0)
        size += count;
    answer[size] = 0;
    close(connection);
}

int main(int count, char **arguments) {
    char request[8192], body[4096], directory[1024], number[64];
    for (;;) {
        ask("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        char *found = strstr(answer, "Lambda-Runtime-Aws-Request-Id: ");
        if (!found || sscanf(found, "Lambda-Runtime-Aws-Request-Id: %63s", number) != 1)
            return 1;
        snprintf(body, sizeof body, "{\"arguments\":\"%s %s\",\"directory\":\"%s\",\"uid\":%d,\"colour\":\"%s\",\"name\":\"%s\",\"event\":%s}",
                 count > 1 ? arguments[1] : "", count > 2 ? arguments[2] : "", getcwd(directory, sizeof directory), (int)getuid(),
                 getenv("COLOUR"), getenv("AWS_LAMBDA_FUNCTION_NAME"), strstr(answer, "\r\n\r\n") + 4);
        snprintf(request, sizeof request, "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                 number, strlen(body), body);
        ask(request);
    }
}
