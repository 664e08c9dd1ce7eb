/* Shared by posix.c and posix_guard.c, which include it first: its macros affect the system's
 * headers. No other file includes it. */
#ifndef MAPPEDFILE_POSIX_PRIVATE_H
#define MAPPEDFILE_POSIX_PRIVATE_H

#define _GNU_SOURCE      /* fallocate, sync_file_range, O_PATH, process_vm_readv, mincore */
#define _DARWIN_C_SOURCE /* F_FULLFSYNC, F_PREALLOCATE */
#define _FILE_OFFSET_BITS 64

#include "native.h"

#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

static inline int fd_of(const mf_file *file)
{
    return (int)file->handle;
}

/* The page size in bytes. Signal handlers must not call it: POSIX.1-2008 does not allow sysconf
 * there. */
static inline size_t get_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* The protection for mmap. */
static inline int protection_of(int access)
{
    return access == MF_READ ? PROT_READ : PROT_READ | PROT_WRITE;
}

/* The guard's list of maps: posix_guard.c. */

/* Makes the list ready for use, or returns the error. Later calls are cheap. */
int mf_guard_prepare(void);

/* Adds a map to the list. */
void mf_guard_register(mf_mapping *map);

/* Removes a map from the list, and waits until no signal handler uses it any more. */
void mf_guard_unregister(mf_mapping *map);

#endif
