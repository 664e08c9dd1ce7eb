#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <string.h>
int64_t mf_find(const void *h, size_t n, const void *p, size_t m){char*r=memmem(h,n,p,m);return r?r-(char*)h:-1;}
int64_t mf_rfind(const void *h, size_t n, const void *p, size_t m){(void)h;(void)n;(void)p;(void)m;return -1;}
int64_t mf_count(const void *h, size_t n, const void *p, size_t m){(void)h;(void)n;(void)p;(void)m;return 0;}
