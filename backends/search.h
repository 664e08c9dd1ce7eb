/* Searching memory, with the meaning of bytes.find, bytes.rfind and bytes.count.
 *
 * Pure functions: they allocate nothing, keep no state and need no GIL. They read [haystack,
 * haystack + length) and [needle, needle + needle_length) and nothing else, and stay within them
 * even if another process is changing the bytes meanwhile; only the answer is then unspecified.
 * Time is linear in the lengths at worst.
 *
 * build.py hands this file to cffi as it stands, so it has no directives; include stddef.h and
 * stdint.h before it.
 */

/* The offset of the first match, or -1. An empty needle is at 0. */
int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length,
                size_t *end);

/* The offset of the last match, or -1. An empty needle is at length. */
int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length,
                 size_t *end);

/* How many matches there are, none overlapping the one before. An empty needle has length + 1. end
 * is set to where the last match ends, or to 0: there a search goes on that is done in pieces. The
 * others leave it alone; it may be NULL. */
int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length,
                 size_t *end);

/* One of these. */
typedef int64_t mf_searcher(const void *haystack, size_t length, const void *needle,
                            size_t needle_length, size_t *end);
