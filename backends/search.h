/* Searching memory, the same on every system. Time is linear in the length, whatever the needle. */

/* bytes.find and bytes.rfind: the offset of the first or the last match, or -1. */
int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length);
int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length);

/* bytes.count: the number of matches that do not overlap. */
int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length);
