/* The smallest sensible epoll echo server, as a peer to measure against.
 *
 * One thread, level-triggered epoll, one buffer; read, then write. It has no backpressure: what a
 * socket does not take at once is waited for with poll, which is enough for a measurement.
 *
 * Build: cc -O2 -Wall -o echo_epoll echo_epoll.c
 * Use:   prints "listening 127.0.0.1:PORT", serves until its standard input ends.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK 65536
#define EVENTS 256

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		die("epoll_ctl");
}

/* 0 when the client is gone. */
static int echo(int fd, char *buffer)
{
	ssize_t n = read(fd, buffer, CHUNK);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	for (ssize_t done = 0; done < n;) {
		ssize_t sent = write(fd, buffer + done, n - done);

		if (sent >= 0) {
			done += sent;
		} else if (errno == EAGAIN) {
			struct pollfd writable = { .fd = fd, .events = POLLOUT };

			poll(&writable, 1, -1);
		} else if (errno != EINTR) {
			return 0;
		}
	}
	return n > 0;
}

int main(void)
{
	static char buffer[CHUNK];
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int one = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	int epoll = epoll_create1(0);

	setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 4096) < 0)
		die("listen");
	if (getsockname(listener, (struct sockaddr *)&addr, &len) < 0)
		die("getsockname");
	printf("listening 127.0.0.1:%d\n", ntohs(addr.sin_port));
	fflush(stdout);
	watch(epoll, listener);
	watch(epoll, STDIN_FILENO);

	for (;;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == listener) {
				int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

				if (client >= 0)
					watch(epoll, client);
			} else if (fd == STDIN_FILENO) {
				return 0;
			} else if (!echo(fd, buffer)) {
				close(fd);
			}
		}
	}
}
