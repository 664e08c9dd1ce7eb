/* Another library that handles SIGBUS, for tests/test_guard.py. It has handlers, faults in a map of
 * its own, and a record of the state that its handlers found. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

enum { PLAIN, WITH_INFO, CHAINING, JUMPING, DEFAULT, IGNORED };
enum { CALLS, NUMBER, CODE, ADDRESS, MASK, ERROR, STACK, FIELDS };

/* The record of the last handler: the number of calls, the signal, si_code, the offset in the map,
 * the blocked signals, errno, and whether it ran on the alternate stack. */
long seen[FIELDS];

static char *map, *touched;
static size_t length;
static struct sigaction before;
static sigjmp_buf back;

/* Returns a bit for each of these signals that the thread has blocked. */
long blocked(void)
{
    static const int signals[] = {SIGBUS, SIGUSR1, SIGUSR2, SIGTERM};
    sigset_t mask;
    long found = 0;
    int i;

    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    for (i = 0; i < 4; i++)
        found |= (long)sigismember(&mask, signals[i]) << i;
    return found;
}

static void see(int number, int code, char *address)
{
    stack_t stack;

    sigaltstack(NULL, &stack);
    seen[STACK] = (stack.ss_flags & SS_ONSTACK) != 0;
    seen[CALLS]++;
    seen[NUMBER] = number;
    seen[CODE] = code;
    seen[ADDRESS] = address != NULL && address >= map && address < map + length ? address - map
                                                                                : -1;
    seen[MASK] = blocked();
    seen[ERROR] = errno;
}

static void repair(char *address)
{
    long page = sysconf(_SC_PAGESIZE);

    if (map != NULL && address >= map && address < map + length)
        mmap(map + (address - map) / page * page, (size_t)page, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void plain(int number)
{
    see(number, 0, touched);
    repair(touched);
}

static void with_info(int number, siginfo_t *info, void *context)
{
    (void)context;
    see(number, info->si_code, info->si_code > 0 ? info->si_addr : NULL);
    if (info->si_code > 0)
        repair(info->si_addr);
}

/* Repairs its own pages, and passes all other signals to the previous handler. */
static void chaining(int number, siginfo_t *info, void *context)
{
    char *address = info->si_addr;

    if (info->si_code > 0 && map != NULL && address >= map && address < map + length)
        with_info(number, info, context);
    else if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
        before.sa_handler(number);
    else if (sigaction(number, &before, NULL) == 0 && info->si_code <= 0)
        raise(number); /* a fault happens again without raise() */
}

static void jumping(int number, siginfo_t *info, void *context)
{
    (void)context;
    see(number, info->si_code, info->si_code > 0 ? info->si_addr : NULL);
    siglongjmp(back, 1);
}

/* Installs a handler of SIGBUS that blocks SIGUSR1. */
int take(int kind, int flags)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR1);
    action.sa_flags = flags;
    if (kind == PLAIN || kind == DEFAULT || kind == IGNORED) {
        action.sa_handler = kind == PLAIN ? plain : kind == DEFAULT ? SIG_DFL : SIG_IGN;
    } else {
        action.sa_flags |= SA_SIGINFO;
        action.sa_sigaction = kind == WITH_INFO ? with_info : kind == CHAINING ? chaining : jumping;
    }
    return sigaction(SIGBUS, &action, &before);
}

int give_back(void)
{
    return sigaction(SIGBUS, &before, NULL);
}

int handles(void)
{
    struct sigaction now;

    sigaction(SIGBUS, NULL, &now);
    return now.sa_flags & SA_SIGINFO ? now.sa_sigaction == with_info || now.sa_sigaction == chaining
                                     : now.sa_handler == plain;
}

char *map_file(int fd, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (memory == MAP_FAILED)
        return NULL;
    length = size;
    return map = memory;
}

/* Reads a byte; returns errno afterwards. */
int touch(volatile char *address)
{
    volatile int *error = &errno; /* volatile: the compiler may not assume its value */

    touched = (char *)address;
    *error = ERANGE;
    (void)*address;
    return *error;
}

/* Reads a byte; returns 1 if the handler jumped back here. */
int try_touch(volatile char *address)
{
    touched = (char *)address;
    if (sigsetjmp(back, 1) != 0)
        return 1;
    (void)*address;
    return 0;
}

/* Calls read() once; returns the number of bytes, or -errno. */
long read_once(int fd, char *out, size_t size)
{
    ssize_t done = read(fd, out, size);

    return done < 0 ? -errno : done;
}

int block(int number)
{
    sigset_t mask;

    sigemptyset(&mask);
    sigaddset(&mask, number);
    return pthread_sigmask(SIG_BLOCK, &mask, NULL);
}

/* Gives the thread an alternate stack. */
int use_stack(void)
{
    static char memory[1 << 16];
    stack_t stack;

    memset(&stack, 0, sizeof stack);
    stack.ss_sp = memory;
    stack.ss_size = sizeof memory;
    return sigaltstack(&stack, NULL);
}

int restarts(void)
{
    return SA_RESTART;
}

int once(void)
{
    return (int)SA_RESETHAND;
}

int nests(void)
{
    return SA_NODEFER;
}

int on_stack(void)
{
    return SA_ONSTACK;
}

int info(void)
{
    return SA_SIGINFO;
}

/* Returns a bit for each signal that the current handler blocks, as blocked() does. */
long blocks(void)
{
    static const int signals[] = {SIGBUS, SIGUSR1, SIGUSR2, SIGTERM};
    struct sigaction now;
    long found = 0;
    int i;

    sigaction(SIGBUS, NULL, &now);
    for (i = 0; i < 4; i++)
        found |= (long)sigismember(&now.sa_mask, signals[i]) << i;
    return found;
}

#ifdef __linux__
/* Sends the signal of a misaligned access, three times, as the processor would; returns 0 if that
 * fails. A real one needs the alignment check. On some processors, the C library would then fault
 * inside a handler too. */
int misalign(char *address)
{
    struct sigaction now;
    siginfo_t info;
    int times;

    memset(&info, 0, sizeof info);
    info.si_signo = SIGBUS;
    info.si_code = BUS_ADRALN;
    info.si_addr = address;
    for (times = 0; times < 3; times++) {
        sigaction(SIGBUS, NULL, &now);
        if (now.sa_handler == SIG_IGN) { /* a signal of an instruction cannot be ignored */
            now.sa_handler = SIG_DFL;
            sigaction(SIGBUS, &now, NULL);
        }
        if (syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), SIGBUS, &info) != 0)
            return 0;
    }
    return 1;
}
#else
int misalign(char *address)
{
    (void)address;
    return 0;
}
#endif
