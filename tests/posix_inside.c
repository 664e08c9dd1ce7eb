/* posix.c, seen from inside: what takes too short a time to be met from outside. A program of tests/test_guard.py. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static void *watching_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);

#define mmap watching_mmap
#include "posix.c"
#undef mmap

#define CHECK(condition)                                                     \
    do {                                                                     \
        if (!(condition)) {                                                  \
            fprintf(stderr, "line %d: not so: %s\n", __LINE__, #condition);  \
            exit(1);                                                         \
        }                                                                    \
    } while (0)

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

/* Which of the maps are on the list, as bits; the list must be sound. */
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

/* Whoever unmaps waits for handlers that may be at his map, and for those alone that were there before. */
static void unmapping_waits(void)
{
    pthread_t thread;

    handlers = 1;
    CHECK(pthread_create(&thread, NULL, unmap, &maps[2]) == 0);
    while (listed() & 1 << 2)
        sched_yield();
    pause_for(100);
    CHECK(!unmapped);
    CHECK(mf_map(&file, &section, MF_WRITE, 0, page_size, &maps[5]) == 0); /* mapping does not wait */
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
            put_on_list(&own[i]);
        for (i = 0; i < 16; i++)
            take_off_list(&own[(i * 7) % 16]);
    }
    return NULL;
}

/* Threads that put maps on the list and take them off take turns. */
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

/* In a child handlers and the lock are as if new, whatever other threads were at. */
static void children_start_anew(void)
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

/* The mark is there before the page is: who sees zeros can see the mark. */
static mf_mapping *watched;
static uintptr_t mark_at_mmap;
static int pages_put;

static void *watching_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    if (flags & MAP_FIXED) {
        mark_at_mmap = watched->lost_to;
        pages_put++;
        CHECK(handlers == 0); /* and no handler is on the list while the system is asked */
    }
    return mmap(address, length, protection, flags, fd, offset);
}

int main(int argc, char **argv)
{
    volatile char *byte;
    int i;

    CHECK(argc == 2);
    CHECK(mf_open(argv[1], MF_WRITE, MF_NEW, &file) == 0);
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    CHECK(mf_grow(&file, 0, (int64_t)(4 * page_size), 0, &section) == 0);
    CHECK(mf_guard() == 0);
    for (i = 0; i < 5; i++)
        CHECK(mf_map(&file, &section, i == 4 ? MF_READ : MF_WRITE, 0, 4 * page_size, &maps[i]) == 0);
    CHECK(listed() == 0x1f);
    unmapping_waits();
    CHECK(listed() == 0x3b);
    children_start_anew();
    writers_take_turns();

    CHECK(ftruncate(fd_of(&file), 0) == 0);
    for (i = 4; i >= 3; i--) { /* read-only, and not */
        watched = &maps[i];
        byte = maps[i].base + page_size + 5;
        CHECK(*byte == 0);
        CHECK(maps[i].lost_from == page_size && maps[i].lost_to == 2 * page_size);
        CHECK(mark_at_mmap == 2 * page_size);
        CHECK(last_hit == maps[i].self);
    }
    CHECK(pages_put == 2 && file.faults == 2);
    CHECK(maps[0].lost_to == 0 && maps[0].lost_from == UINTPTR_MAX);

    /* The last map that had a fault goes, and is not looked at again. */
    CHECK(mf_unmap(&maps[3]) == 0);
    CHECK(last_hit == 0);
    for (i = 0; i < 6; i++)
        if (listed() & 1 << i)
            CHECK(mf_unmap(&maps[i]) == 0);
    CHECK(listed() == 0);
    CHECK(mf_close(&file) == 0);
    puts("all is well");
    return 0;
}
