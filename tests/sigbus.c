/* Another library that has to do with SIGBUS, for tests/test_guard.py: its handlers, faults in a map of its own, and what its
 * handlers saw of the thread that they interrupted. */
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

/* What the handler saw last: how often it was called, the signal, its si_code, the place in the map, what was blocked, errno, and
 * whether it was on the alternate stack. */
long seen[FIELDS];

static char *map, *touched;
static size_t length;
static struct sigaction before;
static sigjmp_buf back;

/* Which of these signals the thread has blocked. */
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
    seen[ADDRESS] = address != NULL && address >= map && address < map + length ? address - map : -1;
    seen[MASK] = blocked();
    seen[ERROR] = errno;
}

static void repair(char *address)
{
    long page = sysconf(_SC_PAGESIZE);

    if (map != NULL && address >= map && address < map + length)
        mmap(map + (address - map) / page * page, (size_t)page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
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

/* Repairs what is its own, and leaves everything else to the handler before it. */
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
        raise(number); /* a fault comes again by itself */
}

static void jumping(int number, siginfo_t *info, void *context)
{
    (void)context;
    see(number, info->si_code, info->si_code > 0 ? info->si_addr : NULL);
    siglongjmp(back, 1);
}

/* Takes SIGBUS; SIGUSR1 is to be blocked meanwhile. */
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

/* Reads a byte; returns what errno is afterwards. */
int touch(volatile char *address)
{
    volatile int *error = &errno; /* or the compiler knows what it is */

    touched = (char *)address;
    *error = ERANGE;
    (void)*address;
    return *error;
}

/* The same where the handler jumps back: 1 if it did. */
int try_touch(volatile char *address)
{
    touched = (char *)address;
    if (sigsetjmp(back, 1) != 0)
        return 1;
    (void)*address;
    return 0;
}

/* Reads from a pipe, once: the number of bytes, or -errno. */
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

/* Whether the handler that is in place has these signals blocked while it runs: bits as blocked() has them. */
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
/* What an instruction brings whose address is misaligned, the first three times that it is tried; 0 if that cannot be had. The signal
 * is sent: with the alignment check on, as a real one needs it, the C library's code in a handler would fault too, on some processors. */
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
        if (now.sa_handler == SIG_IGN) { /* the system lets nobody ignore what an instruction raised */
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
