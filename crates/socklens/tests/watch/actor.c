/* A program to be watched. Its first argument selects what it does; it exits with 0 if everything was
   as it is without a tracer. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            printf("line %d: %s: %s\n", __LINE__, #what, strerror(errno)); \
            fflush(stdout); \
            exit(1); \
        } \
    } while (0)

static struct sockaddr_in server_address(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(9000)};
    address.sin_addr.s_addr = inet_addr("10.0.0.2");
    return address;
}

static int listener(void) {
    struct sockaddr_in address = server_address();
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(sock >= 0);
    CHECK(bind(sock, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(sock, 8) == 0);
    return sock;
}

static void echo(int sock) {
    char data[1000];
    ssize_t count;
    while ((count = recv(sock, data, sizeof data, 0)) > 0) CHECK(send(sock, data, count, 0) == count);
    CHECK(count == 0);
    close(sock);
}

static void *client(void *message) {
    struct sockaddr_in address = server_address();
    char data[1000];
    size_t length = strlen(message), have = 0;
    ssize_t count;
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(sock >= 0);
    CHECK(connect(sock, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(write(sock, message, length) == (ssize_t)length);
    CHECK(shutdown(sock, SHUT_WR) == 0);
    while ((count = read(sock, data + have, sizeof data - have)) > 0) have += count;
    CHECK(count == 0 && have == length && memcmp(data, message, have) == 0);
    close(sock);
    return NULL;
}

/* Each connection has a child. */
static void fork_server(int connections) {
    int sock = listener();
    for (int n = 0; n < connections; n++) {
        int connection = accept(sock, NULL, NULL), status;
        CHECK(connection >= 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(sock);
            echo(connection);
            _exit(7);
        }
        close(connection);
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
}

static void thread_clients(int threads) {
    pthread_t thread[16];
    for (int n = 0; n < threads; n++) CHECK(pthread_create(&thread[n], NULL, client, "from a thread") == 0);
    for (int n = 0; n < threads; n++) CHECK(pthread_join(thread[n], NULL) == 0);
}

static volatile sig_atomic_t handled, value;

static void handler(int number, siginfo_t *info, void *context) {
    (void)context;
    handled = number;
    value = info->si_value.sival_int;
}

static int datagram_socket(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int sock = socket(AF_INET, SOCK_DGRAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(sock, (struct sockaddr *)&address, sizeof address) == 0);
    return sock;
}

/* Interrupted calls, calls that go on after a signal, and a real-time signal with its value. */
static void signals(void) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    struct itimerval soon = {.it_value = {.tv_usec = 50000}};
    char data[10];
    int sock = datagram_socket();
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    CHECK(recv(sock, data, sizeof data, 0) == -1 && errno == EINTR);
    CHECK(handled == SIGALRM);
    union sigval number = {.sival_int = 4711};
    CHECK(sigaction(SIGRTMIN + 3, &action, NULL) == 0);
    CHECK(sigqueue(getpid(), SIGRTMIN + 3, number) == 0);
    CHECK(handled == SIGRTMIN + 3 && value == 4711);
    /* A child that is stopped in a call goes on with it. */
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    CHECK(getsockname(sock, (struct sockaddr *)&address, &length) == 0);
    int status, ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(write(ready[1], "r", 1) == 1);
        _exit(recv(sock, data, sizeof data, 0) == 4 ? 5 : 6);
    }
    CHECK(read(ready[0], data, 1) == 1);
    CHECK(kill(child, SIGSTOP) == 0);
    CHECK(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    CHECK(waitpid(child, &status, WNOHANG) == 0);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK(waitpid(child, &status, WCONTINUED) == child && WIFCONTINUED(status));
    CHECK(sendto(sock, "data", 4, 0, (struct sockaddr *)&address, length) == 4);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 5);
    /* A signal that ends a child. */
    child = fork();
    if (child == 0) {
        recv(sock, data, sizeof data, 0);
        _exit(6);
    }
    CHECK(kill(child, SIGUSR1) == 0);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
    close(sock);
}

static void *run_client(void *program) {
    execl(program, program, "client", "after exec", NULL);
    return NULL;
}

/* vfork and exec, and exec in a thread that is not the first. */
static void starts_programs(char *program) {
    int status;
    pid_t child = vfork();
    if (child == 0) {
        execl(program, program, "client", "after vfork", NULL);
        _exit(1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    child = fork();
    if (child == 0) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, run_client, program) == 0);
        pause();
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A system call of 32-bit programs. */
static void other_architecture(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory");
    CHECK(result == getpid());
    /* In the 32-bit table 41 is dup; in the 64-bit one it is socket. */
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(41L), "b"(1L) : "memory");
    CHECK(result > 2);
#endif
    errno = 0;
    CHECK(syscall(9999) == -1 && errno == ENOSYS);
}

/* Children that want no tracer. */
static void untraced(void) {
    struct { unsigned long long flags, pidfd, child_tid, parent_tid, exit_signal, rest[3]; } more = {
        .flags = CLONE_UNTRACED, .exit_signal = SIGCHLD};
    for (int kind = 0; kind < 2; kind++) {
        int status;
        long child = kind == 0 ? syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0L, 0L, 0L, 0L)
                               : syscall(SYS_clone3, &more, sizeof more);
        CHECK(child >= 0);
        if (child == 0) {
            int sock = socket(AF_INET, SOCK_DGRAM, 0);
            _exit(sock >= 0 && close(sock) == 0 ? 9 : 1);
        }
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9);
    }
}

static void *busy(void *unused) {
    int sock = datagram_socket();
    char data[10];
    (void)unused;
    for (;;) CHECK(recv(sock, data, sizeof data, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    return NULL;
}

/* Threads that make calls without a pause. */
static void busy_threads(int threads) {
    pthread_t thread[16];
    for (int n = 0; n < threads; n++) CHECK(pthread_create(&thread[n], NULL, busy, NULL) == 0);
    pause();
}

/* One process ends, and later another one listens. */
static void daemon_server(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0) _exit(0);
    usleep(500000);
    int sock = listener(), connection = accept(sock, NULL, NULL);
    CHECK(connection >= 0);
    echo(connection);
}

/* Returns when a process sleeps in a call. */
static void until_asleep(pid_t pid) {
    char path[64], state = 'R';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    for (int look = 0; look < 10000 && state != 'S'; look++) {
        usleep(1000);
        FILE *file = fopen(path, "r");
        CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
        fclose(file);
    }
    CHECK(state == 'S');
}

/* A child ends while its parent waits in a call that the kernel does not begin again. Without a handler
   of SIGCHLD the parent does not notice it; with one, or after a stop, the call is interrupted. */
static void waits(void) {
    char data[10];
    int sock = datagram_socket(), plain[2];
    CHECK(pipe(plain) == 0);
    for (int kind = 0; kind < 9; kind++) {
        int has_handler = kind >= 6, is_stopped = kind >= 3 && kind < 6;
        struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
        if (has_handler) CHECK(sigaction(SIGCHLD, &action, NULL) == 0);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            until_asleep(getppid());
            if (is_stopped) CHECK(kill(getppid(), SIGSTOP) == 0 && usleep(50000) == 0 && kill(getppid(), SIGCONT) == 0);
            if (is_stopped) usleep(400000);
            _exit(0);
        }
        struct epoll_event event = {.events = EPOLLIN};
        int epoll = epoll_create1(0), result;
        CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, kind % 3 == 1 ? plain[0] : sock, &event) == 0);
        /* A call that is interrupted ends long before its timeout, also on a busy machine. */
        int is_interrupted = has_handler || is_stopped, timeout = is_interrupted ? 30000 : 300;
        struct timeval time = {timeout / 1000, timeout % 1000 * 1000}, before, after;
        CHECK(setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
        gettimeofday(&before, NULL);
        result = kind % 3 == 2 ? (int)recv(sock, data, sizeof data, 0) : epoll_wait(epoll, &event, 1, timeout);
        int error = errno;
        gettimeofday(&after, NULL);
        long took = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_usec - before.tv_usec) / 1000;
        errno = error;
        if (is_interrupted) CHECK(result == -1 && errno == EINTR);
        else if (kind == 2) CHECK(result == -1 && errno == EAGAIN && took > 290);
        else CHECK(result == 0 && took > 290);
        CHECK(waitpid(child, NULL, 0) == child);
        close(epoll);
    }
}

/* Results that are longer than the buffer, and lengths that do not fit a number. */
static void truncated(void) {
    struct { char data[4], rest[16]; } buffer = {.rest = "not received"};
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int sock = datagram_socket();
    CHECK(getsockname(sock, (struct sockaddr *)&address, &length) == 0);
    CHECK(sendto(sock, "datagram", 8, 0, (struct sockaddr *)&address, length) == 8);
    CHECK(recv(sock, buffer.data, 4, MSG_TRUNC) == 8);
    int server = socket(AF_INET, SOCK_STREAM, 0), one = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listen(server, 1) == 0);
    CHECK(getsockname(server, (struct sockaddr *)&address, &length) == 0);
    CHECK(connect(one, (struct sockaddr *)&address, length) == 0);
    CHECK(send(one, "stream", 6, 0) == 6);
    int other = accept(server, NULL, NULL);
    CHECK(other >= 0);
    CHECK(recv(other, buffer.data, 6, MSG_TRUNC) == 6);
    struct iovec parts[2] = {{buffer.data, ~(size_t)0}, {buffer.data, ~(size_t)0}};
    CHECK(readv(other, parts, 2) == -1 && errno == EINVAL);
    CHECK(writev(other, parts, 2) == -1 && errno == EINVAL);
}

static void *does_nothing(void *unused) {
    (void)unused;
    for (;;) pause();
    return NULL;
}

/* Many more than the tool allows, but not so many that they are a danger without it. */
enum { MANY = 3000 };

/* Every process starts others. */
static void process_bomb(void) {
    atomic_int *count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(count != MAP_FAILED);
    while (atomic_fetch_add(count, 1) < MANY) CHECK(fork() >= 0);
    does_nothing(NULL);
}

static void thread_bomb(void) {
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 65536) == 0);
    for (int n = 0; n < MANY; n++) CHECK(pthread_create(&thread, &attributes, does_nothing, NULL) == 0);
    does_nothing(NULL);
}

/* A child shares its pages with its parent, until one of them writes. */
static void memory(int megabytes, int children) {
    size_t size = (size_t)megabytes << 20;
    char *data = malloc(size);
    CHECK(data != NULL);
    memset(data, 1, size);
    for (int n = 0; n < children; n++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) does_nothing(NULL);
    }
    printf("memory: written\n");
    fflush(stdout);
    if (children == 0) does_nothing(NULL);
    /* The tool looks at the memory many times meanwhile. */
    usleep(500000);
    kill(0, SIGTERM);
}

static void descriptors(void) {
    int count = 0, last;
    while ((last = dup(1)) >= 0) count = last + 1;
    CHECK(errno == EMFILE);
    printf("descriptors: %d\n", count);
}

static void *executes(void *path) {
    sigset_t wanted;
    int signal;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR1);
    CHECK(sigwait(&wanted, &signal) == 0 && sigprocmask(SIG_UNBLOCK, &wanted, NULL) == 0);
    execl(path, path, "fork_server", "1", NULL);
    CHECK(!"execl returned");
    return NULL;
}

/* At SIGUSR1, while the first thread is in a call, another one executes a program. */
static void exec_from_thread(char *path) {
    char data[10];
    pthread_t thread;
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    CHECK(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, executes, path) == 0);
    /* Without an address, so that this is not the server for which the client waits. */
    recv(socket(AF_INET, SOCK_DGRAM, 0), data, sizeof data, 0);
    CHECK(!"recv returned");
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    int number = count > 2 ? atoi(arguments[2]) : 1;
    if (strcmp(what, "fork_server") == 0) fork_server(number);
    else if (strcmp(what, "client") == 0) client(arguments[2]);
    else if (strcmp(what, "threads") == 0) thread_clients(number);
    else if (strcmp(what, "signals") == 0) signals();
    else if (strcmp(what, "programs") == 0) starts_programs(arguments[0]);
    else if (strcmp(what, "other") == 0) other_architecture();
    else if (strcmp(what, "untraced") == 0) untraced();
    else if (strcmp(what, "busy") == 0) busy_threads(number);
    else if (strcmp(what, "daemon") == 0) daemon_server();
    else if (strcmp(what, "truncated") == 0) truncated();
    else if (strcmp(what, "waits") == 0) waits();
    else if (strcmp(what, "process_bomb") == 0) process_bomb();
    else if (strcmp(what, "thread_bomb") == 0) thread_bomb();
    else if (strcmp(what, "memory") == 0) memory(number, atoi(arguments[3]));
    else if (strcmp(what, "descriptors") == 0) descriptors();
    else if (strcmp(what, "exec_from_thread") == 0) exec_from_thread(arguments[0]);
    else if (strcmp(what, "exit") == 0) return number;
    else CHECK(!"a known argument");
    printf("%s: fine\n", what);
    return 0;
}
