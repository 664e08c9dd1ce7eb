/* What posix.c and posix_guard.c share. No other file includes this one, and it comes first there:
 * the system's headers go by the macros below. */
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

/* In bytes. Not for signal handlers: POSIX.1-2008 does not let them call sysconf. */
static inline size_t get_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* What mmap is told of the memory of a map. */
static inline int protection_of(int access)
{
    return access == MF_READ ? PROT_READ : PROT_READ | PROT_WRITE;
}

/* The guard's list has every map that a fault may be in: posix_guard.c. */

/* Makes the list ready for use. Returns the error that keeps it from being used. Cheap when it is
 * called again. */
int mf_guard_prepare(void);

/* Puts a map on the list. */
void mf_guard_register(mf_mapping *map);

/* Takes a map off the list, and waits until no signal handler looks at it any more. */
void mf_guard_unregister(mf_mapping *map);

#endif
