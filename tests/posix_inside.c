/* Tests of posix_guard.c from inside, for states that last too short to be met from outside.
 * tests/test_guard.py runs this program. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static void *watching_mmap(void *address, size_t length, int protection, int flags, int fd,
                           off_t offset);

#define mmap watching_mmap
#include "posix_guard.c"
#undef mmap

#include "check.h"

static mf_file file;
static mf_section section;
static mf_mapping maps[8];
static atomic_int unmapped;

static void *unmap(void *map)
{
    CHECK(mf_unmap(map) == 0);
    unmapped = 1;
    return NULL;
}

/* Checks the list, and returns a bit for each map that is on it. */
static int listed(void)
{
    mf_mapping *map, *before = NULL;
    int found = 0;

    lock_list();
    for (map = map_at(first_map); map != NULL; before = map, map = map_at(map->next)) {
        CHECK(map_at(map->previous) == before);
        CHECK(map >= maps && map < maps + 8);
        found |= 1 << (map - maps);
    }
    unlock_list();
    return found;
}

static void pause_for(long milliseconds)
{
    struct timespec time = {0, milliseconds * 1000000};

    nanosleep(&time, NULL);
}

/* mf_unmap waits for the handlers that were running before it, and for no later ones. */
static void unmapping_waits(void)
{
    pthread_t thread;

    handlers = 1;
    CHECK(pthread_create(&thread, NULL, unmap, &maps[2]) == 0);
    while (listed() & 1 << 2)
        sched_yield();
    pause_for(100);
    CHECK(!unmapped);
    /* Mapping does not wait. */
    CHECK(mf_map(&file, &section, MF_WRITE, 0, page_size, &maps[5]) == 0);
    handlers = 0;
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(unmapped);
}

static void *come_and_go(void *unused)
{
    mf_mapping own[16] = {{0}};
    int round, i;

    (void)unused;
    for (round = 0; round < 30000; round++) {
        for (i = 0; i < 16; i++)
            mf_guard_register(&own[i]);
        for (i = 0; i < 16; i++)
            mf_guard_unregister(&own[(i * 7) % 16]);
    }
    return NULL;
}

/* Threads can put maps on the list and take them off at the same time. */
static void writers_take_turns(void)
{
    pthread_t threads[4];
    int i, before = listed();

    for (i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, come_and_go, NULL) == 0);
    for (i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(listed() == before);
}

/* After a fork, the child has no running handlers and the lock is free. */
static void fork_resets_the_guard(void)
{
    int status, pid;

    handlers = 3;
    pid = fork();
    if (pid == 0) {
        mf_mapping map = {0};

        alarm(10);
        CHECK(handlers == 0);
        CHECK(mf_map(&file, &section, MF_READ, 0, page_size, &map) == 0);
        CHECK(mf_unmap(&map) == 0);
        _exit(0);
    }
    handlers = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(status == 0);
}

/* The guard marks a page as lost before it puts zeros there: a thread that reads the zeros can see
 * the mark. */
static mf_mapping *watched;
static uintptr_t mark_at_mmap;
static int pages_put;
static volatile char *written_meanwhile;

static void *write_meanwhile(void *unused)
{
    volatile char *byte = written_meanwhile;
    sigset_t none;

    (void)unused;
    sigemptyset(&none);
    CHECK(pthread_sigmask(SIG_SETMASK, &none, NULL) == 0); /* the thread was created in a handler */
    written_meanwhile = NULL;
    *byte = 7;
    CHECK(*byte == 7);
    return NULL;
}

static void *watching_mmap(void *address, size_t length, int protection, int flags, int fd,
                           off_t offset)
{
    if (flags & MAP_FIXED) {
        mark_at_mmap = watched->lost_to;
        pages_put++;
        CHECK(handlers == 0); /* no handler uses the list during mmap */
        if (written_meanwhile != NULL) {
            pthread_t thread;

            CHECK(pthread_create(&thread, NULL, write_meanwhile, NULL) == 0);
            CHECK(pthread_join(thread, NULL) == 0);
        }
    }
    return mmap(address, length, protection, flags, fd, offset);
}

static volatile int passed_on;

static void predecessor(int number, siginfo_t *info, void *context)
{
    (void)context;
    CHECK(number == SIGBUS && passed_on == 0); /* a second call would be an endless fault */
    passed_on = info->si_code;
}

#ifdef BUS_MCEERR_AO
/* The guard handles a signal only if its si_code says that a page is missing. An address inside a
 * map is not enough. */
static void only_missing_pages_count(void)
{
    static const int missing[] = {BUS_ADRERR, BUS_OBJERR, BUS_MCEERR_AR},
                     others[] = {BUS_ADRALN, BUS_MCEERR_AO, SI_QUEUE};
    siginfo_t info = {0};
    int i;

    info.si_addr = maps[1].base;
    for (i = 0; i < 3; i++) {
        passed_on = 0;
        info.si_code = others[i];
        CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGBUS, &info) == 0);
        CHECK(passed_on == others[i] && file.faults == (uintptr_t)i);
        CHECK(is_synchronous(&info) == (i == 0));
        info.si_code = missing[i];
        CHECK(syscall(SYS_rt_sigqueueinfo, getpid(), SIGBUS, &info) == 0);
        CHECK(passed_on == others[i] && file.faults == (uintptr_t)i + 1);
    }
    CHECK(maps[1].lost_to == page_size);
    file.faults = 0;
}
#endif

/* On macOS, a sent signal and a write to a read-only page look like a fault. There the guard does
 * not replace a page that can be read. On other systems si_code shows the difference. */
static void good_pages_stay(void)
{
    mf_mapping good = {0};
    char *page;
    int i;

    CHECK(ftruncate(fd_of(&file), (off_t)page_size) == 0);
    CHECK(mf_map(&file, &section, MF_READ, 0, 2 * page_size, &good) == 0);
    page = good.base;
    (void)*(volatile char *)page; /* the page is in memory */
    if (SI_CODE_IS_RELIABLE) {
        CHECK(replace_page((uintptr_t)page));
        CHECK(good.lost_to == page_size);
    } else {
        CHECK(!replace_page((uintptr_t)page));
        CHECK(good.lost_to == 0);
        CHECK(*(volatile char *)(good.base + page_size) == 0); /* it was missing, and is replaced */
        CHECK(good.lost_from == page_size && good.lost_to == 2 * page_size);
        for (i = 0; replace_page((uintptr_t)good.base + page_size + 5); i++)
            CHECK(i < MAX_RETRIES); /* retries, in case another thread has replaced it */
        CHECK(i > 1);
    }
    CHECK(mf_unmap(&good) == 0);
}

int main(int argc, char **argv)
{
    struct sigaction before = {0};
    mf_growth growth = {0};
    volatile char *byte;
    int i;

    CHECK(argc == 2);
    CHECK(mf_open(argv[1], MF_WRITE, MF_NEW, &file) == 0);
    page_size = get_page_size();
    growth.grown = (int64_t)(4 * page_size);
    CHECK(mf_grow(&file, &growth, &section) == 0);
    before.sa_sigaction = predecessor;
    before.sa_flags = SA_SIGINFO;
    CHECK(sigaction(SIGBUS, &before, NULL) == 0);
    CHECK(mf_guard() == 0);
    for (i = 0; i < 5; i++)
        CHECK(mf_map(&file, &section, i == 4 ? MF_READ : MF_WRITE, 0, 4 * page_size, &maps[i]) ==
              0);
    CHECK(listed() == 0x1f);
    unmapping_waits();
    CHECK(listed() == 0x3b);
    fork_resets_the_guard();
    writers_take_turns();
#ifdef BUS_MCEERR_AO
    if (SI_CODE_IS_RELIABLE)
        only_missing_pages_count();
#endif

    CHECK(ftruncate(fd_of(&file), 0) == 0);
    for (i = 4; i >= 3; i--) { /* a read-only map, then a writable one */
        watched = &maps[i];
        byte = maps[i].base + page_size + 5;
        CHECK(*byte == 0);
        CHECK(maps[i].lost_from == page_size && maps[i].lost_to == 2 * page_size);
        CHECK(mark_at_mmap == 2 * page_size);
        CHECK(last_hit == maps[i].self);
    }
    CHECK(pages_put == 2 && file.faults == 2);
    CHECK(maps[0].lost_to == 0 && maps[0].lost_from == UINTPTR_MAX);

    /* The guard forgets the last map with a fault when that is unmapped. */
    CHECK(mf_unmap(&maps[3]) == 0);
    CHECK(last_hit == 0);
    /* A new map has no marks. */
    CHECK(mf_map(&file, &section, MF_READ, 0, page_size, &maps[3]) == 0);
    CHECK(maps[3].lost_to == 0 && maps[3].lost_from == UINTPTR_MAX);

    /* A map has the whole of its last page: a fault may be at a byte behind the end of the file. */
    watched = &maps[6];
    CHECK(mf_map(&file, &section, MF_READ, 0, page_size + 10, watched) == 0);
    CHECK(*(volatile char *)(watched->base + page_size + 100) == 0);
    CHECK(watched->lost_to == 2 * page_size);

    /* Another thread replaces the same missing page and writes to it. Then this thread puts zeros
     * there, and the written byte is lost. */
    watched = &maps[0];
    byte = watched->base + 5;
    written_meanwhile = byte;
    byte[1] = 8;
    CHECK(byte[0] == 0 && byte[1] == 8);

    good_pages_stay();

    for (i = 0; i < 8; i++)
        if (listed() & 1 << i)
            CHECK(mf_unmap(&maps[i]) == 0);
    CHECK(listed() == 0);
    CHECK(mf_close(&file) == 0);
    puts("all is well");
    return 0;
}
