/* What backend.h needs around it, for the C compiler. */
#ifndef MAPPEDFILE_NATIVE_H
#define MAPPEDFILE_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The characters of a path, as the system takes them; and a word that one thread may read while another writes it. */
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

/* Adds to a word, as one step, and returns what it is then. */
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

/* Sets a word to value if it is still *old; otherwise says no, and *old is what it is. */
static inline int mf_replace(mf_word *word, uintptr_t *old, uintptr_t value)
{
#if !defined(_WIN32)
    return atomic_compare_exchange_strong(word, old, value);
#elif defined(_MSC_VER)
    uintptr_t seen = (uintptr_t)_InterlockedCompareExchangePointer((void *volatile *)word, (void *)value, (void *)*old);
    int done = seen == *old;

    *old = seen;
    return done;
#else
    return __atomic_compare_exchange_n(word, old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
#endif
}

/* benchmarks/guard.py builds the library without the guard too, and compares. */
#ifdef MAPPEDFILE_WITHOUT_GUARD
enum { WITHOUT_GUARD = 1 };
#else
enum { WITHOUT_GUARD = 0 };
#endif

/* What mf_copy does once nothing can go wrong. */
static inline void mf_move(char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, size_t count)
{
    if (to_step == 1 && from_step == 1)
        memmove(to, from, count); /* they may be views of the same bytes */
    else if (count > 0)
        for (*to = *from; --count > 0; *to = *from) { /* no further than the last: a step may lead out of all memory */
            to += to_step;
            from += from_step;
        }
}

#endif
