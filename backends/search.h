/* Searching memory, with the meaning of bytes.find, bytes.rfind and bytes.count.
 *
 * Pure functions: they allocate nothing, keep no state and need no GIL. They only read [haystack,
 * haystack + length) and [needle, needle + needle_length). That is also true if another process
 * changes the bytes meanwhile; then only the result is unspecified. The time is linear in both
 * lengths.
 *
 * build.py hands this file to cffi as it is, so it has no preprocessor directives. Include stddef.h
 * and stdint.h before it. */

/* Returns the offset of the first match, or -1. An empty needle is found at 0. */
int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length,
                size_t *end);

/* Returns the offset of the last match, or -1. An empty needle is found at length. */
int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length,
                 size_t *end);

/* Returns the number of matches that do not overlap. An empty needle has length + 1 matches. *end
 * is set to the end of the last match, or to 0: a search in pieces continues there. mf_find and
 * mf_rfind do not use end. It may be NULL. */
int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length,
                 size_t *end);

/* The type of these functions. */
typedef int64_t mf_searcher(const void *haystack, size_t length, const void *needle,
                            size_t needle_length, size_t *end);
