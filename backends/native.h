/* What backend.h needs when a C compiler reads it. */
#ifndef MAPPEDFILE_NATIVE_H
#define MAPPEDFILE_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* mf_char: a character of a path. mf_word: a word that one thread may read while another writes it.
 */
#ifdef _WIN32
#ifdef _MSC_VER
#include <intrin.h>
#endif
typedef wchar_t mf_char;
typedef volatile uintptr_t mf_word;
#else
#include <stdatomic.h>
typedef char mf_char;
typedef _Atomic(uintptr_t) mf_word;
#endif

#include "search.h"

#include "backend.h"

/* The constants of the header of mmap, for systems without that header. */
#ifdef _WIN32
enum { MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_ANONYMOUS = 32 };
enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4 };
enum { MS_ASYNC = 1, MS_INVALIDATE = 2, MS_SYNC = 4 };
enum {
    MADV_NORMAL = MF_NORMAL,
    MADV_RANDOM = MF_RANDOM,
    MADV_SEQUENTIAL = MF_SEQUENTIAL,
    MADV_WILLNEED = MF_WILLNEED
};
#else
#include <sys/mman.h>
#endif

/* Adds to a word atomically, and returns the new value. */
static inline uintptr_t mf_add(mf_word *word, intptr_t by)
{
#if !defined(_WIN32)
    return atomic_fetch_add(word, (uintptr_t)by) + (uintptr_t)by;
#elif defined(_MSC_VER) && defined(_WIN64)
    return (uintptr_t)_InterlockedExchangeAdd64((volatile __int64 *)word, by) + (uintptr_t)by;
#elif defined(_MSC_VER)
    return (uintptr_t)_InterlockedExchangeAdd((volatile long *)word, by) + (uintptr_t)by;
#else
    return __atomic_add_fetch(word, (uintptr_t)by, __ATOMIC_SEQ_CST);
#endif
}

/* Sets a word to value if it is still *old. Otherwise returns 0, and *old is the word's value. */
static inline int mf_replace(mf_word *word, uintptr_t *old, uintptr_t value)
{
#if !defined(_WIN32)
    return atomic_compare_exchange_strong(word, old, value);
#elif defined(_MSC_VER)
    uintptr_t seen = (uintptr_t)_InterlockedCompareExchangePointer((void *volatile *)word,
                                                                   (void *)value, (void *)*old);
    int done = seen == *old;

    *old = seen;
    return done;
#else
    return __atomic_compare_exchange_n(word, old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
#endif
}

/* Policy: mf_create tries this many temporary names, since other processes may use the same names.
 * Then it fails. */
enum { MF_TEMPORARY_NAMES = 100 };

/* Rounds a size up to a multiple of a unit. */
static inline size_t mf_round_up(size_t size, size_t unit)
{
    return size + (unit - size % unit) % unit;
}

/* Fills in a mapping that the system has just made, for mf_map. */
static inline void mf_fill_mapping(mf_mapping *out, mf_file *file, char *base, size_t length,
                                   int access)
{
    out->base = base;
    out->length = length;
    out->file = file;
    out->access = access;
    out->lost_from = UINTPTR_MAX;
    out->lost_to = 0;
    mf_add(&file->map_count, 1);
}

/* Marks a page of a map as gone, start bytes from its base on, and counts the fault in its file.
 * Any number of threads may do this at the same time. lost_to is written last, since readers check
 * it first. */
static inline void mf_mark_lost(mf_mapping *map, size_t start, size_t page_size)
{
    uintptr_t from, to;

    mf_add(&map->file->faults, 1);
    from = map->lost_from;
    while (from > start && !mf_replace(&map->lost_from, &from, start))
        ;
    to = map->lost_to;
    while (to < start + page_size && !mf_replace(&map->lost_to, &to, start + page_size))
        ;
}

/* benchmarks/guard.py also builds the library without the guard, and compares. */
#ifdef MAPPEDFILE_WITHOUT_GUARD
enum { WITHOUT_GUARD = 1 };
#else
enum { WITHOUT_GUARD = 0 };
#endif

/* The copy of mf_copy, without protection against faults. */
static inline void mf_move(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step,
                           size_t count)
{
    if (to_step == 1 && from_step == 1)
        memmove(to, from, count); /* both may be views of the same bytes */
    else if (count > 0)
        /* Stops at the last byte: a further step may leave the address space. */
        for (*to = *from; --count > 0; *to = *from) {
            to += to_step;
            from += from_step;
        }
}

#endif
