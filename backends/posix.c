/* The POSIX backend: mmap, munmap, msync. backend.h says what each function promises. */
#define _GNU_SOURCE /* fallocate, sync_file_range, O_PATH */
#define _DARWIN_C_SOURCE /* F_FULLFSYNC, F_PREALLOCATE */
#define _FILE_OFFSET_BITS 64

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

static int fd_of(const mf_file *file)
{
    return (int)file->handle;
}

void mf_query_system(mf_system *out)
{
    out->page_size = (size_t)sysconf(_SC_PAGESIZE);
    out->granularity = out->page_size;
    out->maps_beyond_end = 1;
    out->has_sections = 0;
#ifdef __APPLE__
    out->flush_reaches_device = 0; /* msync and fsync stop at the drive's cache: fsync(2), F_FULLFSYNC */
    out->sync_covers_maps = 0;
#else
    out->flush_reaches_device = 1;
    out->sync_covers_maps = 1;
#endif
}

/* Fills in out from a descriptor of ours, or closes it. */
static int take(int fd, mf_file *out)
{
    struct stat status;
    int error = 0;

    if (fstat(fd, &status) != 0)
        error = errno;
    else if (S_ISDIR(status.st_mode))
        error = EISDIR;
    else if (!S_ISREG(status.st_mode))
        error = ENODEV;
    if (error != 0) {
        close(fd);
        return error;
    }
    out->handle = fd;
    out->size = status.st_size;
    return 0;
}

int mf_open(const mf_char *path, int access, int found, mf_file *out)
{
    /* O_NONBLOCK: a FIFO would wait for its other end. Regular files do not know it. */
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd, error;

    flags |= access == MF_WRITE ? O_RDWR : O_RDONLY;
    if (found == MF_EMPTIED)
        flags |= O_CREAT | O_TRUNC;
    else if (found == MF_NEW)
        flags |= O_CREAT | O_EXCL;
    fd = open(path, flags, 0666);
    if (fd < 0)
        return errno;
    error = take(fd, out);
    if (error != 0 && found == MF_NEW && unlink(path) != 0)
        return error; /* of two errors, the first is the one to tell */
    return error;
}

int mf_adopt(intptr_t handle, int access, mf_file *out)
{
    int flags = fcntl((int)handle, F_GETFL);
    int mode = flags & O_ACCMODE;
    int fd;

    if (flags < 0)
        return errno;
#ifdef O_PATH
    if (flags & O_PATH)
        return EBADF;
#endif
    /* mmap would say so too, but an empty file is not mapped. */
    if (mode == O_WRONLY || (access == MF_WRITE && mode != O_RDWR))
        return EACCES;
    fd = fcntl((int)handle, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return errno;
    return take(fd, out);
}

int mf_close(mf_file *file)
{
    int fd = fd_of(file);

    file->handle = -1;
    /* After EINTR the descriptor is gone on Linux, macOS and the BSDs: close(2), "Dealing with error returns". */
    if (fd >= 0 && close(fd) != 0 && errno != EINTR)
        return errno;
    return 0;
}

int mf_get_size(const mf_file *file, int64_t *out)
{
    struct stat status;

    if (fstat(fd_of(file), &status) != 0)
        return errno;
    *out = status.st_size;
    return 0;
}

int mf_set_size(const mf_file *file, int64_t size)
{
    return ftruncate(fd_of(file), (off_t)size) == 0 ? 0 : errno;
}

/* For file systems that cannot allocate (fallocate says EOPNOTSUPP): zeros, past the end of the file alone, so that
 * nothing of anybody's is written over. */
static int write_zeros(int fd, int64_t offset, int64_t length)
{
    static const char zeros[1 << 16];

    while (length > 0) {
        size_t step = length < (int64_t)sizeof zeros ? (size_t)length : sizeof zeros;
        ssize_t done = pwrite(fd, zeros, step, (off_t)offset);
        if (done < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        offset += done;
        length -= done;
    }
    return 0;
}

static int allocate_blocks(int fd, int64_t offset, int64_t length)
{
    int error;

#if defined(__linux__)
    /* Not posix_fallocate: glibc's emulates by reading and writing a byte of every block. */
    error = fallocate(fd, 0, (off_t)offset, (off_t)length) == 0 ? 0 : errno;
#elif defined(__APPLE__)
    fstore_t request = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, length, 0};
    error = fcntl(fd, F_PREALLOCATE, &request) != -1 ? 0 : errno;
    if (error == 0) /* F_PREALLOCATE leaves the size alone */
        error = ftruncate(fd, (off_t)(offset + length)) == 0 ? 0 : errno;
#else
    error = posix_fallocate(fd, (off_t)offset, (off_t)length);
#endif
    if (error == EOPNOTSUPP || error == ENOTSUP || error == ENOSYS)
        return write_zeros(fd, offset, length);
    return error;
}

int mf_grow(const mf_file *file, int64_t size, int64_t grown, int allocate, mf_section *out)
{
    int fd = fd_of(file);
    int64_t page = (int64_t)sysconf(_SC_PAGESIZE);
    int64_t tail = (page - size % page) % page;
    int error = 0;

    if (tail > grown - size)
        tail = grown - size;
    /* What a map wrote behind the end of the file, in its last page, shows once the file is longer: tmpfs keeps it. */
    if (tail > 0)
        error = write_zeros(fd, size, tail);
    if (error == 0 && grown > size + tail) {
        if (allocate)
            error = allocate_blocks(fd, size + tail, grown - size - tail);
        else
            error = ftruncate(fd, (off_t)grown) == 0 ? 0 : errno;
    }
    if (error == 0) {
        out->handle = -1;
        out->size = grown;
    } else if (ftruncate(fd, (off_t)size) != 0) {
        return error; /* of two errors, the first is the one to tell */
    }
    return error;
}

int mf_make_sparse(const mf_file *file)
{
    (void)file;
    return 0;
}

int mf_open_section(const mf_file *file, int access, mf_section *out)
{
    (void)access;
    out->handle = -1;
    return mf_get_size(file, &out->size);
}

int mf_close_section(mf_section *section)
{
    (void)section;
    return 0;
}

int mf_map(const mf_file *file, const mf_section *section, int access, int64_t offset, size_t length, mf_mapping *out)
{
    int protection = access == MF_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    int flags = access == MF_COPY ? MAP_PRIVATE : MAP_SHARED;
    void *base = mmap(NULL, length, protection, flags, fd_of(file), (off_t)offset);

    (void)section;
    if (base == MAP_FAILED)
        return errno;
    out->base = base;
    out->length = length;
    return 0;
}

int mf_remap(mf_mapping *map, size_t grown)
{
#ifdef MREMAP_MAYMOVE
    void *moved = mremap(map->base, map->length, grown, MREMAP_MAYMOVE);

    if (moved == MAP_FAILED)
        return errno;
    map->base = moved;
    map->length = grown;
    return 0;
#else
    (void)map;
    (void)grown;
    return ENOTSUP;
#endif
}

int mf_unmap(mf_mapping *map)
{
    return munmap(map->base, map->length) == 0 ? 0 : errno;
}

/* Length 0 reaches to the end of the file. MS_ASYNC would start nothing since Linux 2.6.19: msync(2), NOTES. */
static int start_write_back(int fd, int64_t offset, int64_t length)
{
#ifdef SYNC_FILE_RANGE_WRITE
    if (sync_file_range(fd, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE) != 0)
        return errno;
#else
    (void)fd;
    (void)offset;
    (void)length;
#endif
    return 0;
}

int mf_flush(const mf_file *file, char *base, size_t length, int64_t offset, int wait)
{
    if (msync(base, length, wait ? MS_SYNC : MS_ASYNC) != 0)
        return errno;
    return wait || file == NULL ? 0 : start_write_back(fd_of(file), offset, (int64_t)length);
}

int mf_sync(const mf_file *file, int wait)
{
    int fd = fd_of(file);

    if (!wait)
        return start_write_back(fd, 0, 0);
#ifdef F_FULLFSYNC
    if (fcntl(fd, F_FULLFSYNC) != -1)
        return 0;
    if (errno != ENOTSUP && errno != EINVAL) /* file systems without it: fsync is all they have */
        return errno;
#endif
    return fsync(fd) == 0 ? 0 : errno;
}
