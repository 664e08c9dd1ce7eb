/* What backend.h needs around it, for the C compiler. */
#ifndef MAPPEDFILE_NATIVE_H
#define MAPPEDFILE_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The characters of a path, as the system takes them; and a word that one thread may read while another writes it. */
#ifdef _WIN32
typedef wchar_t mf_char;
typedef volatile uintptr_t mf_word;
#else
#include <stdatomic.h>
typedef char mf_char;
typedef _Atomic(uintptr_t) mf_word;
#endif

#include "search.h"

#include "backend.h"

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
    else
        for (; count > 0; count--, to += to_step, from += from_step)
            *to = *from;
}

#endif
