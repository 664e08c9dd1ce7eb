/* The loops of search.c for one kind of vectors. search.c includes this file once a kind, with
 *
 *     KIND(name)                the name of a function for this kind
 *     TARGET                    attributes in front of a function
 *     vector, LANES             the type, and how many bytes it has
 *     LOAD(p), SPLAT(b)         the bytes at p; one byte in every lane
 *     EQUAL(a, b)               marks the lanes that are equal
 *     BOTH(e, f)                the lanes that are marked in both
 *     ANY(e, f)                 whether any lane is marked in either
 *     BITS(e, f)                the marks as bits: the lowest is the first lane of e
 *     NOTHING, TALLY(t, e)      sums: 0 in every lane; 1 more in the lanes that are marked
 *     TOTAL(t)                  all lanes of a sum
 *     FETCH(address)            prefetches; the address may be invalid
 *     LEAVE                     an instruction at the end of a function, or nothing
 *
 * Two vectors are a block. */

enum { KIND(BLOCK) = 2 * LANES };

/* Marks those of the LANES windows from p on that match the needle at the first few places. */
TARGET INLINE vector KIND(meet)(const byte *p, const size_t *place, const vector *wanted,
                                int places)
{
    vector e = EQUAL(LOAD(p + place[0]), wanted[0]);

    if (places > 1)
        e = BOTH(e, EQUAL(LOAD(p + place[1]), wanted[1]));
    if (places > 2)
        e = BOTH(e, EQUAL(LOAD(p + place[2]), wanted[2]));
    if (places > 3)
        e = BOTH(e, EQUAL(LOAD(p + place[3]), wanted[3]));
    return e;
}

TARGET INLINE void KIND(skip_by)(hunt *s, int dir, int places)
{
    const size_t place[] = {s->place[0], s->place[1], s->place[2], s->place[3]};
    const size_t windows = s->windows;
    const byte *h = s->haystack, *x = s->needle, *first;
    const vector wanted[] = {SPLAT(x[place[0]]), SPLAT(x[place[1]]), SPLAT(x[place[2]]),
                             SPLAT(x[place[3]])};
    size_t done = s->done, left;
    uint64_t fresh = EVERY;
    vector e, f;

    for (;;) {
        left = windows - done;
        if (left < KIND(BLOCK)) {
            if (left == 0) {
                s->hits = 0;
                break;
            }
            /* The last block overlaps the block before it, whose matches are already counted. */
            if (dir > 0)
                fresh = EVERY << (KIND(BLOCK) - left);
            left = KIND(BLOCK);
            done = windows - left;
        }
        first = h + (dir > 0 ? done : left - KIND(BLOCK));
        FETCH((uintptr_t)first + (uintptr_t)(dir * AHEAD));
        e = KIND(meet)(first, place, wanted, places);
        f = KIND(meet)(first + LANES, place, wanted, places);
        done += KIND(BLOCK);
        if (ANY(e, f) && (BITS(e, f) & fresh) != 0) {
            s->hits = BITS(e, f) & fresh;
            s->first = (size_t)(first - h);
            break;
        }
    }
    STEP((done - s->done) / 16 + 1);
    s->done = done;
    LEAVE;
}

/* Continues from s->done, block by block, until windows match s->needle at the places. s->hits has
 * a bit for each such window, and s->first is the window of the lowest bit. s->hits is 0 when all
 * windows are done. There must be enough windows for a block. */
TARGET static void KIND(skip)(hunt *s)
{
    switch (s->places * s->dir) {
    case 1: KIND(skip_by)(s, 1, 1); break;
    case 2: KIND(skip_by)(s, 1, 2); break;
    case 3: KIND(skip_by)(s, 1, 3); break;
    case 4: KIND(skip_by)(s, 1, 4); break;
    case -1: KIND(skip_by)(s, -1, 1); break;
    case -2: KIND(skip_by)(s, -1, 2); break;
    case -3: KIND(skip_by)(s, -1, 3); break;
    default: KIND(skip_by)(s, -1, 4); break;
    }
}

TARGET INLINE int64_t KIND(tally_by)(hunt *s, size_t blocks, int places)
{
    const size_t place[] = {s->place[0], s->place[1], s->place[2], s->place[3]};
    const byte *x = s->needle, *p = s->haystack + s->done;
    const vector wanted[] = {SPLAT(x[place[0]]), SPLAT(x[place[1]]), SPLAT(x[place[2]]),
                             SPLAT(x[place[3]])};
    vector t = NOTHING, u = NOTHING;
    int64_t count;

    s->done += blocks * KIND(BLOCK);
    STEP(blocks * KIND(BLOCK) / 16 + 1);
    for (; blocks > 0; blocks--, p += KIND(BLOCK)) {
        FETCH((uintptr_t)p + AHEAD);
        t = TALLY(t, KIND(meet)(p, place, wanted, places));
        u = TALLY(u, KIND(meet)(p + LANES, place, wanted, places));
    }
    count = TOTAL(t) + TOTAL(u);
    LEAVE;
    return count;
}

/* Counts the windows that match the needle in the next blocks, at most 255 blocks. */
TARGET static int64_t KIND(tally)(hunt *s, size_t blocks)
{
    switch (s->places) {
    case 1: return KIND(tally_by)(s, blocks, 1);
    case 2: return KIND(tally_by)(s, blocks, 2);
    case 3: return KIND(tally_by)(s, blocks, 3);
    default: return KIND(tally_by)(s, blocks, 4);
    }
}

#undef KIND
#undef TARGET
#undef vector
#undef LANES
#undef LOAD
#undef SPLAT
#undef EQUAL
#undef BOTH
#undef ANY
#undef BITS
#undef NOTHING
#undef TALLY
#undef TOTAL
#undef FETCH
#undef LEAVE
