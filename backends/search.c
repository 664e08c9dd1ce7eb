/* Two-Way string matching (Crochemore and Perrin, "Two-way string-matching", JACM 38(3), 1991), with a table of skips
 * in front so that most of a haystack is not looked at. search.h says what each function promises.
 *
 * One algorithm serves both directions: offsets count in the direction of the search, and dir (1 or -1) turns them
 * into addresses, so x[dir * i] is byte i of x. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "search.h"

typedef unsigned char byte;

enum {
    SHORT = 4,   /* to this length a needle moves too little per step for the table to pay */
    TABLE = 1024 /* a power of two */
};

#define ONES (UINT64_MAX / 255) /* a 1 in every byte */

/* The place in the table of two neighbouring bytes. Pairs of lower-case letters have places of their own. */
#define PLACE(last, before) (((unsigned)(last) ^ (unsigned)(before) << 5) & (TABLE - 1))

typedef struct {
    const byte *needle; /* its first byte in the direction of the search */
    ptrdiff_t dir, length;
    ptrdiff_t cut, period;  /* the critical factorization, and how far to move when only the left part differs */
    ptrdiff_t kept;         /* bytes known to match after that move: 0 unless the needle repeats with the period */
    ptrdiff_t gap;          /* from the last pair of the needle back to the one before it in the same place */
    ptrdiff_t where[TABLE]; /* where the last pair in this place ends; 0 if there is none */
} plan;

/* Where the greatest suffix of x starts, for the order of bytes or, if flip, the reverse order; and its period. */
static ptrdiff_t greatest_suffix(const byte *x, ptrdiff_t length, ptrdiff_t dir, int flip, ptrdiff_t *period)
{
    ptrdiff_t best = 0, rival = 1, same = 0;

    *period = 1;
    while (rival + same < length) {
        byte ours = x[dir * (best + same)], theirs = x[dir * (rival + same)];

        if (ours == theirs) {
            if (++same == *period) {
                rival += same;
                same = 0;
            }
        } else if ((theirs < ours) != flip) {
            rival += same + 1;
            same = 0;
            *period = rival - best;
        } else {
            best = rival++;
            same = 0;
            *period = 1;
        }
    }
    return best;
}

static void prepare(plan *p, const byte *needle, ptrdiff_t length, ptrdiff_t dir)
{
    const byte *x = dir > 0 ? needle : needle + length - 1;
    ptrdiff_t i, other, other_period;

    p->needle = x;
    p->dir = dir;
    p->length = length;
    if (length <= SHORT)
        return;
    p->cut = greatest_suffix(x, length, dir, 0, &p->period);
    other = greatest_suffix(x, length, dir, 1, &other_period);
    if (other > p->cut) {
        p->cut = other;
        p->period = other_period;
    }
    for (i = 0; i < p->cut && x[dir * i] == x[dir * (i + p->period)]; i++)
        ;
    if (i == p->cut) {
        p->kept = length - p->period;
    } else {
        p->kept = 0;
        p->period = (p->cut > length - p->cut ? p->cut : length - p->cut) + 1;
    }
    memset(p->where, 0, sizeof p->where);
    for (i = 1; i < length; i++) {
        ptrdiff_t *where = &p->where[PLACE(x[dir * i], x[dir * (i - 1)])];

        p->gap = i - *where;
        *where = i;
    }
}

/* Which of the eight bytes here differ from this one. */
static uint64_t differ(const byte *eight, byte from)
{
    uint64_t word;

    memcpy(&word, eight, sizeof word);
    return word ^ ONES * from;
}

/* next for a needle of up to SHORT bytes: eight windows at a time, until a byte of miss is 0. */
static ptrdiff_t next_short(const plan *p, const byte *haystack, ptrdiff_t length, ptrdiff_t from)
{
    const ptrdiff_t last = p->length - 1, second = last > 1 ? 1 : last, third = last > 2 ? 2 : last;
    const byte *needle = p->dir > 0 ? p->needle : p->needle - last;

    for (; length - from >= last + 8; from += 8) {
        const byte *low = haystack + (p->dir > 0 ? from : length - last - from - 8);
        uint64_t miss = differ(low, needle[0]) | differ(low + second, needle[second]) |
                        differ(low + third, needle[third]) | differ(low + last, needle[last]);

        if ((miss - ONES) & ~miss & ONES << 7)
            break;
    }
    for (; length - from > last; from++)
        if (memcmp(haystack + (p->dir > 0 ? from : length - 1 - last - from), needle, (size_t)p->length) == 0)
            return from;
    return -1;
}

/* The first match at from or after, or -1. Both are offsets in the direction of the search. */
static ptrdiff_t next(const plan *p, const byte *haystack, ptrdiff_t length, ptrdiff_t from)
{
    const ptrdiff_t dir = p->dir, last = p->length - 1;
    const byte *needle = p->needle, *start = dir > 0 ? haystack : haystack + length - 1, *window;
    ptrdiff_t end = from + last; /* the last byte of the window */
    ptrdiff_t known = 0;         /* bytes at the start of the window that match */
    ptrdiff_t where, i;

    if (p->length <= SHORT)
        return next_short(p, haystack, length, from);
    while (end < length) {
        where = p->where[PLACE(start[dir * end], start[dir * (end - 1)])];
        /* The commonest moves are branches of their own, so that the processor guesses them and need not wait for the
         * table: four times faster. */
        if (where == 0) {
            end += last;
            known = 0;
            continue;
        }
        if (where == last - 1 && known == 0) {
            end++;
            continue;
        }
        if (where < last) {
            /* The mismatch is after what is known, so Two-Way moves at least i. To forget what is known and move less
             * would cost the linear bound. */
            i = known > 0 ? known - p->cut + 1 : 0;
            end += i > last - where ? i : last - where;
            known = 0;
            continue;
        }
        window = start + dir * (end - last);
        for (i = known > p->cut ? known : p->cut; i <= last && needle[dir * i] == window[dir * i]; i++)
            ;
        if (i <= last) {
            i -= p->cut - 1;
            end += i > p->gap ? i : p->gap;
            known = 0;
            continue;
        }
        for (i = p->cut; i > known && needle[dir * (i - 1)] == window[dir * (i - 1)]; i--)
            ;
        if (i <= known)
            return end - last;
        end += p->period;
        known = p->kept;
    }
    return -1;
}

int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length, size_t *end)
{
    plan p;

    (void)end;
    if (needle_length > length)
        return -1;
    if (needle_length == 0)
        return 0;
    if (needle_length == 1) {
        const byte *match = memchr(haystack, *(const byte *)needle, length);

        return match ? match - (const byte *)haystack : -1;
    }
    prepare(&p, needle, (ptrdiff_t)needle_length, 1);
    return next(&p, haystack, (ptrdiff_t)length, 0);
}

int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length, size_t *end)
{
    ptrdiff_t match;
    plan p;

    (void)end;
    if (needle_length > length)
        return -1;
    if (needle_length == 0)
        return (int64_t)length;
    prepare(&p, needle, (ptrdiff_t)needle_length, -1);
    match = next(&p, haystack, (ptrdiff_t)length, 0);
    return match < 0 ? -1 : (int64_t)(length - needle_length) - match;
}

int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length, size_t *end)
{
    ptrdiff_t match = 0;
    int64_t count = 0;
    size_t i, stop = 0;
    plan p;

    if (needle_length == 0) {
        count = (int64_t)length + 1;
        stop = length;
    } else if (needle_length == 1) {
        const byte *h = haystack, wanted = *(const byte *)needle;

        for (i = 0; i < length; i++)
            count += h[i] == wanted;
        stop = length;
    } else if (needle_length <= length) {
        prepare(&p, needle, (ptrdiff_t)needle_length, 1);
        while ((match = next(&p, haystack, (ptrdiff_t)length, match)) >= 0) {
            count++;
            match += p.length;
            stop = (size_t)match;
        }
    }
    if (end != NULL)
        *end = stop;
    return count;
}
