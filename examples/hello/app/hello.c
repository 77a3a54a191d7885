/* A web server of one page, to have something to run: hello [PORT]. */
#include "greet.h"
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int port = argc > 1 ? atoi(argv[1]) : 5000;
    int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = INADDR_ANY};
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 16) != 0) {
        perror("hello");
        return 1;
    }
    printf("listening on %d\n", port);
    fflush(stdout);
    for (;;) {
        char request[1024], body[128], answer[256];
        int client = accept(server, NULL, NULL);
        if (client < 0 || read(client, request, sizeof request) < 0)
            continue;
        greet(body, sizeof body, getenv("GREET"));
        snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s\n", strlen(body) + 1, body);
        if (write(client, answer, strlen(answer)) < 0)
            perror("hello");
        close(client);
    }
}
