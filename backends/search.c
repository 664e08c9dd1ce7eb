/* Searching memory. search.h says what each function promises.
 *
 * A window is a possible match: a part of the haystack as long as the needle. Vector code
 * (search_loop.h) compares four bytes of the needle in many windows at once. Windows that pass are
 * compared byte by byte. The haystack decides which four bytes are used. If too many windows pass
 * (needle and haystack repeat in the same way), Two-Way takes over. It is slower, but linear for
 * any input (Crochemore and Perrin, "Two-way string-matching", JACM 38(3), 1991).
 *
 * Other processes may change bytes at any time, so no loop relies on what an earlier loop has read.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "search.h"

typedef unsigned char byte;

#define EVERY UINT64_MAX
#define ONES (EVERY / 255) /* a 1 in every byte */

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline))
#elif defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline
#endif

#if defined(_MSC_VER)
#include <intrin.h>
#endif

/* tests/search_paths.c sets these differently: it counts steps, uses smaller limits, and tests all
 * kinds of vectors. */
#ifndef EVERY_KIND
#define STEP(n) ((void)0)
#define HAND_OVER ((void)0)
#define SOON 256  /* the cost of false candidates before other places are tried, in bytes */
#define LATE 4096 /* the same before Two-Way takes over */
#endif

enum {
    AHEAD = 2048,  /* how far ahead of the loops the cache is filled, in bytes */
    PLACES = 4,    /* bytes of the needle that are compared first */
    SHORT = 8,     /* up to this length, comparing a needle is cheap */
    SAMPLE = 1024, /* bytes of the haystack that are sampled for rare bytes */
    PRICE = 16     /* the fixed cost of comparing a window, in bytes */
};

/* A search in progress. Windows are numbered from the start of the haystack. */
typedef struct {
    const byte *haystack, *needle;
    size_t length, windows; /* length of the needle; number of windows in the haystack */
    int dir;                /* 1, or -1 for a search from the end */
    int places;             /* how many places differ: 1 to 3 for needles of 1 to 3 bytes */
    size_t place[PLACES];
    size_t done;   /* windows that were searched, in the direction of the search */
    size_t first;  /* the window of the lowest bit of hits */
    uint64_t hits; /* windows that match the needle at the places */
    size_t work;   /* the cost of false candidates so far, in bytes */
    size_t tries;  /* how often the places were changed; before and since are work and done at that
                      time */
    size_t before, since;
} hunt;

/* The kinds of vectors. */

#if defined(__aarch64__) && !defined(__AARCH64EB__) || defined(_M_ARM64) || defined(_M_ARM64EC)
#include <arm_neon.h>
#define HAS_NEON
#elif defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#define HAS_SSE2
/* GCC for Windows may put 32-byte vectors on a stack that is aligned to 16: GCC bug 54412. */
#if !defined(_WIN32) || defined(_MSC_VER) && !defined(__clang__)
#define HAS_AVX2
#endif
#endif

#if !defined(HAS_NEON) && !defined(HAS_SSE2) || defined(EVERY_KIND)
#define HAS_WORDS
#endif

#ifdef HAS_WORDS
/* Words, for any processor. A byte of 0 marks a lane. */
static uint64_t load_word(const byte *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof word);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The highest bit of each byte that is 0. */
static uint64_t zeros(uint64_t word)
{
    return ~(((word & ONES * 0x7f) + ONES * 0x7f) | word | ONES * 0x7f);
}

static uint64_t gather_zeros(uint64_t word)
{
    return (zeros(word) >> 7) * 0x0102040810204080 >> 56;
}

static int64_t add_bytes(uint64_t word)
{
    const uint64_t halves = EVERY / 0xffff;

    word = (word & halves * 0xff) + (word >> 8 & halves * 0xff);
    return (int64_t)(word * halves >> 48);
}

#define KIND(name) name##_words
#define TARGET
#define vector uint64_t
#define LANES 8
#define LOAD(p) load_word(p)
#define SPLAT(b) (ONES * (b))
#define EQUAL(a, b) ((a) ^ (b))
#define BOTH(e, f) ((e) | (f))
#define ANY(e, f) ((zeros(e) | zeros(f)) != 0)
#define BITS(e, f) (gather_zeros(e) | gather_zeros(f) << 8)
#define NOTHING 0
#define TALLY(t, e) ((t) + (zeros(e) >> 7))
#define TOTAL(t) add_bytes(t)
#define FETCH(address) ((void)(address))
#define LEAVE
#include "search_loop.h"
#endif

#ifdef HAS_NEON
static uint64_t gather_neon(uint8x16_t e, uint8x16_t f)
{
    static const byte powers[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bits = vld1q_u8(powers);
    uint8x16_t sums = vpaddq_u8(vandq_u8(e, bits), vandq_u8(f, bits));

    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);
    return vgetq_lane_u32(vreinterpretq_u32_u8(sums), 0);
}

#define KIND(name) name##_neon
#define TARGET
#define vector uint8x16_t
#define LANES 16
#define LOAD(p) vld1q_u8(p)
#define SPLAT(b) vdupq_n_u8(b)
#define EQUAL(a, b) vceqq_u8(a, b)
#define BOTH(e, f) vandq_u8(e, f)
#define ANY(e, f) (vmaxvq_u8(vorrq_u8(e, f)) != 0)
#define BITS(e, f) gather_neon(e, f)
#define NOTHING vdupq_n_u8(0)
#define TALLY(t, e) vsubq_u8(t, e)
#define TOTAL(t) ((int64_t)vaddlvq_u8(t))
#if defined(_MSC_VER) && !defined(__clang__)
#define FETCH(address) __prefetch((const void *)(address))
#else
#define FETCH(address) __builtin_prefetch((const void *)(address))
#endif
#define LEAVE
#include "search_loop.h"
#endif

#ifdef HAS_SSE2
static int64_t add_lanes_sse2(__m128i t)
{
    const __m128i sums = _mm_sad_epu8(t, _mm_setzero_si128());

    return _mm_cvtsi128_si64(_mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums)));
}

#define MASK(e) ((uint32_t)_mm_movemask_epi8(e))

#define KIND(name) name##_sse2
#define TARGET
#define vector __m128i
#define LANES 16
#define LOAD(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define SPLAT(b) _mm_set1_epi8((char)(b))
#define EQUAL(a, b) _mm_cmpeq_epi8(a, b)
#define BOTH(e, f) _mm_and_si128(e, f)
#define ANY(e, f) (MASK(_mm_or_si128(e, f)) != 0)
#define BITS(e, f) (MASK(e) | (uint64_t)MASK(f) << 16)
#define NOTHING _mm_setzero_si128()
#define TALLY(t, e) _mm_sub_epi8(t, e)
#define TOTAL(t) add_lanes_sse2(t)
#define FETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
#define LEAVE
#include "search_loop.h"
#undef MASK
#endif

#ifdef HAS_AVX2
#ifdef _MSC_VER
#define FOR_AVX2

static int look_for_avx2(void)
{
    int r[4];

    __cpuid(r, 0);
    if (r[0] < 7)
        return 0;
    __cpuid(r, 1);
    if ((r[2] & 1 << 27) == 0 || (_xgetbv(0) & 6) != 6) /* the system must save the registers */
        return 0;
    __cpuidex(r, 7, 0);
    return (r[1] & 1 << 5) != 0;
}

static int has_avx2(void)
{
    static volatile long known; /* racing threads write the same value */

    if (known == 0)
        known = look_for_avx2() ? 1 : -1;
    return known > 0;
}
#else
#define FOR_AVX2 __attribute__((target("avx2")))

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}
#endif

FOR_AVX2 static int64_t add_lanes_avx2(__m256i t)
{
    const __m256i sums = _mm256_sad_epu8(t, _mm256_setzero_si256());
    const __m128i low = _mm256_castsi256_si128(sums), high = _mm256_extracti128_si256(sums, 1);
    const __m128i two = _mm_add_epi64(low, high);

    return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

#define MASK(e) ((uint32_t)_mm256_movemask_epi8(e))

#define KIND(name) name##_avx2
#define TARGET FOR_AVX2
#define vector __m256i
#define LANES 32
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define SPLAT(b) _mm256_set1_epi8((char)(b))
#define EQUAL(a, b) _mm256_cmpeq_epi8(a, b)
#define BOTH(e, f) _mm256_and_si256(e, f)
#define ANY(e, f) (MASK(_mm256_or_si256(e, f)) != 0)
#define BITS(e, f) (MASK(e) | (uint64_t)MASK(f) << 32)
#define NOTHING _mm256_setzero_si256()
#define TALLY(t, e) _mm256_sub_epi8(t, e)
#define TOTAL(t) add_lanes_avx2(t)
#define FETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
#define LEAVE _mm256_zeroupper()
#include "search_loop.h"
#undef MASK
#endif

typedef struct {
    void (*skip)(hunt *s);
    int64_t (*tally)(hunt *s, size_t blocks);
    size_t block; /* the least number of windows */
} kind;

#define KIND(name)                              \
    {                                           \
        skip_##name, tally_##name, BLOCK_##name \
    }
#ifdef HAS_WORDS
static const kind words = KIND(words);
#endif
#ifdef HAS_NEON
static const kind neon = KIND(neon);
#endif
#ifdef HAS_SSE2
static const kind sse2 = KIND(sse2);
#endif
#ifdef HAS_AVX2
static const kind avx2 = KIND(avx2);
#endif
#undef KIND

/* The same as skip, for fewer windows than a block. */
static void skip_few(hunt *s)
{
    const byte *h = s->haystack, *x = s->needle;
    const size_t *p = s->place;
    size_t i = s->dir > 0 ? s->done : 0, stop = s->dir > 0 ? s->windows : s->windows - s->done;

    s->first = 0;
    s->hits = 0;
    for (; i < stop; i++)
        if (h[i + p[0]] == x[p[0]] && h[i + p[1]] == x[p[1]] && h[i + p[2]] == x[p[2]] &&
            h[i + p[3]] == x[p[3]])
            s->hits |= (uint64_t)1 << i;
    s->done = s->windows;
}

static const kind few = {skip_few, NULL, 64};

#ifdef EVERY_KIND
static const kind *chosen;
#endif

/* Two-Way, with a table of skips, so that most of a haystack is not read. It works in both
 * directions: offsets count in the direction of the search, and dir turns them into addresses, so
 * x[dir * i] is byte i of x. */

enum { TABLE = 1024 /* a power of two */ };

/* The index in the table of two adjacent bytes. Pairs of lower-case letters do not collide. */
#define PLACE(last, before) (((unsigned)(last) ^ (unsigned)(before) << 5) & (TABLE - 1))

typedef struct {
    const byte *needle; /* its first byte in the direction of the search */
    ptrdiff_t dir, length;
    ptrdiff_t cut;    /* the critical factorization */
    ptrdiff_t period; /* how far to move if only the left part differs */
    ptrdiff_t kept;   /* bytes that still match after that move: 0 unless the needle is periodic */
    ptrdiff_t gap; /* distance from the last pair back to the previous pair with the same index */
    ptrdiff_t where[TABLE]; /* where the last pair with this index ends; 0 if there is none */
} plan;

/* Finds the start and period of the greatest suffix of x, for the order of bytes or, if flip is
 * set, the reverse order. */
static ptrdiff_t greatest_suffix(const byte *x, ptrdiff_t length, ptrdiff_t dir, int flip,
                                 ptrdiff_t *period)
{
    ptrdiff_t best = 0, rival = 1, same = 0;

    *period = 1;
    while (rival + same < length) {
        byte ours = x[dir * (best + same)], theirs = x[dir * (rival + same)];

        STEP(1);
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
    p->gap = 0;
    memset(p->where, 0, sizeof p->where);
    for (i = 1; i < length; i++) {
        ptrdiff_t *where = &p->where[PLACE(x[dir * i], x[dir * (i - 1)])];

        p->gap = i - *where;
        *where = i;
    }
}

/* Returns the first match at or after from, or -1. Both are offsets in the direction of the search.
 */
static ptrdiff_t next(const plan *p, const byte *haystack, ptrdiff_t length, ptrdiff_t from)
{
    const ptrdiff_t dir = p->dir, last = p->length - 1;
    const byte *needle = p->needle, *start = dir > 0 ? haystack : haystack + length - 1, *window;
    ptrdiff_t end = from + last; /* the last byte of the window */
    ptrdiff_t known = 0;         /* bytes at the start of the window that match */
    ptrdiff_t where, i;

    while (end < length) {
        STEP(1);
        where = p->where[PLACE(start[dir * end], start[dir * (end - 1)])];
        /* The most frequent moves are separate branches. The processor predicts them and does not
         * wait for the table, which is four times faster. */
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
            /* The mismatch is behind the known bytes, so Two-Way moves by at least i. A shorter
             * move that forgets the known bytes would not be linear. */
            i = known > 0 ? known - p->cut + 1 : 0;
            end += i > last - where ? i : last - where;
            known = 0;
            continue;
        }
        window = start + dir * (end - last);
        for (i = known > p->cut ? known : p->cut; i <= last && needle[dir * i] == window[dir * i];
             i++)
            STEP(1);
        if (i <= last) {
            i -= p->cut - 1;
            end += i > p->gap ? i : p->gap;
            known = 0;
            continue;
        }
        for (i = p->cut; i > known && needle[dir * (i - 1)] == window[dir * (i - 1)]; i--)
            STEP(1);
        if (i <= known)
            return end - last;
        end += p->period;
        known = p->kept;
    }
    return -1;
}

static const kind *best_kind(size_t windows)
{
#ifdef EVERY_KIND
    if (chosen != NULL)
        return windows < chosen->block ? &few : chosen;
#endif
#ifdef HAS_AVX2
    if (windows >= avx2.block && has_avx2())
        return &avx2;
#endif
#if defined(HAS_SSE2)
    return windows < sse2.block ? &few : &sse2;
#elif defined(HAS_NEON)
    return windows < neon.block ? &few : &neon;
#else
    return windows < words.block ? &few : &words;
#endif
}

/* Returns the number of the lowest bit, or of the highest if dir is negative, of a nonzero word. */
static int pick(uint64_t bits, int dir)
{
#if defined(__GNUC__) || defined(__clang__)
    return dir > 0 ? __builtin_ctzll(bits) : 63 - __builtin_clzll(bits);
#elif defined(_M_X64) || defined(_M_ARM64)
    unsigned long i;

    if (dir > 0)
        _BitScanForward64(&i, bits);
    else
        _BitScanReverse64(&i, bits);
    return (int)i;
#else
    int i = dir > 0 ? 0 : 63;

    while ((bits >> i & 1) == 0)
        i += dir;
    return i;
#endif
}

/* Returns the length of the common prefix. */
static size_t alike(const byte *x, const byte *y, size_t length)
{
    uint64_t a, b;
    size_t i = 0;

    for (; length - i >= sizeof a; i += sizeof a) {
        memcpy(&a, x + i, sizeof a);
        memcpy(&b, y + i, sizeof b);
        if (a != b)
            break;
    }
    while (i < length && x[i] == y[i])
        i++;
    STEP(i / 8 + 1);
    return i;
}

static hunt begin(const void *haystack, size_t length, const void *needle, size_t needle_length,
                  int dir)
{
    const byte *x = needle;
    const size_t last = needle_length - 1;
    size_t middle = needle_length / 2;
    hunt s = {0};

    s.haystack = haystack;
    s.needle = needle;
    s.length = needle_length;
    s.windows = length - last;
    s.dir = dir;
    s.places = needle_length < PLACES ? (int)needle_length : PLACES;
    /* The first byte, the last, a near byte that differs from both, and one more. */
    while (middle < last && middle < needle_length / 2 + 64 &&
           (x[middle] == x[0] || x[middle] == x[last]))
        middle++;
    s.place[1] = last;
    s.place[2] = middle < last ? middle : needle_length / 2;
    s.place[3] = needle_length / 4;
    return s;
}

/* Chooses the places with the rarest bytes in a sample of the haystack near a window. */
static void take_rarest(hunt *s, size_t window)
{
    const size_t length = s->windows + s->length - 1;
    const size_t looked = s->length < SAMPLE ? s->length : SAMPLE;
    const byte *x = s->needle, *h = s->haystack;
    size_t from = window, i, j;
    unsigned seen[256] = {0};

    if (s->dir < 0)
        from = window + s->length < SAMPLE ? 0 : window + s->length - SAMPLE;
    for (i = from; i < length && i < from + SAMPLE; i++)
        seen[h[i]]++;
    STEP(i - from + PLACES * looked);
    for (i = 0; i < PLACES; i++) {
        size_t best = 0;

        for (j = 1; j < looked; j++)
            if (seen[x[j]] < seen[x[best]])
                best = j;
        s->place[i] = best;
        seen[x[best]] += SAMPLE / 4; /* a different byte is a better choice */
    }
}

/* Records a false candidate: a window that matches at the places and in its first same bytes, but
 * is no match. After too many of them, other places are tried. Returns whether Two-Way is faster
 * now. */
static int tired(hunt *s, size_t window, size_t same)
{
    s->work += PRICE + same;
    if (s->work - s->before > SOON + (s->done - s->since) / 16 && s->tries < 8 + s->done / 65536) {
        if (s->tries % 4 == 0)
            take_rarest(s, window);
        else
            s->place[s->tries % PLACES] = same; /* the first byte that differed */
        s->tries++;
        s->before = s->work;
        /* The other windows of the block are searched again. */
        s->hits = 0;
        s->done = s->since = s->dir > 0 ? window + 1 : s->windows - window;
    }
    return s->length > SHORT && s->work > LATE + 4 * s->length + 2 * s->done;
}

/* Continues with Two-Way, from a window on. */
static int64_t go_on(const hunt *s, size_t window, int counting, int64_t count, size_t *end)
{
    const ptrdiff_t length = (ptrdiff_t)(s->windows + s->length - 1);
    ptrdiff_t match = (ptrdiff_t)(s->dir > 0 ? window : s->windows - 1 - window);
    plan p;

    HAND_OVER;
    prepare(&p, s->needle, (ptrdiff_t)s->length, s->dir);
    while ((match = next(&p, s->haystack, length, match)) >= 0) {
        if (!counting)
            return s->dir > 0 ? match : (ptrdiff_t)s->windows - 1 - match;
        count++;
        match += p.length;
        *end = (size_t)match;
    }
    return counting ? count : -1;
}

/* Returns the first match, or the number of matches; *end is as in mf_count. */
static int64_t pursue(hunt *s, int counting, size_t *end)
{
    const kind *k = best_kind(s->windows);
    int64_t count = 0;

    while (s->done < s->windows) {
        k->skip(s);
        while (s->hits != 0) {
            int bit = pick(s->hits, s->dir);
            size_t window = s->first + (size_t)bit;
            size_t same = s->length;

            if (same > PLACES)
                same = alike(s->haystack + window, s->needle, same);

            s->hits ^= (uint64_t)1 << bit;
            if (same < s->length) {
                if (tired(s, window, same))
                    return go_on(s, window, counting, count, end);
                continue;
            }
            if (!counting)
                return (int64_t)window;
            count++;
            *end = window + s->length;
            s->hits = *end - s->first < 64 ? s->hits & EVERY << (*end - s->first) : 0;
            if (s->done < *end)
                s->done = *end;
        }
    }
    return counting ? count : -1;
}

/* Whether two matches can overlap. */
static int overlaps(const byte *x, size_t length)
{
    size_t i;

    for (i = 1; i < length; i++)
        if (memcmp(x, x + i, length - i) == 0)
            return 1;
    return 0;
}

/* Counts matches of a needle whose bytes are all compared at the places, and whose matches cannot
 * overlap. */
static int64_t count_all(hunt *s, size_t *end)
{
    const kind *k = best_kind(s->windows);
    size_t from = 0, stop = 0, before, blocks;
    int64_t count = 0, found;

    while (s->done < s->windows) {
        before = s->done;
        blocks = (s->windows - before) / k->block;
        if (blocks > 0) {
            found = k->tally(s, blocks < 255 ? blocks : 255);
        } else {
            k->skip(s);
            for (found = 0; s->hits != 0; s->hits &= s->hits - 1)
                found++;
        }
        if (found > 0) {
            from = before;
            stop = s->done;
        }
        count += found;
    }
    if (count > 0) {
        /* The last match is in the last piece with a match, unless another process has changed it.
         */
        hunt last = *s;
        size_t none;
        int64_t at;

        last.haystack += from;
        last.windows = stop - from;
        last.dir = -1;
        last.done = 0;
        at = pursue(&last, 0, &none);
        *end = from + (at < 0 ? 0 : (size_t)at) + s->length;
    }
    return count;
}

int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length,
                size_t *end)
{
    hunt s;

    (void)end;
    if (needle_length > length)
        return -1;
    if (needle_length == 0)
        return 0;
    s = begin(haystack, length, needle, needle_length, 1);
    return pursue(&s, 0, NULL);
}

int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length,
                 size_t *end)
{
    hunt s;

    (void)end;
    if (needle_length > length)
        return -1;
    if (needle_length == 0)
        return (int64_t)length;
    s = begin(haystack, length, needle, needle_length, -1);
    return pursue(&s, 0, NULL);
}

int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length,
                 size_t *end)
{
    int64_t count = 0;
    size_t stop = 0;
    hunt s;

    if (needle_length == 0) {
        count = (int64_t)length + 1;
        stop = length;
    } else if (needle_length <= length) {
        s = begin(haystack, length, needle, needle_length, 1);
        if (needle_length <= PLACES && !overlaps(needle, needle_length))
            count = count_all(&s, &stop);
        else
            count = pursue(&s, 1, &stop);
    }
    if (end != NULL)
        *end = stop;
    return count;
}
