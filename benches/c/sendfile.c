// Sends a file to each client, one after another.
//
// Usage: sendfile sendfile|copy PORT FILE     (copy: read and write of 1 MiB)
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 1 << 20 };

static void copy(int to, int from, char *buffer) {
  ssize_t length;
  while ((length = read(from, buffer, PIECE)) > 0)
    for (ssize_t sent = 0; sent < length;) {
      ssize_t now = write(to, buffer + sent, length - sent);
      if (now <= 0)
        return;
      sent += now;
    }
}

int main(int count, char **words) {
  if (count != 4) {
    fprintf(stderr, "usage: sendfile sendfile|copy PORT FILE\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (void *)&address, sizeof address) || listen(listener, 128)) {
    perror("listen");
    return 1;
  }
  char *buffer = malloc(PIECE);
  for (;;) {
    int fd = accept(listener, 0, 0);
    if (fd < 0)
      continue;
    int file = open(words[3], O_RDONLY);
    if (!strcmp(words[1], "copy"))
      copy(fd, file, buffer);
    else
      while (sendfile(fd, file, 0, 0x7ffff000) > 0)
        ;
    close(file);
    close(fd);
  }
}
