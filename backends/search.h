int64_t mf_find(const void *haystack, size_t length, const void *needle, size_t needle_length);
int64_t mf_rfind(const void *haystack, size_t length, const void *needle, size_t needle_length);
int64_t mf_count(const void *haystack, size_t length, const void *needle, size_t needle_length);
