// The reference: a minimal echo server over epoll.
//
// Usage: epoll THREADS PORT|/PATH
//
// Each thread has its own epoll instance, and for TCP its own listener
// (SO_REUSEPORT). A message whose first byte is Q is echoed and the connection closed.
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER = 65536, EVENTS = 256, ACCEPTS = 64 };

static int threads;
static int port;
static const char *path;
static int unix_listener = -1;

static int checked(int fd, int failed) {
  if (fd < 0 || failed) {
    perror("listen");
    exit(1);
  }
  return fd;
}

static int listen_unix(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return checked(fd, bind(fd, (void *)&address, sizeof address) || listen(fd, 4096));
}

static int listen_tcp(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (threads > 1)
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  return checked(fd, bind(fd, (void *)&address, sizeof address) || listen(fd, 4096));
}

enum outcome { ENDED, NOTHING, ANSWERED };

static enum outcome answer(int fd, char *buffer) {
  ssize_t length = recv(fd, buffer, BUFFER, MSG_DONTWAIT);
  if (length < 0 && errno == EAGAIN)
    return NOTHING;
  if (length <= 0)
    return ENDED;
  for (ssize_t sent = 0; sent < length;) {
    ssize_t now = send(fd, buffer + sent, length - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (now >= 0) {
      sent += now;
    } else if (errno == EAGAIN) {
      struct pollfd room = {fd, POLLOUT, 0};
      poll(&room, 1, 5000);
    } else {
      return ENDED;
    }
  }
  return buffer[0] == 'Q' ? ENDED : ANSWERED;
}

static void accept_all(int listener, int epoll, char *buffer) {
  for (int i = 0; i < ACCEPTS; i++) {
    int fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
      return;
    // The request has often arrived already.
    enum outcome outcome;
    while ((outcome = answer(fd, buffer)) == ANSWERED)
      ;
    if (outcome == ENDED) {
      close(fd);
      continue;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  }
}

static void *serve(void *unused) {
  (void)unused;
  int listener = path ? unix_listener : listen_tcp();
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  char *buffer = malloc(BUFFER);
  struct epoll_event event = {.events = EPOLLIN | (path ? EPOLLEXCLUSIVE : 0), .data.fd = listener};
  epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(epoll, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd == listener)
        accept_all(listener, epoll, buffer);
      else if (answer(fd, buffer) == ENDED)
        close(fd);
    }
  }
  return 0;
}

int main(int count, char **words) {
  if (count != 3) {
    fprintf(stderr, "usage: epoll THREADS PORT|/PATH\n");
    return 2;
  }
  threads = atoi(words[1]);
  if (words[2][0] == '/') {
    path = words[2];
    unix_listener = listen_unix();
  } else {
    port = atoi(words[2]);
  }
  signal(SIGPIPE, SIG_IGN);
  pthread_t thread;
  for (int i = 1; i < threads; i++)
    pthread_create(&thread, 0, serve, 0);
  serve(0);
}
