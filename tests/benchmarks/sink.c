/* A mail sink that costs next to nothing: says its port, then takes every mail with 250 and looks
 * at line ends only. One process, epoll. Built by tests.benchmarks._sinks. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_SIZE (1 << 18)
#define LONGEST 1024

struct peer {
    int socket;
    int content;           /* between DATA's 354 and the dot */
    size_t length;         /* of the line's beginning that is kept from the last read */
    char line[LONGEST];
};

static char buffer[BUFFER_SIZE];
static char answers[1 << 16];
static size_t answered;

static void answer(const char *text)
{
    size_t length = strlen(text);
    if (answered + length <= sizeof answers) {
        memcpy(answers + answered, text, length);
        answered += length;
    }
}

static void hear(struct peer *peer, const char *line, size_t length)
{
    if (peer->content) {
        if (length == 3 && line[0] == '.') {
            peer->content = 0;
            answer("250 2.0.0 Ok\r\n");
        }
    } else if (!strncasecmp(line, "EHLO", 4)) {
        answer("250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n");
    } else if (!strncasecmp(line, "DATA", 4)) {
        peer->content = 1;
        answer("354 Go on\r\n");
    } else if (!strncasecmp(line, "QUIT", 4)) {
        answer("221 2.0.0 Bye\r\n");
    } else {
        answer("250 2.1.0 Ok\r\n");
    }
}

/* 0 when the peer is gone. */
static int listen_to(struct peer *peer)
{
    ssize_t got = read(peer->socket, buffer, BUFFER_SIZE);
    char *from = buffer, *end = buffer + got, *mark;
    if (got <= 0)
        return 0;
    answered = 0;
    while (from < end && (mark = memchr(from, '\n', end - from))) {
        size_t length = mark + 1 - from;
        if (peer->length) {
            size_t fits = length < LONGEST - peer->length ? length : LONGEST - peer->length;
            memcpy(peer->line + peer->length, from, fits);
            hear(peer, peer->line, peer->length + fits);
            peer->length = 0;
        } else {
            hear(peer, from, length);
        }
        from = mark + 1;
    }
    if (from < end) {
        size_t rest = end - from, fits = rest < LONGEST - peer->length ? rest : LONGEST - peer->length;
        memcpy(peer->line + peer->length, from, fits);
        peer->length += fits;
    }
    return !answered || write(peer->socket, answers, answered) == (ssize_t)answered;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct epoll_event found[64], event = {.events = EPOLLIN};
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), on = 1;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1024))
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(poll, found, 64, -1);
        for (int each = 0; each < count; each++) {
            struct peer *peer = found[each].data.ptr;
            if (!peer) {
                peer = calloc(1, sizeof *peer);
                peer->socket = accept(listener, NULL, NULL);
                setsockopt(peer->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                event.data.ptr = peer;
                epoll_ctl(poll, EPOLL_CTL_ADD, peer->socket, &event);
                if (write(peer->socket, "220 sink\r\n", 10) < 0)
                    return 1;
            } else if (!listen_to(peer)) {
                close(peer->socket);
                free(peer);
            }
        }
    }
}
