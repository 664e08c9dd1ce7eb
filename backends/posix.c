/* The POSIX backend: mmap, munmap, msync. The fault guard is in posix_guard.c. backend.h says what
 * each function promises. */
#include "posix_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#ifdef __linux__
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#elif defined(__APPLE__)
#include <sys/disk.h>
#include <sys/ioctl.h>
#elif defined(__FreeBSD__)
#include <sys/disk.h>
#include <sys/ioctl.h>
#endif

#if defined(__linux__) && !defined(PR_SET_VMA)
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

void mf_query_system(mf_system *out)
{
    out->page_size = get_page_size();
    out->granularity = out->page_size;
    out->interrupted = EINTR;
    out->not_supported = ENOTSUP;
    out->too_large = ENOMEM;
    out->over_quota = -1;
    out->bad_address = EFAULT;
    out->invalid = EINVAL;
    out->can_reserve = 1;
    out->has_sections = 0;
    out->guard_covers_all = 1;
#ifdef __APPLE__
    /* msync and fsync do not flush the drive's cache: fsync(2), F_FULLFSYNC. */
    out->flush_reaches_device = 0;
    out->sync_covers_maps = 0;
#else
    out->flush_reaches_device = 1;
    out->sync_covers_maps = 1;
#endif
}

/* The granularity of a file's maps, in bytes: on hugetlbfs it is the size of a huge page. Blocks
 * are as large there, so most files need no further call. */
static size_t granularity_of(int fd, const struct stat *status)
{
    size_t page = get_page_size();
#ifdef __linux__
    struct statfs volume;

    if ((size_t)status->st_blksize > page && fstatfs(fd, &volume) == 0 &&
        volume.f_type == HUGETLBFS_MAGIC)
        return (size_t)volume.f_bsize;
#else
    (void)fd;
    (void)status;
#endif
    return page;
}

static int is_disk(mode_t mode)
{
#ifdef DIOCGMEDIASIZE
    return S_ISCHR(mode); /* FreeBSD has no block devices */
#else
    return S_ISBLK(mode);
#endif
}

/* Reads the size of a disk, in bytes. */
static int size_of_device(int fd, int64_t *out)
{
#if defined(__linux__)
    uint64_t size;

    if (ioctl(fd, BLKGETSIZE64, &size) != 0)
        return errno;
    *out = (int64_t)size;
    return 0;
#elif defined(DIOCGMEDIASIZE)
    off_t size;

    if (ioctl(fd, DIOCGMEDIASIZE, &size) != 0)
        return errno;
    *out = size;
    return 0;
#elif defined(DKIOCGETBLOCKCOUNT) /* macOS */
    uint32_t block;
    uint64_t count;

    if (ioctl(fd, DKIOCGETBLOCKSIZE, &block) != 0 || ioctl(fd, DKIOCGETBLOCKCOUNT, &count) != 0)
        return errno;
    *out = (int64_t)(block * count);
    return 0;
#else
    (void)fd;
    (void)out;
    return ENODEV;
#endif
}

/* Whether a file without blocks can be mapped. Empty files and files of holes can. The files of
 * /proc and /sys look the same, and cannot. */
static int probe_map(int fd, const struct stat *status)
{
    size_t page = granularity_of(fd, status);
    void *base = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0);

    if (base == MAP_FAILED)
        return errno == EIO || errno == ENXIO ? ENODEV : errno;
    return munmap(base, page) == 0 ? 0 : errno;
}

/* What the caller knows of a file that it has just opened. */
enum { MAY_HAVE_BYTES, IS_EMPTY, IS_TO_BE_CUT, MAY_BE_ANY };

/* Fills in out from a new descriptor; or closes the descriptor and returns the error. */
static int init_file(int fd, int known, mf_file *out)
{
    int may_have_bytes = known == MAY_HAVE_BYTES || known == MAY_BE_ANY;
    struct stat status;
    int64_t size = 0;
    int error = 0, device = 0;

    if (fstat(fd, &status) != 0) {
        error = errno;
    } else if (S_ISDIR(status.st_mode)) {
        error = EISDIR;
    } else if (S_ISREG(status.st_mode)) {
        if (known == IS_TO_BE_CUT && ftruncate(fd, 0) != 0)
            error = errno;
        size = may_have_bytes ? status.st_size : 0;
        if (may_have_bytes && status.st_blocks == 0)
            error = probe_map(fd, &status);
    } else if (is_disk(status.st_mode) && size_of_device(fd, &size) == 0) {
        device = 1;
        error = may_have_bytes ? 0 : ENODEV; /* it cannot be mapped */
    } else if (known == MAY_BE_ANY && S_ISCHR(status.st_mode)) {
        device = 1;
        size = -1; /* a character device has no size */
    } else {
        error = ENODEV;
    }
    if (error != 0) {
        close(fd);
        return error;
    }
    out->handle = fd;
    out->size = size;
    out->device = device;
    out->granularity = granularity_of(fd, &status);
    return 0;
}

int mf_open(const mf_char *path, int access, int disposition, mf_file *out)
{
    /* O_NONBLOCK: otherwise open() of a FIFO waits for its other end. It does not affect regular
     * files. */
    int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd, error;

    flags |= access == MF_WRITE ? O_RDWR : O_RDONLY;
    if (disposition == MF_EMPTIED)
        flags |= O_CREAT | O_TRUNC;
    else if (disposition == MF_NEW)
        flags |= O_CREAT | O_EXCL;
    fd = open(path, flags, 0666);
    if (fd < 0)
        return errno;
    error = init_file(fd, disposition == MF_EXISTING ? MAY_HAVE_BYTES : IS_EMPTY, out);
    if (error != 0 && disposition == MF_NEW && unlink(path) != 0)
        return error; /* of two errors, the first is returned */
    return error;
}

/* Policy: on FUSE a file with two names can be two files to the kernel, each with pages of its own,
 * so a new file there gets no name by a link. */
static int links_are_one_file(int fd)
{
#ifdef __linux__
    struct statfs volume;

    return fstatfs(fd, &volume) == 0 && volume.f_type != FUSE_SUPER_MAGIC;
#elif defined(RENAME_EXCL)
    (void)fd;
    return 0; /* macOS: a file system that cannot rename like this has no links either, or is FUSE
               */
#else
    (void)fd;
    return 1;
#endif
}

/* Renames a file, but never over another one. */
static int rename_exclusively(const char *from, const char *to)
{
#if defined(__linux__) && defined(SYS_renameat2)
    const int flags = 1; /* RENAME_NOREPLACE */

    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags) == 0 ? 0 : errno;
#elif defined(RENAME_EXCL)
    return renamex_np(from, to, RENAME_EXCL) == 0 ? 0 : errno;
#else
    (void)from;
    (void)to;
    return ENOTSUP;
#endif
}

/* Returns the last part of a path. */
static const char *base_name_in(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

int mf_create(const mf_char *path, mf_file *out, mf_char *temporary, size_t room)
{
    static const int flags = O_CLOEXEC | O_NOCTTY | O_RDWR;
    size_t folder = (size_t)(base_name_in(path) - path);
    struct stat status;
    int fd, number;

    if (lstat(path, &status) == 0)
        return EEXIST;
    if (errno != ENOENT)
        return errno;
    if (*base_name_in(path) == '\0' || folder + 64 > room)
        return ENOTSUP;
    temporary[0] = '\0';
#ifdef O_TMPFILE
    /* A file without a name: nothing is left of it if the process is killed. */
    memcpy(temporary, path, folder);
    memcpy(temporary + folder, ".", 2);
    fd = open(temporary, flags | O_TMPFILE, 0666);
    temporary[0] = '\0';
    if (fd >= 0 && links_are_one_file(fd))
        return init_file(fd, IS_EMPTY, out);
    if (fd >= 0)
        close(fd);
    else if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return errno;
#endif
    for (number = 0; number < MF_TEMPORARY_NAMES; number++) {
        memcpy(temporary, path, folder);
        snprintf(temporary + folder, room - folder, ".mappedfile-%d-%llx-%d", (int)getpid(),
                 (unsigned long long)mf_milliseconds(), number);
        fd = open(temporary, flags | O_CREAT | O_EXCL, 0666);
        if (fd >= 0)
            return init_file(fd, IS_EMPTY, out);
        if (errno != EEXIST)
            break;
    }
    temporary[0] = '\0';
    return errno;
}

int mf_publish(const mf_file *file, mf_char *temporary, const mf_char *path)
{
    int error;

    if (temporary[0] == '\0') {
        char self[64];

        snprintf(self, sizeof self, "/proc/self/fd/%d", fd_of(file));
        /* open(2), O_TMPFILE. */
        return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
    }
    error = rename_exclusively(temporary, path);
    if (error != EINVAL && error != ENOSYS && error != EOPNOTSUPP && error != ENOTSUP)
        return error;
    if (!links_are_one_file(fd_of(file)))
        return ENOTSUP;
    if (link(temporary, path) == 0)
        return unlink(temporary) == 0 ? 0 : errno;
    error = errno;
    if (error == EPERM || error == EOPNOTSUPP || error == ENOSYS || error == EMLINK)
        error = ENOTSUP;
    return error;
}

int mf_duplicate(intptr_t handle, int access, int disposition, mf_file *out)
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
    /* mmap would return this error too, but not for an empty file, which is not mapped. */
    if (mode == O_WRONLY || (access == MF_WRITE && mode != O_RDWR))
        return EACCES;
    fd = fcntl((int)handle, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return errno;
    return init_file(fd,
                     disposition == MF_EMPTIED  ? IS_TO_BE_CUT
                     : disposition == MF_DEVICE ? MAY_BE_ANY
                                                : MAY_HAVE_BYTES,
                     out);
}

int mf_close(mf_file *file)
{
    int fd = fd_of(file);

    file->handle = -1;
    /* After EINTR the descriptor is gone on Linux, macOS and the BSDs: close(2), "Dealing with
     * error returns". */
    if (fd >= 0 && close(fd) != 0 && errno != EINTR)
        return errno;
    return 0;
}

int mf_get_size(const mf_file *file, int64_t *out)
{
    struct stat status;

    if (file->device)
        return size_of_device(fd_of(file), out);
    if (fstat(fd_of(file), &status) != 0)
        return errno;
    *out = status.st_size;
    return 0;
}

int mf_set_size(const mf_file *file, int64_t size)
{
    return ftruncate(fd_of(file), (off_t)size) == 0 ? 0 : errno;
}

int mf_remove(const mf_char *path)
{
    return unlink(path) == 0 ? 0 : errno;
}

int64_t mf_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Appends zeros to a file: it never overwrites bytes of other processes. Advances *reached. */
static int write_zeros(int fd, int64_t *reached, int64_t stop)
{
    static const char zeros[1 << 16];

    while (*reached < stop) {
        int64_t left = stop - *reached;
        size_t piece = left < (int64_t)sizeof zeros ? (size_t)left : sizeof zeros;
        ssize_t done = pwrite(fd, zeros, piece, (off_t)*reached);

        if (done < 0)
            return errno;
        *reached += done;
    }
    return 0;
}

static int allocate_blocks(int fd, int64_t offset, int64_t length)
{
    int error;

#if defined(__linux__)
    /* Not posix_fallocate: glibc emulates it by reading and writing a byte of every block. */
    error = fallocate(fd, 0, (off_t)offset, (off_t)length) == 0 ? 0 : errno;
#elif defined(__APPLE__)
    fstore_t request = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, length, 0};
    error = fcntl(fd, F_PREALLOCATE, &request) != -1 ? 0 : errno;
    if (error == 0) /* F_PREALLOCATE does not change the size */
        error = ftruncate(fd, (off_t)(offset + length)) == 0 ? 0 : errno;
#elif _POSIX_ADVISORY_INFO > 0
    error = posix_fallocate(fd, (off_t)offset, (off_t)length);
#else
    (void)fd;
    (void)offset;
    (void)length;
    error = ENOTSUP; /* OpenBSD */
#endif
    return error;
}

/* Policy: how many bytes are allocated, or written as zeros, between two checks for signals. When a
 * signal interrupts fallocate, tmpfs frees what it has allocated, and the next call starts again.
 * So the piece after an interrupted one is smaller. */
enum { LARGEST_PIECE = 1 << 28, SMALLEST_PIECE = 1 << 16, LARGEST_PIECE_OF_ZEROS = 1 << 24 };

/* Whether the file system has less free space than this. Without this check, a growth that must
 * fail would first fill the disk, piece by piece, and other processes would find it full. */
static int has_no_room(int fd, int64_t length)
{
    struct statvfs volume;

    if (fstatvfs(fd, &volume) != 0 || volume.f_blocks == 0)
        return 0; /* unknown */
    return (uint64_t)length / volume.f_frsize > volume.f_bfree;
}

/* Policy: the free space is compared once, after the first large piece. A small growth needs no
 * comparison, and one that cannot fit fails early. */
static int allocate_piece(int fd, mf_growth *growth)
{
    int64_t left = growth->grown - growth->reached;
    int64_t piece = growth->step == 0 ? LARGEST_PIECE : growth->step;
    int error;

    if (piece > left)
        piece = left;
    else if (growth->step == 0 && growth->reached - growth->size >= LARGEST_PIECE &&
             growth->reached - growth->size < 2 * (int64_t)LARGEST_PIECE && has_no_room(fd, left))
        return ENOSPC;
    error = allocate_blocks(fd, growth->reached, piece);
    if (error == 0) {
        growth->reached += piece;
    } else if (error == EINTR) {
        growth->step = piece / 2 > SMALLEST_PIECE ? piece / 2 : SMALLEST_PIECE;
    } else if (error == EOPNOTSUPP || error == ENOTSUP || error == ENOSYS) {
        /* The file system cannot allocate: written zeros get blocks as well. */
        piece = left < LARGEST_PIECE_OF_ZEROS ? left : LARGEST_PIECE_OF_ZEROS;
        error = write_zeros(fd, &growth->reached, growth->reached + piece);
    }
    return error;
}

int mf_grow(const mf_file *file, mf_growth *growth, mf_section *out)
{
    int fd = fd_of(file);
    size_t page = get_page_size();
    size_t used = (size_t)(growth->size % (int64_t)page); /* bytes of the last page */
    int64_t tail = growth->size + (int64_t)(mf_round_up(used, page) - used);
    int error = 0;

    if (tail > growth->grown)
        tail = growth->grown;
    /* A map may have written behind the end of the file, in its last page. On tmpfs these bytes
     * would appear when the file grows. */
    if (growth->reached < tail)
        error = write_zeros(fd, &growth->reached, tail);
    if (error == 0 && growth->reached < growth->grown) {
        if (growth->allocate) {
            error = allocate_piece(fd, growth);
        } else {
            error = ftruncate(fd, (off_t)growth->grown) == 0 ? 0 : errno;
            growth->reached = error == 0 ? growth->grown : growth->reached;
        }
    }
    if (error == 0 && growth->reached < growth->grown)
        return EINTR;
    if (error == 0) {
        out->handle = -1;
        out->size = growth->grown;
    } else if (error != EINTR && ftruncate(fd, (off_t)growth->size) != 0) {
        return error; /* of two errors, the first is returned */
    }
    return error;
}

int mf_open_section(const mf_file *file, int access, mf_section *out)
{
    (void)access;
    out->handle = -1;
    return mf_get_size(file, &out->size);
}

int mf_open_memory(const mf_file *file, int access, int64_t size, const mf_char *tag,
                   mf_section *out)
{
    (void)file;
    (void)access;
    (void)tag;
    out->handle = -1;
    out->size = size;
    return 0;
}

int mf_close_section(mf_section *section)
{
    (void)section;
    return 0;
}

/* The address space of a map, in bytes. It is a multiple of the file's granularity: munmap needs
 * that for huge pages. */
static size_t mapped_size(const mf_file *file, size_t length, size_t reserved)
{
    return mf_round_up(reserved > length ? reserved : length, file->granularity);
}

int mf_map(mf_file *file, const mf_section *section, int access, int64_t offset, size_t length,
           mf_mapping *out)
{
    int flags = out->chosen ? out->flags : access == MF_COPY ? MAP_PRIVATE : MAP_SHARED;
    int error = mf_guard_prepare();
    void *base;

    (void)section;
    if (error != 0)
        return error;
    if (file->handle == -1)
        flags |= MAP_ANONYMOUS;
    /* Without MAP_NORESERVE, Linux counts a private map as committed memory, whether it is written
     * to or not: proc(5), overcommit_memory. */
    if (access == MF_COPY && !out->chosen)
        flags |= MAP_NORESERVE;
    base = mmap(NULL, mapped_size(file, length, out->reserved),
                out->chosen ? out->protection : protection_of(access), flags, fd_of(file),
                (off_t)offset);
    if (base == MAP_FAILED)
        return errno;
    if (base == NULL) { /* MAP_FIXED, which root may ask for. NULL means that nothing is mapped */
        munmap(base, mapped_size(file, length, out->reserved));
        return EINVAL;
    }
    mf_fill_mapping(out, file, base, length, access);
    mf_guard_register(out);
    return 0;
}

int mf_extend(mf_mapping *map, const mf_section *section, int64_t offset, size_t grown)
{
    (void)section;
    (void)offset;
    map->length = grown;
    return 0;
}

int mf_remap(mf_mapping *map, size_t grown)
{
#ifdef MREMAP_MAYMOVE
    int error = 0;
    void *moved;

    mf_guard_unregister(map);
    moved = mremap(map->base, mapped_size(map->file, map->length, map->reserved),
                   mapped_size(map->file, grown, 0), MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) {
        error = errno;
    } else {
        map->base = moved;
        map->length = grown;
    }
    mf_guard_register(map);
    return error;
#else
    (void)map;
    (void)grown;
    return ENOTSUP;
#endif
}

int mf_unmap(mf_mapping *map)
{
    size_t size;
    int error;

    if (map->base == NULL)
        return EINVAL;
    mf_guard_unregister(map);
    size = mapped_size(map->file, map->length, map->reserved);
    error = munmap(map->base, size) == 0 ? 0 : errno;
    map->base = NULL;
    mf_add(&map->file->map_count, -1);
    return error;
}

#ifdef SYNC_FILE_RANGE_WRITE
/* Policy: the file systems where sync_file_range succeeds without starting write-back. There,
 * posix_fadvise reaches the file of the lower layer, and starts write-back. It also evicts clean
 * pages that are not mapped. */
static int writes_back_by_advice(int fd)
{
    struct statfs volume;

    return fstatfs(fd, &volume) == 0 && volume.f_type == OVERLAYFS_SUPER_MAGIC;
}
#endif

/* Length 0 reaches to the end of the file. MS_ASYNC starts nothing since Linux 2.6.19: msync(2),
 * NOTES. */
static int start_write_back(int fd, int64_t offset, int64_t length)
{
#ifdef SYNC_FILE_RANGE_WRITE
    if (writes_back_by_advice(fd))
        return posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
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
    /* Some file systems only have fsync. */
    if (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY)
        return errno;
#endif
    return fsync(fd) == 0 ? 0 : errno;
}

/* The system's number for a kind of mf_advise, or -1. The numbers of Linux are written out, since
 * headers may be older than the kernel. */
static int advice_of(int kind)
{
    switch (kind) {
    case MF_NORMAL: return MADV_NORMAL;
    case MF_SEQUENTIAL: return MADV_SEQUENTIAL;
    case MF_RANDOM: return MADV_RANDOM;
    case MF_WILLNEED: return MADV_WILLNEED;
    case MF_DONTNEED: return MADV_DONTNEED;
#ifdef __linux__
    case MF_COLD: return 20;    /* MADV_COLD: Linux 5.4 */
    case MF_PAGEOUT: return 21; /* MADV_PAGEOUT: Linux 5.4 */
    case MF_HUGEPAGE: return MADV_HUGEPAGE;
    case MF_NOHUGEPAGE: return MADV_NOHUGEPAGE;
    case MF_POPULATE_READ: return 22;  /* MADV_POPULATE_READ: Linux 5.14 */
    case MF_POPULATE_WRITE: return 23; /* MADV_POPULATE_WRITE: Linux 5.14 */
#endif
    default: return -1;
    }
}

int mf_advise(char *base, size_t length, int kind)
{
    int advice = advice_of(kind);
    int error;

    if (advice < 0)
        return ENOTSUP;
#ifndef __linux__
    if (length == 0)
        return 0;
#endif
    if (madvise(base, length, advice) == 0)
        return 0;
    error = errno;
    /* EINVAL also means that pages are locked. For 0 pages it only means that the kernel does not
     * know the kind. */
    return error == EINVAL && madvise(base, 0, advice) != 0 ? ENOTSUP : error;
}

int mf_madvise(char *base, size_t length, int advice)
{
    return advice == MF_NO_ADVICE || madvise(base, length, advice) == 0 ? 0 : errno;
}

int mf_set_name(char *base, size_t length, const char *name)
{
#ifdef __linux__
    unsigned long start = (unsigned long)(uintptr_t)base, text = (unsigned long)(uintptr_t)name;

    int error = prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, length, text) == 0 ? 0 : errno;

    /* EINVAL also means that the name is invalid. Without a name it only means that the kernel has
     * no such names: CONFIG_ANON_VMA_NAME. */
    return error == EINVAL && prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, length, 0UL) != 0
               ? ENOTSUP
               : error;
#else
    (void)base;
    (void)length;
    (void)name;
    return ENOTSUP;
#endif
}

/* The constants of the standard library's mmap, on any system, as far as this header has them. */
static const struct {
    const char *name;
    int value;
} constants[] = {
#ifdef MADV_NORMAL
    {"MADV_NORMAL", MADV_NORMAL},
#endif
#ifdef MADV_RANDOM
    {"MADV_RANDOM", MADV_RANDOM},
#endif
#ifdef MADV_SEQUENTIAL
    {"MADV_SEQUENTIAL", MADV_SEQUENTIAL},
#endif
#ifdef MADV_WILLNEED
    {"MADV_WILLNEED", MADV_WILLNEED},
#endif
#ifdef MADV_DONTNEED
    {"MADV_DONTNEED", MADV_DONTNEED},
#endif
#ifdef MADV_REMOVE
    {"MADV_REMOVE", MADV_REMOVE},
#endif
#ifdef MADV_DONTFORK
    {"MADV_DONTFORK", MADV_DONTFORK},
#endif
#ifdef MADV_DOFORK
    {"MADV_DOFORK", MADV_DOFORK},
#endif
#ifdef MADV_HWPOISON
    {"MADV_HWPOISON", MADV_HWPOISON},
#endif
#ifdef MADV_MERGEABLE
    {"MADV_MERGEABLE", MADV_MERGEABLE},
#endif
#ifdef MADV_UNMERGEABLE
    {"MADV_UNMERGEABLE", MADV_UNMERGEABLE},
#endif
#ifdef MADV_SOFT_OFFLINE
    {"MADV_SOFT_OFFLINE", MADV_SOFT_OFFLINE},
#endif
#ifdef MADV_HUGEPAGE
    {"MADV_HUGEPAGE", MADV_HUGEPAGE},
#endif
#ifdef MADV_NOHUGEPAGE
    {"MADV_NOHUGEPAGE", MADV_NOHUGEPAGE},
#endif
#ifdef MADV_DONTDUMP
    {"MADV_DONTDUMP", MADV_DONTDUMP},
#endif
#ifdef MADV_DODUMP
    {"MADV_DODUMP", MADV_DODUMP},
#endif
#ifdef MADV_FREE
    {"MADV_FREE", MADV_FREE},
#endif
#ifdef MADV_NOSYNC
    {"MADV_NOSYNC", MADV_NOSYNC},
#endif
#ifdef MADV_AUTOSYNC
    {"MADV_AUTOSYNC", MADV_AUTOSYNC},
#endif
#ifdef MADV_NOCORE
    {"MADV_NOCORE", MADV_NOCORE},
#endif
#ifdef MADV_CORE
    {"MADV_CORE", MADV_CORE},
#endif
#ifdef MADV_PROTECT
    {"MADV_PROTECT", MADV_PROTECT},
#endif
#ifdef MADV_FREE_REUSABLE
    {"MADV_FREE_REUSABLE", MADV_FREE_REUSABLE},
#endif
#ifdef MADV_FREE_REUSE
    {"MADV_FREE_REUSE", MADV_FREE_REUSE},
#endif
#ifdef MADV_COLD
    {"MADV_COLD", MADV_COLD},
#endif
#ifdef MADV_PAGEOUT
    {"MADV_PAGEOUT", MADV_PAGEOUT},
#endif
#ifdef MADV_POPULATE_READ
    {"MADV_POPULATE_READ", MADV_POPULATE_READ},
#endif
#ifdef MADV_POPULATE_WRITE
    {"MADV_POPULATE_WRITE", MADV_POPULATE_WRITE},
#endif
#ifdef MADV_WIPEONFORK
    {"MADV_WIPEONFORK", MADV_WIPEONFORK},
#endif
#ifdef MADV_KEEPONFORK
    {"MADV_KEEPONFORK", MADV_KEEPONFORK},
#endif
#ifdef MADV_COLLAPSE
    {"MADV_COLLAPSE", MADV_COLLAPSE},
#endif
#ifdef MAP_SHARED
    {"MAP_SHARED", MAP_SHARED},
#endif
#ifdef MAP_PRIVATE
    {"MAP_PRIVATE", MAP_PRIVATE},
#endif
#ifdef MAP_DENYWRITE
    {"MAP_DENYWRITE", MAP_DENYWRITE},
#endif
#ifdef MAP_EXECUTABLE
    {"MAP_EXECUTABLE", MAP_EXECUTABLE},
#endif
#ifdef MAP_ANONYMOUS
    {"MAP_ANONYMOUS", MAP_ANONYMOUS},
#endif
#ifdef MAP_ANON
    {"MAP_ANON", MAP_ANON},
#endif
#ifdef MAP_POPULATE
    {"MAP_POPULATE", MAP_POPULATE},
#endif
#ifdef MAP_STACK
    {"MAP_STACK", MAP_STACK},
#endif
#ifdef MAP_ALIGNED_SUPER
    {"MAP_ALIGNED_SUPER", MAP_ALIGNED_SUPER},
#endif
#ifdef MAP_CONCEAL
    {"MAP_CONCEAL", MAP_CONCEAL},
#endif
#ifdef MAP_NORESERVE
    {"MAP_NORESERVE", MAP_NORESERVE},
#endif
#ifdef MAP_32BIT
    {"MAP_32BIT", MAP_32BIT},
#endif
#ifdef MAP_GROWSDOWN
    {"MAP_GROWSDOWN", MAP_GROWSDOWN},
#endif
#ifdef MAP_HUGETLB
    {"MAP_HUGETLB", MAP_HUGETLB},
#endif
#ifdef MAP_LOCKED
    {"MAP_LOCKED", MAP_LOCKED},
#endif
#ifdef MAP_NONBLOCK
    {"MAP_NONBLOCK", MAP_NONBLOCK},
#endif
#ifdef MAP_SYNC
    {"MAP_SYNC", MAP_SYNC},
#endif
#ifdef MAP_FIXED_NOREPLACE
    {"MAP_FIXED_NOREPLACE", MAP_FIXED_NOREPLACE},
#endif
#ifdef MAP_HASSEMAPHORE
    {"MAP_HASSEMAPHORE", MAP_HASSEMAPHORE},
#endif
#ifdef MAP_NOCACHE
    {"MAP_NOCACHE", MAP_NOCACHE},
#endif
#ifdef MAP_JIT
    {"MAP_JIT", MAP_JIT},
#endif
#ifdef MAP_RESILIENT_CODESIGN
    {"MAP_RESILIENT_CODESIGN", MAP_RESILIENT_CODESIGN},
#endif
#ifdef MAP_RESILIENT_MEDIA
    {"MAP_RESILIENT_MEDIA", MAP_RESILIENT_MEDIA},
#endif
#ifdef MAP_TRANSLATED_ALLOW_EXECUTE
    {"MAP_TRANSLATED_ALLOW_EXECUTE", MAP_TRANSLATED_ALLOW_EXECUTE},
#endif
#ifdef MAP_UNIX03
    {"MAP_UNIX03", MAP_UNIX03},
#endif
#ifdef MAP_TPRO
    {"MAP_TPRO", MAP_TPRO},
#endif
#ifdef PROT_READ
    {"PROT_READ", PROT_READ},
#endif
#ifdef PROT_WRITE
    {"PROT_WRITE", PROT_WRITE},
#endif
#ifdef PROT_EXEC
    {"PROT_EXEC", PROT_EXEC},
#endif
#ifdef MS_SYNC
    {"MS_SYNC", MS_SYNC},
#endif
#ifdef MS_ASYNC
    {"MS_ASYNC", MS_ASYNC},
#endif
#ifdef MS_INVALIDATE
    {"MS_INVALIDATE", MS_INVALIDATE},
#endif
};

int mf_constant(int number, const char **name, int *value)
{
    if (number < 0 || (size_t)number >= sizeof constants / sizeof constants[0])
        return 0;
    *name = constants[number].name;
    *value = constants[number].value;
    return 1;
}

int mf_lock(char *base, size_t length)
{
    return mlock(base, length) == 0 ? 0 : errno;
}

int mf_unlock(char *base, size_t length)
{
    return munlock(base, length) == 0 ? 0 : errno;
}

int mf_allow_locked(size_t more)
{
    (void)more;
    return ENOTSUP;
}

int mf_residency(char *base, size_t length, char *out)
{
    size_t page = get_page_size();
    size_t pages = mf_round_up(length, page) / page;
    size_t at;

#ifdef __OpenBSD__
    (void)base;
    (void)out;
    (void)at;
    return pages == 0 ? 0 : ENOTSUP; /* OpenBSD has removed mincore, which revealed what other
                                        processes read */
#else
    if (mincore(base, length, (void *)out) != 0)
        return errno;
    for (at = 0; at < pages; at++)
        out[at] = (char)(out[at] & 1); /* Linux reserves the other bits, and macOS uses them */
    return 0;
#endif
}

int mf_residency_is_reliable(const mf_file *file, int *out)
{
#ifdef __linux__
    /* A page far past the end of the file cannot be in memory. If mincore says that it is, its
     * answers are not reliable. A page near the end may be in memory, since Linux caches files in
     * larger pieces (folios). */
    const off_t far = 1 << 30;
    size_t page = file->granularity;
    unsigned char there = 0;
    struct stat status;
    void *base;
    int error;

    if (fstat(fd_of(file), &status) != 0)
        return errno;
    base = mmap(NULL, page, PROT_READ, MAP_SHARED, fd_of(file),
                status.st_size / far * far + 2 * far);
    if (base == MAP_FAILED)
        return errno;
    error = mincore(base, 1, &there) == 0 ? 0 : errno;
    munmap(base, page);
    if (error == 0)
        *out = !(there & 1);
    return error;
#else
    (void)file;
    *out = 1;
    return 0;
#endif
}

#if defined(__linux__) && !defined(__alpha__)
enum { CACHESTAT = 451 }; /* the number of the system call: Linux 6.5, not in every libc */

/* Policy: the file systems where the count of cachestat is right. cachestat counts the pages of the
 * open file. On a stacked file system, such as overlayfs, maps have the pages of a file of the
 * lower layer. On these file systems both are the same. */
static int can_count_cached(const struct statfs *volume)
{
    switch ((uint32_t)volume->f_type) {
    case 0xEF53:     /* ext4 */
    case 0x58465342: /* XFS */
    case 0x9123683E: /* btrfs */
    case 0x01021994: /* tmpfs */ return 1;
    default: return 0;
    }
}
#endif

int mf_count_cached(const mf_file *file, int64_t offset, int64_t length, int64_t *out)
{
#if defined(__linux__) && !defined(__alpha__)
    struct statfs volume;
    struct {
        uint64_t offset, length;
    } range = {(uint64_t)offset, (uint64_t)length};
    struct {
        uint64_t cached, dirty, written_back, evicted, recently_evicted;
    } pages;

    if (fstatfs(fd_of(file), &volume) != 0)
        return errno;
    if (!can_count_cached(&volume))
        return ENOTSUP;
    if (syscall(CACHESTAT, fd_of(file), &range, &pages, 0) != 0)
        return errno;
    *out = (int64_t)(pages.cached + pages.evicted);
    return 0;
#else
    (void)file;
    (void)offset;
    (void)length;
    (void)out;
    return ENOTSUP;
#endif
}

int mf_evict(const mf_file *file, char *base, size_t length)
{
#if defined(__APPLE__)
    (void)file;
    return msync(base, length, MS_SYNC | MS_INVALIDATE) == 0 ? 0 : errno;
#elif _POSIX_ADVISORY_INFO <= 0
    (void)file;
    (void)base;
    (void)length;
    return ENOTSUP;
#else
    (void)base;
    (void)length;
    /* It returns the error, and does not set errno. */
    return posix_fadvise(fd_of(file), 0, 0, POSIX_FADV_DONTNEED);
#endif
}
