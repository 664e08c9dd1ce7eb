/* Two-Way string matching (Crochemore and Perrin, 1991), with a table that skips windows by their last two bytes.
 *
 * The same code searches forwards and backwards: byte i of a text is text[i * step], with step 1 from the first byte on or
 * -1 from the last. */
#include "native.h"

#include <string.h>

#define SKIPS 1024
#define NONE ((size_t)-1)

typedef unsigned char byte;
typedef ptrdiff_t direction;

/* A needle, cut in two where its local period is its global one. */
typedef struct {
    const byte *text;
    size_t length;
    size_t cut;
    size_t period;
    size_t remembered; /* bytes known to match after a shift by the period; 0 if the needle does not repeat itself */
    size_t skips[SKIPS];
} pattern;

static byte at(const byte *text, size_t i, direction step)
{
    return text[(direction)i * step];
}

static size_t hash(const byte *text, size_t last, direction step)
{
    return ((size_t)at(text, last - 1, step) << 5 ^ at(text, last, step)) % SKIPS;
}

/* Where the largest suffix begins, in the order of bytes or (descending) in the opposite one; and its period. */
static size_t largest_suffix(const byte *text, size_t length, direction step, int descending, size_t *period)
{
    size_t start = 0, rival = 1, same = 0, repeat = 1;

    while (rival + same < length) {
        byte ours = at(text, start + same, step), theirs = at(text, rival + same, step);
        if (ours == theirs) {
            if (++same == repeat) {
                rival += repeat;
                same = 0;
            }
        } else if ((theirs < ours) != descending) {
            rival += same + 1;
            same = 0;
            repeat = rival - start;
        } else {
            start = rival++;
            same = 0;
            repeat = 1;
        }
    }
    *period = repeat;
    return start;
}

static int repeats(const pattern *needle, direction step)
{
    size_t i;

    for (i = 0; i < needle->cut; i++)
        if (at(needle->text, i, step) != at(needle->text, i + needle->period, step))
            return 0;
    return 1;
}

/* The length is 2 or more. */
static void prepare(pattern *needle, const byte *text, size_t length, direction step)
{
    size_t up, down, up_period, down_period, i;

    up = largest_suffix(text, length, step, 0, &up_period);
    down = largest_suffix(text, length, step, 1, &down_period);
    needle->text = text;
    needle->length = length;
    needle->cut = up > down ? up : down;
    needle->period = up > down ? up_period : down_period;
    needle->remembered = 0;
    if (needle->cut + needle->period <= length && repeats(needle, step)) {
        needle->remembered = length - needle->period;
    } else {
        size_t rest = length - needle->cut;
        needle->period = (needle->cut > rest ? needle->cut : rest) + 1;
    }
    for (i = 0; i < SKIPS; i++)
        needle->skips[i] = length - 1;
    for (i = 1; i < length; i++)
        needle->skips[hash(text, i, step)] = length - 1 - i;
}

/* The first match at or after position, in the direction of step. */
static size_t search(const pattern *needle, const byte *text, size_t length, size_t position, direction step)
{
    size_t last = length - needle->length, far = needle->length - 1;
    size_t known = 0; /* bytes at position that match, from the time before a shift by the period */

    if (needle->length > length)
        return NONE;
    while (position <= last) {
        size_t i;
        if (known == 0) {
            size_t skip = needle->skips[hash(text, position + far, step)];
            /* A loop of its own, since the processor then guesses this shift and does not wait for the table. */
            while (skip == far && last - position > far) {
                position += far;
                skip = needle->skips[hash(text, position + far, step)];
            }
            if (skip != 0) {
                position += skip;
                continue;
            }
        }
        i = needle->cut > known ? needle->cut : known;
        while (i < needle->length && at(needle->text, i, step) == at(text, position + i, step))
            i++;
        if (i < needle->length) {
            position += i - needle->cut + 1;
            known = 0;
            continue;
        }
        i = needle->cut;
        while (i > known && at(needle->text, i - 1, step) == at(text, position + i - 1, step))
            i--;
        if (i <= known)
            return position;
        position += needle->period;
        known = needle->remembered;
    }
    return NONE;
}

int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length)
{
    pattern prepared;
    size_t found;

    if (needle_length > length)
        return -1;
    if (needle_length == 0)
        return 0;
    if (needle_length == 1) {
        const byte *match = memchr(haystack, *(const byte *)needle, length);
        return match == NULL ? -1 : match - (const byte *)haystack;
    }
    prepare(&prepared, needle, needle_length, 1);
    found = search(&prepared, haystack, length, 0, 1);
    return found == NONE ? -1 : (int64_t)found;
}

int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length)
{
    const byte *text = haystack, *wanted = needle;
    pattern prepared;
    size_t found;

    if (needle_length > length)
        return -1;
    if (needle_length == 0)
        return (int64_t)length;
    if (needle_length == 1) {
        while (length-- > 0)
            if (text[length] == *wanted)
                return (int64_t)length;
        return -1;
    }
    prepare(&prepared, wanted + needle_length - 1, needle_length, -1);
    found = search(&prepared, text + length - 1, length, 0, -1);
    return found == NONE ? -1 : (int64_t)(length - found - needle_length);
}

int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length)
{
    const byte *text = haystack;
    pattern prepared;
    size_t position = 0;
    int64_t count = 0;

    if (needle_length == 0)
        return (int64_t)length + 1;
    if (needle_length > length)
        return 0;
    if (needle_length == 1) {
        for (; position < length; position++)
            count += text[position] == *(const byte *)needle;
        return count;
    }
    prepare(&prepared, needle, needle_length, 1);
    while ((position = search(&prepared, text, length, position, 1)) != NONE) {
        count++;
        position += needle_length;
    }
    return count;
}
