/* A process to be stopped. The first argument says what it does; it prints one line when it does that, then answers
 * each line on its standard input with one line, and ends with the input. It knows nothing of heaptap. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNTER_COUNT 8
static atomic_ulong counters[COUNTER_COUNT];

static void die(const char *what) {
    fprintf(stderr, "target: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void start_thread(void *(*body)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * 1024);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attributes, body, argument)) die("pthread_create");
}

/* Whatever happens to the test, this process does not stay for ever. */
static void limit_life(void) {
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec limit = {.it_value.tv_sec = 300};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) || timer_settime(timer, 0, &limit, NULL)) die("timer");
}

/* --- threads N: some count, some sleep in a lock, in a pipe, in a timed wait --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static int empty_pipe[2];
static atomic_ulong started;

static void *count_for_ever(void *argument) {
    atomic_ulong *counter = argument;
    atomic_fetch_add(&started, 1);
    for (;;) atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
    return NULL;
}

static void *wait_in_lock(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&started, 1);
    for (;;) pthread_cond_wait(&never, &lock);
    return NULL;
}

static void *wait_in_pipe(void *unused) {
    char byte;
    (void)unused;
    atomic_fetch_add(&started, 1);
    while (read(empty_pipe[0], &byte, 1) < 0 && errno == EINTR) atomic_fetch_add(&counters[7], 1);
    return NULL;
}

static void *tick(void *argument) {
    atomic_ulong *counter = argument;
    struct timespec interval = {.tv_nsec = 2000000};
    atomic_fetch_add(&started, 1);
    for (;;) {
        if (nanosleep(&interval, NULL)) atomic_fetch_add(&counters[7], 1);
        atomic_fetch_add(counter, 1);
    }
    return NULL;
}

static void run_threads(int count) {
    if (pipe(empty_pipe)) die("pipe");
    for (int index = 0; index < count; index++) {
        if (index == 0) start_thread(count_for_ever, &counters[0]);
        else if (index == 1) start_thread(tick, &counters[1]);
        else if (index % 4 == 0) start_thread(tick, &counters[2]);
        else if (index % 2) start_thread(wait_in_lock, NULL);
        else start_thread(wait_in_pipe, NULL);
    }
    while (atomic_load(&started) < (unsigned long)count) sched_yield();
}

/* --- churn: threads that make threads that end at once --- */

static void *end_at_once(void *unused) {
    (void)unused;
    atomic_fetch_add(&counters[0], 1);
    return NULL;
}

static void *make_threads(void *unused) {
    (void)unused;
    for (;;) {
        pthread_t threads[4];
        int made = 0;
        while (made < 4 && !pthread_create(&threads[made], NULL, end_at_once, NULL)) made++;
        for (int index = 0; index < made; index++) pthread_join(threads[index], NULL);
    }
    return NULL;
}

/* --- signals: each that is sent is counted; real-time ones carry a number and must come in order --- */

static volatile sig_atomic_t queued_next[2];
static atomic_ulong queued_wrong;
static timer_t fast_timer;

static void on_queued(int signal, siginfo_t *from, void *unused) {
    int lane = signal - SIGRTMIN;
    (void)unused;
    if (from->si_value.sival_int != queued_next[lane]) atomic_fetch_add(&queued_wrong, 1);
    queued_next[lane] = from->si_value.sival_int + 1;
    atomic_fetch_add(&counters[2 + lane], 1);
}

static void on_usr1(int signal) {
    (void)signal;
    atomic_fetch_add(&counters[0], 1);
}

/* The expirations that found the signal still pending are not lost but counted by the timer. */
static void on_alarm(int signal) {
    (void)signal;
    atomic_fetch_add(&counters[1], 1 + timer_getoverrun(fast_timer));
}

static atomic_ulong sent_usr1, sent_queued[2];
static atomic_int sending = 1;
static pthread_t receiver;
static pid_t receiver_tid;

static void *send_usr1(void *unused) {
    (void)unused;
    while (atomic_load(&sending)) {
        unsigned long sent = atomic_fetch_add(&sent_usr1, 1) + 1;
        pthread_kill(receiver, SIGUSR1);
        while (atomic_load(&counters[0]) < sent) sched_yield();
    }
    return NULL;
}

static void *send_queued(void *argument) {
    int lane = (int)(intptr_t)argument;
    while (atomic_load(&sending)) {
        union sigval value = {.sival_int = (int)atomic_load(&sent_queued[lane])};
        siginfo_t what = {.si_code = SI_QUEUE, .si_pid = getpid(), .si_uid = getuid(), .si_value = value};
        /* One lane is sent to the process, the other one to a thread. */
        int refused = lane ? (int)syscall(SYS_rt_tgsigqueueinfo, getpid(), receiver_tid, SIGRTMIN + 1, &what)
                           : sigqueue(getpid(), SIGRTMIN, value);
        if (!refused) atomic_fetch_add(&sent_queued[lane], 1);
        while (atomic_load(&sent_queued[lane]) > atomic_load(&counters[2 + lane]) + 64) sched_yield();
    }
    return NULL;
}

static void *receive(void *unused) {
    sigset_t none;
    (void)unused;
    receiver_tid = gettid();
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    atomic_fetch_add(&started, 1);
    for (;;) atomic_fetch_add_explicit(&counters[7], 1, memory_order_relaxed);
    return NULL;
}

static void run_signals(void) {
    struct sigaction queued = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigaction usr1 = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    struct sigaction alarm = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerspec fast = {.it_value.tv_nsec = 700000, .it_interval.tv_nsec = 700000};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    sigset_t all;
    sigaction(SIGRTMIN, &queued, NULL);
    sigaction(SIGRTMIN + 1, &queued, NULL);
    sigaction(SIGUSR1, &usr1, NULL);
    sigaction(SIGALRM, &alarm, NULL);
    /* One thread takes them all, so that each lane keeps its order. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (pthread_create(&receiver, NULL, receive, NULL)) die("pthread_create");
    while (!atomic_load(&started)) sched_yield();
    if (timer_create(CLOCK_MONOTONIC, &event, &fast_timer) || timer_settime(fast_timer, 0, &fast, NULL)) die("timer");
    start_thread(send_usr1, NULL);
    start_thread(send_queued, (void *)0);
    start_thread(send_queued, (void *)1);
}

/* Waits until nothing is on its way any more; a lost signal would make that last for ever. */
static void settle_signals(void) {
    atomic_store(&sending, 0);
    while (atomic_load(&counters[0]) < atomic_load(&sent_usr1) || atomic_load(&counters[2]) < atomic_load(&sent_queued[0]) ||
           atomic_load(&counters[3]) < atomic_load(&sent_queued[1]))
        sched_yield();
    printf("usr1 %lu %lu queued %lu %lu %lu %lu wrong %lu\n", sent_usr1, counters[0], sent_queued[0], counters[2],
           sent_queued[1], counters[3], queued_wrong);
}

/* --- children: processes that count on their own --- */

static pid_t children[3];

static void end_children(void) {
    for (int index = 0; index < 3 && children[index]; index++) {
        kill(children[index], SIGKILL);
        waitpid(children[index], NULL, 0);
    }
}

static void run_children(void) {
    for (int index = 0; index < 3; index++) {
        atomic_ulong *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t child = fork();
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) atomic_fetch_add_explicit(shared, 1, memory_order_relaxed);
        }
        if (child < 0) die("fork");
        children[index] = child;
        printf("%d %p ", child, (void *)shared);
    }
    printf("\n");
}

/* --- forks: children made by fork and by vfork, each of which executes a program --- */

static void *make_children(void *argument) {
    int by_vfork = argument != NULL;
    for (;;) {
        int status = 0;
        pid_t child = by_vfork ? vfork() : fork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(9);
        }
        if (child < 0) continue;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        atomic_fetch_add(&counters[status == 0 ? by_vfork : 2], 1);
    }
    return NULL;
}

/* --- pages: memory that cannot be read, or is not there, among memory that can --- */

static void run_pages(void) {
    long page = sysconf(_SC_PAGESIZE);
    int file = memfd_create("truncated", MFD_CLOEXEC);
    char *five = mmap(NULL, 5 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *mapped, *sparse, *shared;
    if (file < 0 || ftruncate(file, 4 * page)) die("file");
    for (int index = 0; index < 5; index++) memset(five + index * page, 'a' + index, page);
    mprotect(five + 2 * page, page, PROT_NONE);
    /* The last two pages of four lie behind the end of the file. */
    mapped = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    memset(mapped, 'f', 4 * page);
    if (ftruncate(file, 2 * page)) die("ftruncate");
    /* Every 16th page of 64 MiB is written, every 16th other one only read: the kernel gives it the page of zeros. */
    sparse = mmap(NULL, 64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    madvise(sparse, 64 << 20, MADV_NOHUGEPAGE);
    for (long at = 0; at < 64 << 20; at += 16 * page) {
        sparse[at] = 1;
        counters[0] += sparse[at + 8 * page];
    }
    shared = mmap(NULL, 64 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(shared, 1, 32 * page);
    printf("%p %p %p %p\n", (void *)five, (void *)mapped, (void *)sparse, (void *)shared);
}

static void answer(const char *question) {
    if (!strncmp(question, "settle", 6)) settle_signals();
    else if (!strncmp(question, "exit", 4)) _exit(7);
    else
        for (int index = 0; index < COUNTER_COUNT; index++)
            printf("%lu%c", atomic_load(&counters[index]), index + 1 < COUNTER_COUNT ? ' ' : '\n');
    fflush(stdout);
}

static void *serve(void *unused) {
    char line[256];
    (void)unused;
    while (fgets(line, sizeof line, stdin)) answer(line);
    end_children();
    _exit(0);
    return NULL;
}

/* --- vfork: a thread that waits in the kernel for a child that shares its memory, until someone kills the child --- */

static volatile pid_t vfork_child;

static void *wait_for_vfork(void *unused) {
    pid_t child;
    (void)unused;
    child = vfork();
    if (child == 0) {
        vfork_child = getpid();
        for (;;) pause();
    }
    atomic_fetch_add(&counters[0], 1);
    waitpid(child, NULL, 0);
    return NULL;
}

static void run_vfork(void) {
    start_thread(wait_for_vfork, NULL);
    while (!vfork_child) sched_yield();
    printf("%d\n", vfork_child);
}

/* --- exec N: executes itself as soon as it has begun, N times, by turns from the first thread and from another --- */

static char **arguments;

static void *execute_next(void *unused) {
    char next[16];
    (void)unused;
    snprintf(next, sizeof next, "%d", atoi(arguments[2]) - 1);
    execl(arguments[0], arguments[0], "exec", next, (char *)NULL);
    die("exec");
    return NULL;
}

static void run_exec(int left) {
    run_threads(3);
    if (left == 0) return;
    if (left % 2) execute_next(NULL);
    start_thread(execute_next, NULL);
    for (;;) pause();
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "threads";
    int number = argc > 2 ? atoi(argv[2]) : 2;
    int has_own_line = !strcmp(mode, "children") || !strcmp(mode, "pages") || !strcmp(mode, "vfork");
    arguments = argv;
    limit_life();
    if (!strcmp(mode, "threads")) run_threads(number);
    else if (!strcmp(mode, "churn"))
        for (int index = 0; index < 3; index++) start_thread(make_threads, NULL);
    else if (!strcmp(mode, "signals")) run_signals();
    else if (!strcmp(mode, "children")) run_children();
    else if (!strcmp(mode, "forks")) {
        start_thread(make_children, NULL);
        start_thread(make_children, &counters[1]);
    } else if (!strcmp(mode, "exec")) run_exec(number);
    else if (!strcmp(mode, "pages")) run_pages();
    else if (!strcmp(mode, "vfork")) run_vfork();
    if (!has_own_line) printf("ready\n");
    fflush(stdout);
    if (!strcmp(mode, "leader-exits")) {
        start_thread(tick, &counters[0]);
        start_thread(serve, NULL);
        pthread_exit(NULL);
    }
    serve(NULL);
}
