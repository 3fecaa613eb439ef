// Echoes datagrams.
//
// Usage: udp plain|batch|poll PORT    (batch: recvmmsg and sendmmsg, 64 at a time; poll:
// poll(2) before each recvfrom, as Python does with a timeout)
#define _GNU_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 8192 };

static void serve_one_by_one(int fd, int polls) {
  static char buffer[SIZE];
  for (;;) {
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    if (polls) {
      struct pollfd input = {fd, POLLIN, 0};
      poll(&input, 1, 500);
    }
    ssize_t length = recvfrom(fd, buffer, SIZE, 0, (void *)&peer, &size);
    if (length >= 0)
      sendto(fd, buffer, length, 0, (void *)&peer, size);
  }
}

static void serve_batches(int fd) {
  static char buffers[BATCH][SIZE];
  static struct sockaddr_in peers[BATCH];
  static struct iovec pieces[BATCH];
  static struct mmsghdr messages[BATCH];
  for (;;) {
    for (int i = 0; i < BATCH; i++) {
      pieces[i] = (struct iovec){buffers[i], SIZE};
      messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1, .msg_name = &peers[i], .msg_namelen = sizeof peers[i]};
    }
    int received = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, 0);
    for (int i = 0; i < received; i++)
      pieces[i].iov_len = messages[i].msg_len;
    for (int sent = 0; sent < received;) {
      int now = sendmmsg(fd, messages + sent, received - sent, 0);
      if (now <= 0)
        break;
      sent += now;
    }
  }
}

int main(int count, char **words) {
  if (count != 3) {
    fprintf(stderr, "usage: udp plain|batch|poll PORT\n");
    return 2;
  }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (bind(fd, (void *)&address, sizeof address)) {
    perror("bind");
    return 1;
  }
  if (!strcmp(words[1], "batch"))
    serve_batches(fd);
  else
    serve_one_by_one(fd, !strcmp(words[1], "poll"));
}
