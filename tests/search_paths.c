/* Compares the searches of search.c with a simple one: Two-Way, and every kind of vectors that this
 * processor has. tests/test_search.py runs this program. It prints what it tried. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t steps;  /* the work of a search, in bytes or words */
static int handed_over; /* how often Two-Way took over */
static size_t soon = 256, late = 4096;

#define EVERY_KIND
#define STEP(n) (steps += (uint64_t)(n))
#define HAND_OVER handed_over++
#define SOON soon
#define LATE late
#include "search.c"

#include "check.h"

enum { FIND, RFIND, COUNT };

typedef struct {
    const char *name;
    const kind *vectors; /* NULL: Two-Way alone */
} path;

static path paths[8];
static int path_count;

static void add_path(const char *name, const kind *vectors)
{
    paths[path_count].name = name;
    paths[path_count++].vectors = vectors;
}

static void list_paths(void)
{
    add_path("two-way", NULL);
    add_path("words", &words);
#ifdef HAS_SSE2
    add_path("sse2", &sse2);
#endif
#ifdef HAS_AVX2
    if (has_avx2())
        add_path("avx2", &avx2);
#endif
#ifdef HAS_NEON
    add_path("neon", &neon);
#endif
}

typedef struct {
    int64_t result;
    size_t end;
} answer;

static answer simple_search(int what, const byte *h, size_t length, const byte *x, size_t m)
{
    answer a = {what == COUNT ? 0 : -1, 0};
    size_t i;

    for (i = 0; i + m <= length; i++) {
        if (memcmp(h + i, x, m) != 0)
            continue;
        if (what == COUNT) {
            a.result++;
            a.end = i + m;
            i = m == 0 ? i : a.end - 1;
        } else {
            a.result = (int64_t)i;
            if (what == FIND)
                break;
        }
    }
    return a;
}

static answer by_path(const path *way, int what, const byte *h, size_t length, const byte *x,
                      size_t m)
{
    static mf_searcher *const functions[] = {mf_find, mf_rfind, mf_count};
    answer a = {0, what == COUNT ? 77 : 0};

    chosen = way->vectors;
    if (way->vectors != NULL || m < 2 || m > length) {
        a.result = functions[what](h, length, x, m, &a.end);
    } else {
        hunt s = begin(h, length, x, m, what == RFIND ? -1 : 1);

        a.end = 0;
        a.result = go_on(&s, what == RFIND ? s.windows - 1 : 0, what == COUNT, 0, &a.end);
    }
    return a;
}

static uint64_t state = 88172645463325252;

static size_t below(size_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state >> 20) % limit;
}

/* Returns bytes with an inaccessible page before and after them. */
enum { ROOM = 1 << 16 };

static byte *make_room(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    byte *all = mmap(NULL, ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    CHECK(all != MAP_FAILED && ROOM % page == 0);
    CHECK(mprotect(all + page, ROOM, PROT_READ | PROT_WRITE) == 0);
    return all + page;
}

static void fill(byte *p, size_t length, int letters, size_t period)
{
    size_t i;

    for (i = 0; i < length; i++)
        p[i] = period > 0 && i >= period && below(200) != 0
                   ? p[i - period]
                   : (byte)(below((size_t)letters) * 37 + 200);
}

static void compare(const byte *h, size_t length, const byte *x, size_t m)
{
    int what, i;

    for (what = FIND; what <= COUNT; what++) {
        answer expected = simple_search(what, h, length, x, m);

        for (i = 0; i < path_count; i++) {
            answer a = by_path(&paths[i], what, h, length, x, m);

            if (a.result != expected.result || a.end != expected.end) {
                fprintf(stderr, "%s, %d, %zu in %zu: %lld, %zu and not %lld, %zu\n", paths[i].name,
                        what, m, length, (long long)a.result, a.end, (long long)expected.result,
                        expected.end);
                exit(1);
            }
        }
    }
}

/* Makes a needle: a part of the haystack, the same with one byte changed, or random bytes. It ends
 * where its page ends. */
static const byte *make_needle(byte *needles, size_t m, const byte *h, size_t length, int letters,
                               size_t period)
{
    byte *x = needles + ROOM - m;

    if (m > length || below(2) == 0) {
        fill(x, m, letters, period);
    } else {
        memcpy(x, h + below(length - m + 1), m);
        if (m > 0 && below(2) == 0)
            x[below(m)] ^= 1;
    }
    return x;
}

/* Random bytes: few or many letters, with or without a period, of any length and alignment, and at
 * the ends of pages. */
static void at_random(int rounds)
{
    byte *haystacks = make_room(), *needles = make_room();
    int round;

    for (round = 0; round < rounds; round++) {
        int letters = below(3) == 0 ? 56 : 1 + (int)below(3);
        size_t period = below(2) == 0 ? 0 : 1 + below(20);
        size_t length = below(round % 100 == 0 ? ROOM - 64 : round % 8 == 0 ? 3000 : 300);
        size_t m = below(round % 8 == 0 ? 600 : 71);
        byte *h = haystacks + (below(3) == 0 ? ROOM - length : below(64));

        soon = below(2) == 0 ? 256 : below(100);
        late = below(2) == 0 ? 4096 : 0;
        fill(h, length, letters, period);
        compare(h, length, make_needle(needles, m, h, length, letters, period), m);
    }
}

/* Every length and alignment, with one match at each position. */
static void in_order(void)
{
    byte *haystacks = make_room(), *needles = make_room();
    size_t length, m, at, i;

    soon = 256;
    late = 4096;
    for (m = 1; m <= 70; m++) {
        for (i = 0; i < m; i++)
            needles[ROOM - m + i] = (byte)(i + 1);
        for (length = m; length < m + 140; length += m < 6 || length > m + 120 ? 1 : 13)
            for (at = 0; at + m <= length; at += m < 6 ? 1 : 5) {
                byte *h = haystacks + (at % 2 == 0 ? ROOM - length : length % 64);

                memset(h, 0, length);
                memcpy(h + at, needles + ROOM - m, m);
                compare(h, length, needles + ROOM - m, m);
            }
    }
}

/* Haystacks and needles of one letter. */
static void all_over(void)
{
    byte *haystacks = make_room(), *needles = make_room();
    size_t length, m;

    memset(haystacks, 'a', ROOM);
    memset(needles, 'a', ROOM);
    for (m = 1; m < 6; m++)
        for (length = ROOM; length > 0; length = length > 1000 ? length - 997 : length / 2)
            compare(haystacks + ROOM - length, length, needles + ROOM - m, m);
}

/* Another thread changes the bytes during the search. The result is any position in the haystack,
 * and no byte outside is read. */
static atomic_int stop;

static void *change(void *bytes)
{
    volatile byte *p = bytes;
    size_t i;

    while (!stop)
        for (i = 0; i < ROOM; i++)
            p[i] = (byte)(p[i] ^ (i % 7 == 0));
    return NULL;
}

static void while_it_changes(void)
{
    byte *haystacks = make_room(), *needles = make_room();
    pthread_t thread;
    int round, what, i;

    late = 0;
    memset(needles, 0, ROOM);
    CHECK(pthread_create(&thread, NULL, change, haystacks) == 0);
    for (round = 0; round < 40; round++) {
        size_t m = 1 + below(70);

        needles[ROOM - 1 - below(m)] ^= 1;
        for (what = FIND; what <= COUNT; what++)
            for (i = 0; i < path_count; i++) {
                answer a = by_path(&paths[i], what, haystacks, ROOM, needles + ROOM - m, m);

                CHECK(a.result >= -1 && a.result <= ROOM && a.end <= ROOM);
            }
    }
    stop = 1;
    CHECK(pthread_join(thread, NULL) == 0);
}

/* Haystacks and needles that make searches slow. worst() returns how many steps the slowest takes
 * for each byte. */
static byte hard(int kind_of, size_t i, size_t length)
{
    switch (kind_of) {
    case 0: return 'a';
    case 1: return i == length - 1 ? 'b' : 'a';
    case 2: return i == 0 ? 'b' : 'a';
    case 3: return i == length / 2 ? 'b' : 'a';
    case 4: return i % 2 == 0 ? 'a' : 'b';
    case 5: return i % 16 == 15 ? 'b' : 'a';
    case 6: return i % 17 == 16 ? 'b' : 'a';
    case 7: return i % 1001 == 1000 ? 'b' : 'a';
    case 8: return (byte)('a' + (__builtin_popcountll(i) & 1)); /* the Thue-Morse sequence */
    case 9: return (byte)('a' + below(2));
    case 10: return (byte)("abaababaabaab"[i % 13]); /* a Fibonacci word */
    default: return (byte)(i * i % 251);
    }
}

enum { HARD = 12 };

static double worst(void)
{
    enum { LENGTH = 1 << 18 };
    static const size_t lengths[] = {2,  4,  5,    8,    9,          15,         16,
                                     17, 64, 1000, 5001, LENGTH / 3, LENGTH - 20};
    byte *h = malloc(LENGTH), *x = malloc(LENGTH);
    double most = 0;
    size_t j, l, i;
    int a, b, what;

    for (a = 0; a < HARD; a++) {
        for (i = 0; i < LENGTH; i++)
            h[i] = hard(a, i, LENGTH);
        for (b = 0; b < HARD; b++)
            for (l = 0; l < sizeof lengths / sizeof *lengths; l++) {
                size_t m = lengths[l];

                for (i = 0; i < m; i++)
                    x[i] = hard(b, i, m);
                for (j = 0; j < (size_t)path_count; j++)
                    for (what = FIND; what <= COUNT; what++) {
                        double each;

                        steps = 0;
                        by_path(&paths[j], what, h, LENGTH, x, m);
                        each = (double)steps / (double)(LENGTH + m);
                        if (each > most)
                            most = each;
                    }
            }
    }
    free(h);
    free(x);
    return most;
}

int main(int argc, char **argv)
{
    int i;

    CHECK(argc == 3);
    list_paths();
    if (strcmp(argv[1], "compare") == 0) {
        in_order();
        all_over();
        at_random(atoi(argv[2]));
        while_it_changes();
        CHECK(handed_over > 100);
    } else {
        late = (size_t)atol(argv[2]);
        printf("%.1f\n", worst());
    }
    for (i = 0; i < path_count; i++)
        printf("%s%s", paths[i].name, i < path_count - 1 ? ", " : "\n");
    return 0;
}
