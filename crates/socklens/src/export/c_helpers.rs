//! Functions of programs in C.

/// The functions that a program may need, in the order of the file. One may use those before it.
pub(super) const HELPERS: &[(&str, &str)] = &[
    (
        "shown",
        r#"
/* Prints a call with its result, and goes on after an error. */
static long shown(const char *call, long result)
{
    if (result < 0)
        printf("%s: -1 %s\n", call, strerror(errno));
    else
        printf("%s: %ld\n", call, result);
    fflush(stdout);
    return result;
}
"#,
    ),
    (
        "must",
        r#"
/* Prints a call with its result. An error ends the program. */
static long must(const char *call, long result)
{
    if (shown(call, result) < 0)
        exit(1);
    return result;
}
"#,
    ),
    (
        "ipv4",
        r#"
static struct address ipv4(const char *ip, int port)
{
    struct address address = { .length = sizeof(struct sockaddr_in) };
    struct sockaddr_in *to = (struct sockaddr_in *)&address.storage;
    to->sin_family = AF_INET;
    to->sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, *ip ? ip : "0.0.0.0", &to->sin_addr) != 1) {
        fprintf(stderr, "%s is not an address\n", ip);
        exit(1);
    }
    return address;
}
"#,
    ),
    (
        "ipv6",
        r#"
/* An address of IPv4 is written as one of IPv6. */
static struct address ipv6(const char *ip, int port)
{
    struct address address = { .length = sizeof(struct sockaddr_in6) };
    struct sockaddr_in6 *to = (struct sockaddr_in6 *)&address.storage;
    char text[64];
    snprintf(text, sizeof text, "%s%.45s", strchr(ip, '.') ? "::ffff:" : "", *ip ? ip : "::");
    to->sin6_family = AF_INET6;
    to->sin6_port = htons((uint16_t)port);
    if (inet_pton(AF_INET6, text, &to->sin6_addr) != 1) {
        fprintf(stderr, "%s is not an address\n", text);
        exit(1);
    }
    return address;
}
"#,
    ),
    (
        "unix_path",
        r#"
/* A path, with the zero byte behind it. An abstract name begins with one instead. */
static struct address unix_path(const char *path, size_t length)
{
    struct address address = { .length = 0 };
    struct sockaddr_un *to = (struct sockaddr_un *)&address.storage;
    to->sun_family = AF_UNIX;
    if (length >= sizeof to->sun_path) {
        fprintf(stderr, "the path is too long\n");
        exit(1);
    }
    memcpy(to->sun_path, path, length);
    length += offsetof(struct sockaddr_un, sun_path) + (length > 0 && *path != 0);
    address.length = (socklen_t)length;
    return address;
}
"#,
    ),
    (
        "bind_to",
        r#"
static int bind_to(int fd, struct address to)
{
    return bind(fd, (struct sockaddr *)&to.storage, to.length);
}
"#,
    ),
    (
        "connect_to",
        r#"
static int connect_to(int fd, struct address to)
{
    return connect(fd, (struct sockaddr *)&to.storage, to.length);
}
"#,
    ),
    (
        "ready",
        r#"
/* Waits until a socket is ready, and returns its events; 0 when the time is over. */
static int ready(int fd, short events, int milliseconds)
{
    struct pollfd waiting = { .fd = fd, .events = events };
    int count = poll(&waiting, 1, milliseconds);
    return count > 0 ? waiting.revents : count;
}
"#,
    ),
    (
        "in_time",
        r#"
/* The timeout of a socket: waits until it is ready. */
static int in_time(int fd, short events, int milliseconds)
{
    int found = ready(fd, events, milliseconds);
    if (found == 0)
        errno = ETIMEDOUT;
    return found > 0;
}
"#,
    ),
    (
        "connect_in_time",
        r#"
static int connect_in_time(int fd, struct address to, int milliseconds)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (connect_to(fd, to) == 0)
        return 0;
    if (errno != EINPROGRESS || !in_time(fd, POLLOUT, milliseconds))
        return -1;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        return -1;
    errno = error;
    return error ? -1 : 0;
}
"#,
    ),
    (
        "print_data",
        r#"
/* Prints the beginning of what was received. */
static void print_data(const char *data, size_t length)
{
    printf("  \"");
    for (size_t i = 0; i < length && i < 48; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c >= ' ' && c <= '~' && c != '"' && c != '\\')
            putchar(c);
        else
            printf("\\x%02x", c);
    }
    printf("\"%s\n", length > 48 ? "..." : "");
}
"#,
    ),
    (
        "new_buffer",
        r#"
static char *new_buffer(size_t size)
{
    char *buffer = malloc(size + 1);
    if (buffer == NULL) {
        perror("malloc");
        exit(1);
    }
    return buffer;
}
"#,
    ),
    (
        "repeat",
        r#"
/* A part of data, many times. It is not freed. */
static char *repeat(const char *part, size_t length, size_t count)
{
    char *data = new_buffer(length * count);
    for (size_t i = 0; i < count; i++)
        memcpy(data + i * length, part, length);
    return data;
}
"#,
    ),
    (
        "receive",
        r#"
static long receive(int fd, size_t size, int flags)
{
    char *buffer = new_buffer(size);
    ssize_t length = recv(fd, buffer, size, flags);
    int error = errno;
    if (length >= 0)
        print_data(buffer, (size_t)length);
    free(buffer);
    errno = error;
    return length;
}
"#,
    ),
    (
        "print_address",
        r#"
static void print_address(const struct address *from)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (from->storage.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&from->storage;
        inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
        printf("  %s port %d\n", text, ntohs(in->sin_port));
    } else if (from->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&from->storage;
        inet_ntop(AF_INET6, &in->sin6_addr, text, sizeof text);
        printf("  %s port %d\n", text, ntohs(in->sin6_port));
    } else if (from->length > offsetof(struct sockaddr_un, sun_path)) {
        const struct sockaddr_un *path = (const struct sockaddr_un *)&from->storage;
        printf("  %s\n", path->sun_path);
    } else {
        printf("  no name\n");
    }
}
"#,
    ),
    (
        "receive_from",
        r#"
static long receive_from(int fd, size_t size, int flags)
{
    struct address from = { .length = sizeof from.storage };
    char *buffer = new_buffer(size);
    ssize_t length = recvfrom(fd, buffer, size, flags, (struct sockaddr *)&from.storage, &from.length);
    int error = errno;
    if (length >= 0) {
        print_data(buffer, (size_t)length);
        print_address(&from);
    }
    free(buffer);
    errno = error;
    return length;
}
"#,
    ),
    (
        "receive_message",
        r#"
/* Also prints whether the end of a datagram was cut off. */
static long receive_message(int fd, size_t size)
{
    char *buffer = new_buffer(size);
    struct iovec part = { .iov_base = buffer, .iov_len = size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    ssize_t length = recvmsg(fd, &message, 0);
    int error = errno;
    if (length >= 0) {
        print_data(buffer, (size_t)length);
        printf("  %s\n", message.msg_flags & MSG_TRUNC ? "MSG_TRUNC" : "whole");
    }
    free(buffer);
    errno = error;
    return length;
}
"#,
    ),
    (
        "send_to",
        r#"
static long send_to(int fd, const char *data, size_t length, struct address to)
{
    return sendto(fd, data, length, MSG_NOSIGNAL, (struct sockaddr *)&to.storage, to.length);
}
"#,
    ),
    (
        "send_all",
        r#"
/* Sends all data, in as many parts as the kernel takes. */
static long send_all(int fd, const char *data, size_t length)
{
    size_t sent = 0;
    do {
        ssize_t part = send(fd, data + sent, length - sent, MSG_NOSIGNAL);
        if (part < 0)
            return -1;
        sent += (size_t)part;
    } while (sent < length);
    return 0;
}
"#,
    ),
    (
        "send_parts",
        r#"
static long send_parts(int fd, struct iovec *parts, size_t count)
{
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}
"#,
    ),
    (
        "set_option",
        r#"
static int set_option(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value);
}
"#,
    ),
    (
        "set_linger",
        r#"
static int set_linger(int fd, int on, int seconds)
{
    struct linger value = { .l_onoff = on, .l_linger = seconds };
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &value, sizeof value);
}
"#,
    ),
    (
        "get_option",
        r#"
static long get_option(int fd, int level, int option)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, level, option, &value, &length) < 0 ? -1 : value;
}
"#,
    ),
    (
        "set_blocking",
        r#"
static int set_blocking(int fd, int blocks)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -1;
    return fcntl(fd, F_SETFL, blocks ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
}
"#,
    ),
    (
        "print_name",
        r#"
/* The address of a socket, or of its peer. */
static int print_name(int fd, int of_peer)
{
    struct address name = { .length = sizeof name.storage };
    struct sockaddr *to = (struct sockaddr *)&name.storage;
    if ((of_peer ? getpeername(fd, to, &name.length) : getsockname(fd, to, &name.length)) < 0)
        return -1;
    print_address(&name);
    return 0;
}
"#,
    ),
    (
        "group",
        r#"
/* Joins or leaves a multicast group. */
static int group(int fd, int option, const char *ip)
{
    struct ip_mreq request = { .imr_interface.s_addr = INADDR_ANY };
    if (inet_pton(AF_INET, ip, &request.imr_multiaddr) != 1) {
        errno = EINVAL;
        return -1;
    }
    return setsockopt(fd, IPPROTO_IP, option, &request, sizeof request);
}
"#,
    ),
    (
        "send_fds",
        r#"
/* Sends data, and descriptors with it. */
static long send_fds(int fd, const char *data, size_t length, const int *fds, size_t count)
{
    union { struct cmsghdr align; char space[CMSG_SPACE(253 * sizeof(int))]; } control;
    struct iovec part = { .iov_base = (char *)data, .iov_len = length };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space };
    if (count > 253) { /* The kernel takes no more. */
        errno = EINVAL;
        return -1;
    }
    memset(&control, 0, sizeof control);
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(head), fds, count * sizeof(int));
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}
"#,
    ),
    (
        "receive_fds",
        r#"
/* Receives data, and descriptors with it. */
static long receive_fds(int fd, size_t size, int **fds, size_t count)
{
    union { struct cmsghdr align; char space[CMSG_SPACE(253 * sizeof(int))]; } control;
    if (count > 253) { /* The kernel sends no more. */
        errno = EINVAL;
        return -1;
    }
    char *buffer = new_buffer(size);
    struct iovec part = { .iov_base = buffer, .iov_len = size };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space,
                              .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
    ssize_t length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    int error = errno;
    struct cmsghdr *head = length < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (head != NULL && head->cmsg_type == SCM_RIGHTS) {
        size_t received = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count && i < received; i++)
            memcpy(fds[i], CMSG_DATA(head) + i * sizeof(int), sizeof(int));
    }
    if (length >= 0)
        print_data(buffer, (size_t)length);
    free(buffer);
    errno = error;
    return length;
}
"#,
    ),
    (
        "make_pair",
        r#"
static int make_pair(int *one, int *other, int family, int type)
{
    int pair[2];
    if (socketpair(family, type | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    *one = pair[0];
    *other = pair[1];
    return 0;
}
"#,
    ),
    (
        "run",
        r#"
/* Runs a program, which inherits what is inheritable, and returns its status. */
static long run(char *const words[])
{
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        execvp(words[0], words);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
"#,
    ),
    (
        "limit_descriptors",
        r#"
/* Leaves room for so many descriptors. */
static int limit_descriptors(int more)
{
    int free_fd = dup(0);
    struct rlimit limit;
    if (free_fd < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -1;
    int result = more > 0 ? limit_descriptors(more - 1) : 0;
    if (more == 0) {
        limit.rlim_cur = (rlim_t)free_fd;
        result = setrlimit(RLIMIT_NOFILE, &limit);
    }
    close(free_fd);
    return result;
}
"#,
    ),
    (
        "remove_folder",
        r#"
static void remove_folder(const char *folder)
{
    DIR *list = opendir(folder);
    struct dirent *entry;
    while (list != NULL && (entry = readdir(list)) != NULL)
        unlink(entry->d_name);
    if (list != NULL)
        closedir(list);
    rmdir(folder);
}
"#,
    ),
    (
        "on_alarm",
        r#"
/* An alarm interrupts a call that blocks. */
static void on_alarm(int number)
{
    (void)number;
}
"#,
    ),
    (
        "start",
        r#"
/* A call in a thread of its own, because it can block. */
struct started {
    long (*call)(void);
    long result;
    int error;
    atomic_int is_done;
};

static void *run_started(void *argument)
{
    struct started *started = argument;
    started->result = started->call();
    started->error = errno;
    started->is_done = 1;
    return NULL;
}

/* Starts a call, and waits a moment so that it blocks before the next call is made. */
static void start(struct started *started)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, run_started, started);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        fprintf(stderr, "pthread_create: %s\n", strerror(error));
        exit(1);
    }
    pthread_detach(thread);
    for (int i = 0; i < 20 && !started->is_done; i++)
        usleep(10000);
}
"#,
    ),
    (
        "end",
        r#"
/* Waits until a call that was started returns. */
static long end(struct started *started)
{
    for (int i = 0; i < LIMIT * 100 && !started->is_done; i++)
        usleep(10000);
    errno = started->is_done ? started->error : ETIMEDOUT;
    return started->is_done ? started->result : -1;
}
"#,
    ),
];
