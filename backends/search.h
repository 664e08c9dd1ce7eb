/* Searching memory, with the meaning of bytes.find, bytes.rfind and bytes.count.
 *
 * Pure functions: they allocate nothing, keep no state and need no GIL. They read [haystack, haystack + length) and
 * [needle, needle + needle_length) and nothing else, and stay within them even if another process is changing the
 * bytes meanwhile; only the answer is then unspecified. Time is linear in the lengths at worst.
 *
 * build.py hands this file to cffi as it stands, so it has no directives; include stddef.h and stdint.h before it.
 */

/* The offset of the first match, or -1. An empty needle is at 0. */
int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length);

/* The offset of the last match, or -1. An empty needle is at length. */
int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length);

/* How many matches there are, none overlapping the one before. An empty needle has length + 1. */
int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length);
