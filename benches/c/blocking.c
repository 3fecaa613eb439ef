// Blocking echo servers: a process or a thread for each connection, or pre-forked processes.
//
// Usage: blocking fork|thread|prefork PORT [CHILDREN]
#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int listener;

static void echo(int fd) {
  char buffer[65536];
  ssize_t length;
  while ((length = recv(fd, buffer, sizeof buffer, 0)) > 0)
    if (send(fd, buffer, length, MSG_NOSIGNAL) < 0 || buffer[0] == 'Q')
      break;
  close(fd);
}

static void *echo_in_thread(void *fd) {
  echo((int)(long)fd);
  return 0;
}

static void serve_forking(void) {
  for (;;) {
    int fd = accept(listener, 0, 0);
    if (fd < 0)
      continue;
    if (!fork()) {
      close(listener);
      echo(fd);
      _exit(0);
    }
    close(fd);
    while (waitpid(-1, 0, WNOHANG) > 0)
      ;
  }
}

static void serve_in_threads(void) {
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (;;) {
    int fd = accept(listener, 0, 0);
    pthread_t thread;
    if (fd >= 0 && pthread_create(&thread, &detached, echo_in_thread, (void *)(long)fd))
      close(fd);
  }
}

static void serve_preforked(int children) {
  for (int i = 0; i < children; i++) {
    if (fork())
      continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      int fd = accept(listener, 0, 0);
      if (fd >= 0)
        echo(fd);
    }
  }
  for (;;)
    pause();
}

int main(int count, char **words) {
  if (count < 3) {
    fprintf(stderr, "usage: blocking fork|thread|prefork PORT [CHILDREN]\n");
    return 2;
  }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) {
    perror("listen");
    return 1;
  }
  if (!strcmp(words[1], "prefork"))
    serve_preforked(count > 3 ? atoi(words[3]) : 8);
  else if (!strcmp(words[1], "fork"))
    serve_forking();
  else
    serve_in_threads();
}
