/* The POSIX fault guard. The system sends SIGBUS for a page of a map that its file cannot provide:
 * the file was truncated, the disk behind a hole is full, or the device failed. The guard maps a
 * page of zeros there and marks the map, as systemd's journald does. */
#include "posix_private.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/uio.h>
#ifdef __APPLE__
#include <mach/mach.h>
#include <mach/mach_vm.h>
#endif

/* The list of maps. Signal handlers search it for the map of an address, and take no lock.
 *
 * Writers take a lock. A writer that removes a map waits until no handler uses the list any more. A
 * handler uses it for some microseconds. */
static mf_word first_map, last_hit, handlers;
static atomic_flag list_lock = ATOMIC_FLAG_INIT;
static size_t page_size; /* bytes */

static mf_mapping *map_at(uintptr_t address)
{
    return (mf_mapping *)address;
}

static void lock_list(void)
{
    while (atomic_flag_test_and_set(&list_lock))
        sched_yield();
}

static void unlock_list(void)
{
    atomic_flag_clear(&list_lock);
}

void mf_guard_register(mf_mapping *map)
{
    map->self = (uintptr_t)map;
    if (WITHOUT_GUARD)
        return;
    lock_list();
    map->previous = 0;
    map->next = first_map;
    if (first_map != 0)
        map_at(first_map)->previous = map->self;
    first_map = map->self;
    unlock_list();
}

void mf_guard_unregister(mf_mapping *map)
{
    if (WITHOUT_GUARD || map->self == 0)
        return;
    lock_list();
    if (map->next != 0)
        map_at(map->next)->previous = map->previous;
    if (map->previous != 0)
        map_at(map->previous)->next = map->next;
    else
        first_map = map->next;
    if (last_hit == map->self)
        last_hit = 0;
    unlock_list();
    map->self = 0;
    while (handlers != 0)
        sched_yield();
}

/* fork. A child has its parent's list, and only one thread. */

static atomic_int process; /* 0: not read yet */
static _Atomic(uintptr_t) forker;

static void reset_in_child(void)
{
    handlers = 0;
    process = 0;
    forker = (uintptr_t)pthread_self();
    unlock_list();
}

static int atfork_error;

static void prepare_once(void)
{
    page_size = get_page_size();
    atfork_error = pthread_atfork(lock_list, unlock_list, reset_in_child);
}

int mf_guard_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int error = WITHOUT_GUARD ? 0 : pthread_once(&once, prepare_once);

    return error != 0 ? error : atfork_error;
}

/* It is in this file because a forked child must read its id again. */
int mf_process(void)
{
    int known = process;

    if (known != 0)
        return known;
    known = (int)getpid();
    if (mf_guard_prepare() == 0 && !WITHOUT_GUARD)
        process = known;
    return known;
}

uintptr_t mf_forker(void)
{
    return forker;
}

/* The page */

/* On Linux si_code says whether a page is missing. On macOS it is the same for a signal that was
 * sent, and for a write to a read-only page (XNU: sendsig, ux_exception). So on macOS a page that
 * can be read counts as not missing. */
#if defined(__APPLE__) || defined(UNTRUSTED_CODES)
enum { SI_CODE_IS_RELIABLE = 0 };
#else
enum { SI_CODE_IS_RELIABLE = 1 };
#endif

/* Policy, where si_code is not enough: a fault in a readable page may come from a thread that
 * touched the page just before another thread replaced it, so the thread tries again. After this
 * many retries since the last replacement, faults are passed on. This ends an endless loop of a
 * write that cannot succeed. */
enum { MAX_RETRIES = 1000 };
static mf_word retries;

/* Whether an address lies in the pages of a map. */
static int contains(const mf_mapping *map, uintptr_t address)
{
    return address - (uintptr_t)map->base < mf_round_up(map->length, page_size);
}

static int can_read(const char *page)
{
#if defined(__APPLE__)
    char byte;
    mach_vm_size_t done = 0;

    return mach_vm_read_overwrite(mach_task_self(), (mach_vm_address_t)page, 1,
                                  (mach_vm_address_t)&byte, &done) == KERN_SUCCESS &&
           done == 1;
#elif defined(__linux__)
    char byte;
    struct iovec from = {(void *)(uintptr_t)page, 1}, to = {&byte, 1};

    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
#else
    (void)page;
    return 0;
#endif
}

/* Replaces a page that can be read but not written by a copy. A full disk causes such pages: in
 * holes, and on file systems that write to another place. A system call makes the copy, since it
 * returns an error instead of a fault. */
static int replace_with_copy(char *page)
{
#ifdef __linux__
    struct iovec from = {page, page_size}, to = {NULL, page_size};

    if (!can_read(page))
        return 0;
    to.iov_base = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (to.iov_base == MAP_FAILED)
        return 0;
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)page_size &&
        mremap(to.iov_base, page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page)
        return 1;
    munmap(to.iov_base, page_size);
#else
    (void)page;
#endif
    return 0;
}

/* Replaces the page of an address, if it lies in a map on the list: by a copy if it can be read,
 * otherwise by zeros. Read-only maps stay read-only. */
static int replace_page(uintptr_t address)
{
    mf_mapping *map;
    char *page;
    size_t start;
    int access;

    handlers++;
    map = map_at(last_hit);
    if (map == NULL || !contains(map, address))
        for (map = map_at(first_map); map != NULL && !contains(map, address);
             map = map_at(map->next))
            ;
    if (map == NULL) {
        handlers--;
        return 0;
    }
    start = (address - (uintptr_t)map->base) / page_size * page_size;
    page = map->base + start;
    access = map->access;
    if (!SI_CODE_IS_RELIABLE) {
        if (can_read(page)) {
            /* Another thread may have just replaced it: the thread tries again. */
            int again = start >= map->lost_from && start < map->lost_to &&
                        mf_add(&retries, 1) < MAX_RETRIES;

            handlers--;
            return again;
        }
        retries = 0;
    }
    last_hit = map->self;
    /* The mark comes first: a thread that sees the zeros can see the mark. The list is released
     * before the system call, which may take long. */
    mf_mark_lost(map, start, page_size);
    handlers--;
    if (access != MF_READ && replace_with_copy(page))
        return 1;
    return mmap(page, page_size, protection_of(access), MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                0) == page;
}

/* The signal */

/* The previous handlers of SIGBUS. Other code may install its handler after the guard, and later
 * restore the guard's handler and raise the signal again, as faulthandler does. So each
 * installation of the guard uses another handler function, with its own predecessor. */
enum { LEVELS = 4 }; /* Policy: mf_guard fails with EAGAIN when all are in use */
static struct sigaction predecessors[LEVELS];

/* Whether a page is missing. Otherwise the signal was sent, or an address was misaligned. */
static int is_missing_page(const siginfo_t *info)
{
#ifdef BUS_MCEERR_AR
    /* A use of broken memory (BUS_MCEERR_AR) counts. A mere report of broken memory (BUS_MCEERR_AO)
     * does not. */
    return info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR ||
           info->si_code == BUS_MCEERR_AR;
#else
    return info->si_addr != NULL;
#endif
}

/* Whether the interrupted instruction raised the signal. Such a signal cannot be ignored: the
 * instruction would raise it again. */
static int is_synchronous(const siginfo_t *info)
{
#ifdef BUS_MCEERR_AO
    /* sigaction(2): si_code of a sent signal is not positive. */
    return info->si_code > 0 && info->si_code != BUS_MCEERR_AO;
#else
    return info->si_addr != NULL;
#endif
}

/* SIG_DFL and SIG_IGN are not handlers, whether SA_SIGINFO is set or not. */
static int is_default(const struct sigaction *action)
{
    return action->sa_handler == SIG_DFL;
}

static int is_ignored(const struct sigaction *action)
{
    return action->sa_handler == SIG_IGN;
}

/* Does what the system or the previous handler would have done without the guard. */
static void pass_on(struct sigaction *predecessor, int number, siginfo_t *info, void *context)
{
    static const struct sigaction by_default = {.sa_handler = SIG_DFL};
    struct sigaction to = *predecessor;
#ifdef __OpenBSD__
    sigset_t mask = ((ucontext_t *)context)->sc_mask;
#else
    sigset_t mask = ((ucontext_t *)context)->uc_sigmask;
#endif
    int other;

    if ((to.sa_flags & (int)SA_RESETHAND) != 0)
        *predecessor = by_default;
    if (is_ignored(&to) && !is_synchronous(info))
        return;
    if (is_ignored(&to) || is_default(&to)) {
        sigaction(number, &by_default, NULL);
        if (!is_synchronous(info))
            raise(number); /* blocked until the handler returns */
        return;
    }
    for (other = 1; other < NSIG; other++)
        if (sigismember(&to.sa_mask, other) == 1 ||
            (other == number && !(to.sa_flags & SA_NODEFER)))
            sigaddset(&mask, other);
    pthread_sigmask(SIG_SETMASK, &mask, NULL); /* until the handler returns */
    if (to.sa_flags & SA_SIGINFO)
        to.sa_sigaction(number, info, context);
    else
        to.sa_handler(number);
}

static void on_fault(int level, int number, siginfo_t *info, void *context)
{
    int error = errno;

    if (!is_missing_page(info) || !replace_page((uintptr_t)info->si_addr))
        pass_on(&predecessors[level], number, info, context);
    errno = error;
}

#define LEVEL(n)                                                         \
    static void on_fault_##n(int number, siginfo_t *info, void *context) \
    {                                                                    \
        on_fault(n, number, info, context);                              \
    }
LEVEL(0)
LEVEL(1)
LEVEL(2)
LEVEL(3)

static void (*const on_faults[LEVELS])(int, siginfo_t *, void *) = {on_fault_0, on_fault_1,
                                                                    on_fault_2, on_fault_3};

/* The level of an action, or -1 if it is not a handler of the guard. */
static int level_of(const struct sigaction *action)
{
    int level = LEVELS - 1;

    while (level >= 0 &&
           !(action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_faults[level]))
        level--;
    return level;
}

static int same_handler(const struct sigaction *one, const struct sigaction *other)
{
    if ((one->sa_flags & SA_SIGINFO) != (other->sa_flags & SA_SIGINFO))
        return 0;
    return one->sa_flags & SA_SIGINFO ? one->sa_sigaction == other->sa_sigaction
                                      : one->sa_handler == other->sa_handler;
}

int mf_guarded(void)
{
    struct sigaction now;

    return sigaction(SIGBUS, NULL, &now) == 0 && level_of(&now) >= 0;
}

int mf_guard(void)
{
    static int levels; /* how many levels are in use */
    struct sigaction now, ours = {0};
    int level, error = mf_guard_prepare();

    if (error != 0)
        return error;
    lock_list();
    if (sigaction(SIGBUS, NULL, &now) != 0)
        error = errno;
    if (error == 0 && level_of(&now) < 0) {
        for (level = 0; level < levels && !same_handler(&predecessors[level], &now); level++)
            ;
        if (level == LEVELS) {
            error = EAGAIN;
        } else {
            predecessors[level] = now;
            ours.sa_sigaction = on_faults[level];
            ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
            /* A sent signal interrupts system calls exactly if it would have done so without the
             * guard. */
            ours.sa_flags |= is_ignored(&now) ? SA_RESTART : now.sa_flags & SA_RESTART;
            /* Another signal's handler that jumps out must not jump out of this one. */
            sigfillset(&ours.sa_mask);
            if (sigaction(SIGBUS, &ours, NULL) != 0)
                error = errno;
            else if (level == levels)
                levels++;
        }
    }
    unlock_list();
    return error;
}

/* With the guard, these copies and searches cannot fail. */

int mf_copy(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step,
            size_t count)
{
    (void)map;
    mf_move(to, to_step, from, from_step, count);
    return 0;
}

int mf_search(mf_mapping *map, mf_searcher *search, const void *haystack, size_t length,
              const void *needle, size_t needle_length, size_t *end, int64_t *out)
{
    (void)map;
    *out = search(haystack, length, needle, needle_length, end);
    return 0;
}
