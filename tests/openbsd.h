/* The headers of Linux, changed to look like those of OpenBSD, which has no fallocate,
 * posix_fadvise, mincore, or uc_sigmask. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#undef __linux__
#define __OpenBSD__ 1
#undef O_TMPFILE
#undef O_PATH
#undef MREMAP_MAYMOVE
#undef SYNC_FILE_RANGE_WRITE
#undef BUS_MCEERR_AR
#undef BUS_MCEERR_AO
#undef _POSIX_ADVISORY_INFO
typedef struct {
    sigset_t sc_mask; /* an int on OpenBSD, as sigset_t is */
} openbsd_context;
#define ucontext_t openbsd_context
#pragma GCC poison posix_fallocate fallocate posix_fadvise mincore uc_sigmask
#pragma GCC poison process_vm_readv mremap
