#include "signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TIMER_US = 5000 };

static _Atomic uint64_t alarms, usr1, chld, cont;
static pid_t child = -1;

static void count(int signal)
{
    atomic_fetch_add(signal == SIGALRM ? &alarms : signal == SIGUSR1 ? &usr1 : signal == SIGCHLD ? &chld : &cont, 1);
}

/* The child lives as long as the other end of the pipe is open, so it never survives the program. */
static bool child_begin(void)
{
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    child = fork();
    if (child == 0) {
        char ignored;
        close(ends[1]);
        while (read(ends[0], &ignored, 1) != 0) {
        }
        _exit(0);
    }
    close(ends[0]);
    return child > 0;
}

bool signals_begin(void)
{
    static const int counted[] = {SIGALRM, SIGUSR1, SIGCHLD, SIGCONT};
    const struct itimerval period = {{0, TIMER_US}, {0, TIMER_US}};
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    if (child > 0)
        return true;
    if (!child_begin())
        return false;
    sigemptyset(&action.sa_mask);
    for (size_t index = 0; index < sizeof counted / sizeof counted[0]; index++)
        if (sigaction(counted[index], &action, NULL) != 0)
            return false;
    return setitimer(ITIMER_REAL, &period, NULL) == 0;
}

static const char *child_state(void)
{
    siginfo_t state = {.si_pid = 0};
    if (child < 0)
        return "none";
    if (waitid(P_PID, (id_t)child, &state, WNOHANG | WNOWAIT | WEXITED | WSTOPPED) != 0)
        return "gone";
    if (state.si_pid == 0)
        return "running";
    return state.si_code == CLD_STOPPED || state.si_code == CLD_TRAPPED ? "stopped" : "gone";
}

void signals_report(struct text *text)
{
    text_string(text, " alarms=");
    text_unsigned(text, atomic_load(&alarms));
    text_string(text, " usr1=");
    text_unsigned(text, atomic_load(&usr1));
    text_string(text, " chld=");
    text_unsigned(text, atomic_load(&chld));
    text_string(text, " cont=");
    text_unsigned(text, atomic_load(&cont));
    text_string(text, " child=");
    text_string(text, child_state());
}

/* The signal may come to any thread, or between the test and the sleep: sleep in short pieces. */
static void await(_Atomic uint64_t *counter, uint64_t count)
{
    const struct timespec piece = {0, 1000000};
    while (atomic_load(counter) < count)
        nanosleep(&piece, NULL);
}

void signals_await_alarms(uint64_t count)
{
    await(&alarms, count);
}

void signals_await_usr1(uint64_t count)
{
    await(&usr1, count);
}
