/* The POSIX backend: mmap, munmap, msync. backend.h says what each function promises. */
#define _GNU_SOURCE /* fallocate, sync_file_range, O_PATH, process_vm_readv, mincore */
#define _DARWIN_C_SOURCE /* F_FULLFSYNC, F_PREALLOCATE */
#define _FILE_OFFSET_BITS 64

#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <stdio.h>
#include <time.h>
#ifdef __linux__
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <mach/mach_vm.h>
#include <sys/disk.h>
#include <sys/ioctl.h>
#elif defined(__FreeBSD__)
#include <sys/disk.h>
#include <sys/ioctl.h>
#endif
#include <unistd.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

static int fd_of(const mf_file *file)
{
    return (int)file->handle;
}

void mf_query_system(mf_system *out)
{
    out->page_size = (size_t)sysconf(_SC_PAGESIZE);
    out->granularity = out->page_size;
    out->interrupted = EINTR;
    out->not_supported = ENOTSUP;
    out->too_large = ENOMEM;
    out->over_quota = -1;
    out->bad_address = EFAULT;
    out->can_reserve = 1;
    out->has_sections = 0;
    out->guard_covers_all = 1;
#ifdef __APPLE__
    out->flush_reaches_device = 0; /* msync and fsync stop at the drive's cache: fsync(2), F_FULLFSYNC */
    out->sync_covers_maps = 0;
#else
    out->flush_reaches_device = 1;
    out->sync_covers_maps = 1;
#endif
}

/* What the offsets of maps of a file are multiples of, in bytes: files of huge pages have them for pages. */
static size_t granularity_of(int fd)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
#ifdef __linux__
    struct statfs volume;

    if (fstatfs(fd, &volume) == 0 && volume.f_type == HUGETLBFS_MAGIC)
        return (size_t)volume.f_bsize;
#else
    (void)fd;
#endif
    return page;
}

static int is_disk(mode_t mode)
{
#ifdef DIOCGMEDIASIZE
    return S_ISCHR(mode); /* FreeBSD has no others */
#else
    return S_ISBLK(mode);
#endif
}

/* How many bytes a disk has. */
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

/* Whether a file without blocks can be mapped: one that is empty, or all holes, can. Those of /proc and /sys look the same, and
 * cannot. */
static int try_page(int fd)
{
    size_t page = granularity_of(fd);
    void *base = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0);

    if (base == MAP_FAILED)
        return errno == EIO || errno == ENXIO ? ENODEV : errno;
    return munmap(base, page) == 0 ? 0 : errno;
}

/* What is known of a file that was just opened. */
enum { MAY_HAVE_BYTES, IS_EMPTY, IS_TO_BE_CUT };

/* Fills in out from a descriptor of ours; or closes it. */
static int take(int fd, int known, mf_file *out)
{
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
        size = known == MAY_HAVE_BYTES ? status.st_size : 0;
        if (known == MAY_HAVE_BYTES && status.st_blocks == 0)
            error = try_page(fd);
    } else if (is_disk(status.st_mode) && size_of_device(fd, &size) == 0) {
        device = 1;
        error = known == MAY_HAVE_BYTES ? 0 : ENODEV; /* nobody can */
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
    out->granularity = granularity_of(fd);
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
    error = take(fd, found == MF_EXISTING ? MAY_HAVE_BYTES : IS_EMPTY, out);
    if (error != 0 && found == MF_NEW && unlink(path) != 0)
        return error; /* of two errors, the first is the one to tell */
    return error;
}

/* Where the name of a file begins in its path. */
static const char *name_in(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash == NULL ? path : slash + 1;
}

int mf_create(const mf_char *path, mf_file *out, mf_char *temporary, size_t room)
{
    static const int flags = O_CLOEXEC | O_NOCTTY | O_RDWR;
    size_t folder = (size_t)(name_in(path) - path);
    struct stat status;
    int fd, number;

    if (lstat(path, &status) == 0)
        return EEXIST;
    if (errno != ENOENT)
        return errno;
    if (*name_in(path) == '\0' || folder + 64 > room)
        return ENOTSUP;
    temporary[0] = '\0';
#ifdef O_TMPFILE
    /* A file without a name: nothing is left of it when its maker is killed. */
    memcpy(temporary, path, folder);
    memcpy(temporary + folder, ".", 2);
    fd = open(temporary, flags | O_TMPFILE, 0666);
    temporary[0] = '\0';
    if (fd >= 0)
        return take(fd, IS_EMPTY, out);
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return errno;
#endif
    for (number = 0; number < 100; number++) {
        memcpy(temporary, path, folder);
        snprintf(temporary + folder, room - folder, ".mappedfile-%d-%llx-%d", (int)getpid(),
                 (unsigned long long)mf_milliseconds(), number);
        fd = open(temporary, flags | O_CREAT | O_EXCL, 0666);
        if (fd >= 0)
            return take(fd, IS_EMPTY, out);
        if (errno != EEXIST)
            break;
    }
    temporary[0] = '\0';
    return errno;
}

int mf_publish(const mf_file *file, mf_char *temporary, const mf_char *path)
{
    int error = 0;

    if (temporary[0] == '\0') {
        char self[64];

        snprintf(self, sizeof self, "/proc/self/fd/%d", fd_of(file));
        return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno; /* open(2), O_TMPFILE */
    }
    if (link(temporary, path) == 0)
        return unlink(temporary) == 0 ? 0 : errno;
    error = errno;
    if (error == EPERM || error == EOPNOTSUPP || error == ENOTSUP || error == ENOSYS || error == EMLINK) {
        /* A file system without hard links. */
#if defined(__linux__) && defined(SYS_renameat2)
        error = syscall(SYS_renameat2, AT_FDCWD, temporary, AT_FDCWD, path, 1 /* RENAME_NOREPLACE */) == 0 ? 0 : errno;
#elif defined(RENAME_EXCL)
        error = renamex_np(temporary, path, RENAME_EXCL) == 0 ? 0 : errno;
#endif
    }
    return error;
}

int mf_duplicate(intptr_t handle, int access, int found, mf_file *out)
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
    return take(fd, found == MF_EMPTIED ? IS_TO_BE_CUT : MAY_HAVE_BYTES, out);
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

/* Writes zeros at the end of a file, where nothing of anybody's is written over; reached moves on with it. */
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
    /* Not posix_fallocate: glibc's emulates by reading and writing a byte of every block. */
    error = fallocate(fd, 0, (off_t)offset, (off_t)length) == 0 ? 0 : errno;
#elif defined(__APPLE__)
    fstore_t request = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, length, 0};
    error = fcntl(fd, F_PREALLOCATE, &request) != -1 ? 0 : errno;
    if (error == 0) /* F_PREALLOCATE leaves the size alone */
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

/* Tmpfs starts a fallocate anew that a signal came to, and gives up what it had: so each piece that is interrupted is followed by
 * a smaller one. */
enum { LARGEST_PIECE = 1 << 28, SMALLEST_PIECE = 1 << 16, ZEROS = 1 << 24 };

static int allocate_piece(int fd, mf_growth *growth)
{
    int64_t left = growth->grown - growth->reached;
    int64_t piece = growth->step == 0 ? LARGEST_PIECE : growth->step;
    int error;

    if (piece > left)
        piece = left;
    error = allocate_blocks(fd, growth->reached, piece);
    if (error == 0) {
        growth->reached += piece;
    } else if (error == EINTR) {
        growth->step = piece / 2 > SMALLEST_PIECE ? piece / 2 : SMALLEST_PIECE;
    } else if (error == EOPNOTSUPP || error == ENOTSUP || error == ENOSYS) {
        /* The file system cannot: zeros have their blocks too. */
        error = write_zeros(fd, &growth->reached, growth->reached + (left < ZEROS ? left : ZEROS));
    }
    return error;
}

int mf_grow(const mf_file *file, mf_growth *growth, mf_section *out)
{
    int fd = fd_of(file);
    int64_t page = (int64_t)sysconf(_SC_PAGESIZE);
    int64_t tail = growth->size + (page - growth->size % page) % page;
    int error = 0;

    if (tail > growth->grown)
        tail = growth->grown;
    /* What a map wrote behind the end of the file, in its last page, shows once the file is longer: tmpfs keeps it. */
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
        return error; /* of two errors, the first is the one to tell */
    }
    return error;
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

/* The fault guard's list of maps: how handlers find the map that an address is in, without a lock.
 *
 * Writers take turns. Whoever takes a map out waits until no handler is on the list any more: a handler stays there for some
 * microseconds, whatever else the process does. */
static mf_word first_map, last_hit, handlers;
static atomic_flag writing = ATOMIC_FLAG_INIT;
static uintptr_t page_size;

static mf_mapping *map_at(uintptr_t address)
{
    return (mf_mapping *)address;
}

static void lock_list(void)
{
    while (atomic_flag_test_and_set(&writing))
        sched_yield();
}

static void unlock_list(void)
{
    atomic_flag_clear(&writing);
}

static atomic_int process; /* 0: not asked for yet */

/* In a forked child, where other threads are no more. */
static void start_anew(void)
{
    handlers = 0;
    process = 0;
    unlock_list();
}

static int not_ready;

static void get_ready(void)
{
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    not_ready = pthread_atfork(lock_list, unlock_list, start_anew);
}

/* What there has to be before the list is used, or the error that keeps it from being. */
static int ready(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int error = WITHOUT_GUARD ? 0 : pthread_once(&once, get_ready);

    return error != 0 ? error : not_ready;
}

int mf_process(void)
{
    int known = process;

    if (known != 0)
        return known;
    known = (int)getpid();
    if (ready() == 0 && !WITHOUT_GUARD) /* a child forgets it */
        process = known;
    return known;
}

static void put_on_list(mf_mapping *map)
{
    map->self = (uintptr_t)map;
    if (WITHOUT_GUARD)
        return;
    lock_list();
    map->previous = 0;
    map->next = first_map;
    if (first_map != 0)
        map_at(first_map)->previous = map->self;
    first_map = map->self;
    unlock_list();
}

static void take_off_list(mf_mapping *map)
{
    if (WITHOUT_GUARD || map->self == 0)
        return;
    lock_list();
    if (map->next != 0)
        map_at(map->next)->previous = map->previous;
    if (map->previous != 0)
        map_at(map->previous)->next = map->next;
    else
        first_map = map->next;
    if (last_hit == map->self)
        last_hit = 0;
    unlock_list();
    map->self = 0;
    while (handlers != 0)
        sched_yield();
}

/* How much address space a map takes. In whole pages of the file: munmap wants that where they are huge. */
static size_t extent(const mf_file *file, size_t length, size_t reserved)
{
    size_t unit = file == NULL ? 1 : file->granularity, size = reserved > length ? reserved : length;

    return size + (unit - size % unit) % unit;
}

static int protection(int access)
{
    return access == MF_READ ? PROT_READ : PROT_READ | PROT_WRITE;
}

int mf_map(mf_file *file, const mf_section *section, int access, int64_t offset, size_t length, mf_mapping *out)
{
    int flags = access == MF_COPY ? MAP_PRIVATE : MAP_SHARED;
    int error = ready();
    void *base;

    (void)section;
    if (error != 0)
        return error;
    if (access == MF_COPY)
        flags |= MAP_NORESERVE; /* or Linux counts all of it as memory, written to or not: proc(5), overcommit_memory */
    base = mmap(NULL, extent(file, length, out->reserved), protection(access), flags, fd_of(file), (off_t)offset);
    if (base == MAP_FAILED)
        return errno;
    out->base = base;
    out->length = length;
    out->file = file;
    out->copier = NULL;
    out->access = access;
    out->lost_from = UINTPTR_MAX;
    out->lost_to = 0;
    put_on_list(out);
    mf_add(&file->maps, 1);
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

    take_off_list(map);
    moved = mremap(map->base, extent(map->file, map->length, map->reserved), extent(map->file, grown, 0), MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) {
        error = errno;
    } else {
        map->base = moved;
        map->length = grown;
    }
    put_on_list(map);
    return error;
#else
    (void)map;
    (void)grown;
    return ENOTSUP;
#endif
}

int mf_unmap(mf_mapping *map)
{
    if (map->base == NULL)
        return EINVAL;
    take_off_list(map);
    map->error = munmap(map->base, extent(map->file, map->length, map->reserved)) == 0 ? 0 : errno;
    map->base = NULL;
    if (map->file != NULL)
        mf_add(&map->file->maps, -1);
    return map->error;
}

/* Length 0 reaches to the end of the file. MS_ASYNC would start nothing since Linux 2.6.19: msync(2), NOTES. */
static int start_write_back(int fd, int64_t offset, int64_t length)
{
#ifdef SYNC_FILE_RANGE_WRITE
    struct statfs status;

    /* On overlayfs sync_file_range succeeds and starts nothing. This is passed on to the file beneath, and starts the same; clean
     * pages that nobody has mapped leave memory. */
    if (fstatfs(fd, &status) == 0 && status.f_type == OVERLAYFS_SUPER_MAGIC)
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
    if (errno != ENOTSUP && errno != EINVAL && errno != ENOTTY) /* file systems without it: fsync is all they have */
        return errno;
#endif
    return fsync(fd) == 0 ? 0 : errno;
}

/* The fault guard. SIGBUS comes for a page that a map has and its file has not: the file was cut short, the disk behind a hole
 * is full, the device failed. journald's answer is ours: zeros in its place, and a mark. */

/* Who got SIGBUS before. Somebody who takes it after the guard may give it back to the handler that he found there, and raise it
 * anew: faulthandler does. So each time that the guard is put on top of somebody it is another handler, which knows its own
 * predecessor. */
enum { LEVELS = 4 };
static struct sigaction predecessors[LEVELS];

static void raise_bound(mf_word *bound, uintptr_t value)
{
    uintptr_t old = *bound;

    while (old < value && !mf_replace(bound, &old, value))
        ;
}

static void lower_bound(mf_word *bound, uintptr_t value)
{
    uintptr_t old = *bound;

    while (old > value && !mf_replace(bound, &old, value))
        ;
}

static int has(const mf_mapping *map, uintptr_t address)
{
    return address - (uintptr_t)map->base < (map->length + page_size - 1) / page_size * page_size;
}

/* Where si_code tells (Linux), a fault is one. macOS says the same of a signal that was sent, and of a write to what is read-only
 * (XNU: sendsig, ux_exception): there a page that can be read is not missing, whoever says so. */
#if defined(__APPLE__) || defined(UNTRUSTED_CODES)
enum { CODES_TELL = 0 };
#else
enum { CODES_TELL = 1 };
#endif
enum { RETRIES = 1000 };
static mf_word retries; /* since a page was mended */

static int can_read(const char *page)
{
#if defined(__APPLE__)
    char byte;
    mach_vm_size_t done = 0;

    return mach_vm_read_overwrite(mach_task_self(), (mach_vm_address_t)page, 1, (mach_vm_address_t)&byte, &done) ==
               KERN_SUCCESS &&
           done == 1;
#elif defined(__linux__)
    char byte;
    struct iovec from = {(void *)(uintptr_t)page, 1}, to = {&byte, 1};

    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
#else
    (void)page;
    return 0;
#endif
}

/* Puts a copy in the place of a page that can be read and not be written: a full disk has it, where the page has holes or the file
 * system writes to another place. The system copies, since it minds no fault. */
static int put_copy(char *page)
{
#ifdef __linux__
    struct iovec from = {page, page_size}, to = {NULL, page_size};

    if (!can_read(page))
        return 0;
    to.iov_base = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (to.iov_base == MAP_FAILED)
        return 0;
    if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)page_size &&
        mremap(to.iov_base, page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page)
        return 1;
    munmap(to.iov_base, page_size);
#else
    (void)page;
#endif
    return 0;
}

/* Puts a page of ours where the address is, if that is in a map of ours: what can be read, or zeros. Read-only maps stay that. */
static int put_page(uintptr_t address)
{
    mf_mapping *map;
    char *page = NULL;
    size_t start;
    int access = MF_READ;

    handlers++;
    map = map_at(last_hit);
    if (map == NULL || !has(map, address))
        for (map = map_at(first_map); map != NULL && !has(map, address); map = map_at(map->next))
            ;
    if (map != NULL && !CODES_TELL) {
        start = (address - (uintptr_t)map->base) / page_size * page_size;
        if (can_read(map->base + start)) {
            /* Another thread may have mended it just now: the access is made again. But not for ever. */
            int again = start >= map->lost_from && start < map->lost_to && mf_add(&retries, 1) < RETRIES;

            handlers--;
            return again;
        }
        retries = 0;
    }
    if (map != NULL) {
        start = (address - (uintptr_t)map->base) / page_size * page_size;
        page = map->base + start;
        access = map->access;
        last_hit = map->self;
        /* The mark comes first: who sees the zeros can see it. */
        map->file->faults++;
        lower_bound(&map->lost_from, start);
        raise_bound(&map->lost_to, start + page_size);
    }
    handlers--; /* before the system is asked, which may take its time */
    if (page == NULL)
        return 0;
    if (access != MF_READ && put_copy(page))
        return 1;
    return mmap(page, page_size, protection(access), MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page;
}

/* Whether a page could not be had, rather than that somebody sent the signal or an address was misaligned. */
static int is_missing_page(const siginfo_t *info)
{
#ifdef BUS_MCEERR_AR
    /* Broken memory that somebody used is one; a mere report of some (BUS_MCEERR_AO) is not. */
    return info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR || info->si_code == BUS_MCEERR_AR;
#else
    return info->si_addr != NULL;
#endif
}

/* Whether the interrupted instruction raised the signal: it will again, and nobody can have it ignored. */
static int comes_again(const siginfo_t *info)
{
#ifdef BUS_MCEERR_AO
    return info->si_code > 0 && info->si_code != BUS_MCEERR_AO; /* sigaction(2): what users send is not positive */
#else
    return info->si_addr != NULL;
#endif
}

/* These two are no handlers, whatever SA_SIGINFO says. */
static int is_default(const struct sigaction *action)
{
    return action->sa_handler == SIG_DFL;
}

static int is_ignored(const struct sigaction *action)
{
    return action->sa_handler == SIG_IGN;
}

/* Acts as the system or the predecessor would have, had there been no guard. */
static void pass_on(struct sigaction *predecessor, int number, siginfo_t *info, void *context)
{
    static const struct sigaction by_default = {.sa_handler = SIG_DFL};
    struct sigaction to = *predecessor;
#ifdef __OpenBSD__
    sigset_t mask = ((ucontext_t *)context)->sc_mask;
#else
    sigset_t mask = ((ucontext_t *)context)->uc_sigmask;
#endif
    int other;

    if ((to.sa_flags & (int)SA_RESETHAND) != 0)
        *predecessor = by_default;
    if (is_ignored(&to) && !comes_again(info))
        return;
    if (is_ignored(&to) || is_default(&to)) {
        sigaction(number, &by_default, NULL);
        if (!comes_again(info))
            raise(number); /* blocked until the handler returns */
        return;
    }
    for (other = 1; other < NSIG; other++)
        if (sigismember(&to.sa_mask, other) == 1 || (other == number && !(to.sa_flags & SA_NODEFER)))
            sigaddset(&mask, other);
    pthread_sigmask(SIG_SETMASK, &mask, NULL); /* until the handler returns */
    if (to.sa_flags & SA_SIGINFO)
        to.sa_sigaction(number, info, context);
    else
        to.sa_handler(number);
}

static void on_fault(int level, int number, siginfo_t *info, void *context)
{
    int error = errno;

    if (!is_missing_page(info) || !put_page((uintptr_t)info->si_addr))
        pass_on(&predecessors[level], number, info, context);
    errno = error;
}

#define LEVEL(n)                                                      \
    static void on_fault_##n(int number, siginfo_t *info, void *context) \
    {                                                                 \
        on_fault(n, number, info, context);                           \
    }
LEVEL(0)
LEVEL(1)
LEVEL(2)
LEVEL(3)

static void (*const on_faults[LEVELS])(int, siginfo_t *, void *) = {on_fault_0, on_fault_1, on_fault_2, on_fault_3};

/* The level of an action, or -1 when it is not the guard's. */
static int level_of(const struct sigaction *action)
{
    int level = LEVELS - 1;

    while (level >= 0 && !(action->sa_flags & SA_SIGINFO && action->sa_sigaction == on_faults[level]))
        level--;
    return level;
}

static int same(const struct sigaction *one, const struct sigaction *other)
{
    if ((one->sa_flags & SA_SIGINFO) != (other->sa_flags & SA_SIGINFO))
        return 0;
    return one->sa_flags & SA_SIGINFO ? one->sa_sigaction == other->sa_sigaction : one->sa_handler == other->sa_handler;
}

int mf_guarded(void)
{
    struct sigaction now;

    return sigaction(SIGBUS, NULL, &now) == 0 && level_of(&now) >= 0;
}

int mf_guard(void)
{
    static int levels; /* of those that were used */
    struct sigaction now, ours = {0};
    int level, error = ready();

    if (error != 0)
        return error;
    lock_list();
    if (sigaction(SIGBUS, NULL, &now) != 0)
        error = errno;
    if (error == 0 && level_of(&now) < 0) {
        for (level = 0; level < levels && !same(&predecessors[level], &now); level++)
            ;
        if (level == LEVELS) {
            error = EAGAIN;
        } else {
            predecessors[level] = now;
            ours.sa_sigaction = on_faults[level];
            ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
            /* What is sent interrupts a system call if it would have without us. */
            ours.sa_flags |= is_ignored(&now) ? SA_RESTART : now.sa_flags & SA_RESTART;
            sigfillset(&ours.sa_mask); /* who jumps out of a handler of his must not jump out of this one */
            if (sigaction(SIGBUS, &ours, NULL) != 0)
                error = errno;
            else if (level == levels)
                levels++;
        }
    }
    unlock_list();
    return error;
}

int mf_copy(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step, size_t count)
{
    (void)map;
    mf_move(to, to_step, from, from_step, count);
    return 0;
}

int mf_search(mf_mapping *map, mf_searcher *search, const void *haystack, size_t length, const void *needle,
              size_t needle_length, size_t *end, int64_t *out)
{
    (void)map;
    *out = search(haystack, length, needle, needle_length, end);
    return 0;
}

/* What one system has and another has not. Linux' numbers are spelled out too: headers may be older than the kernel. */
static int advice_of(int kind)
{
    switch (kind) {
    case MF_NORMAL:
        return MADV_NORMAL;
    case MF_SEQUENTIAL:
        return MADV_SEQUENTIAL;
    case MF_RANDOM:
        return MADV_RANDOM;
    case MF_WILLNEED:
        return MADV_WILLNEED;
    case MF_DONTNEED:
        return MADV_DONTNEED;
#ifdef __linux__
    case MF_COLD:
        return 20; /* MADV_COLD: Linux 5.4 */
    case MF_PAGEOUT:
        return 21; /* MADV_PAGEOUT: Linux 5.4 */
    case MF_HUGEPAGE:
        return MADV_HUGEPAGE;
    case MF_NOHUGEPAGE:
        return MADV_NOHUGEPAGE;
    case MF_POPULATE_READ:
        return 22; /* MADV_POPULATE_READ: Linux 5.14 */
    case MF_POPULATE_WRITE:
        return 23; /* MADV_POPULATE_WRITE: Linux 5.14 */
#endif
    default:
        return -1;
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
    /* EINVAL is said of pages that are locked, too; of no pages only when the kernel does not know the kind. */
    return error == EINVAL && madvise(base, 0, advice) != 0 ? ENOTSUP : error;
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
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (length + page - 1) / page;
    size_t at;

#ifdef __OpenBSD__
    (void)base;
    (void)out;
    (void)at;
    return pages == 0 ? 0 : ENOTSUP; /* it took mincore out: it told of other processes */
#else
    if (mincore(base, length, (void *)out) != 0)
        return errno;
    for (at = 0; at < pages; at++)
        out[at] = (char)(out[at] & 1); /* the other bits are Linux' to use, and in use on macOS */
    return 0;
#endif
}

int mf_tells_residency(const mf_file *file, int *out)
{
#ifdef __linux__
    /* A page that is far past the end of the file is not in memory, whatever is said of it. Near the end it may be: what
     * Linux keeps of a file it keeps in larger pieces. */
    const off_t far = 1 << 30;
    size_t page = file->granularity;
    unsigned char there = 0;
    struct stat status;
    void *base;
    int error;

    if (fstat(fd_of(file), &status) != 0)
        return errno;
    base = mmap(NULL, page, PROT_READ, MAP_SHARED, fd_of(file), status.st_size / far * far + 2 * far);
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

int mf_count_cached(const mf_file *file, int64_t offset, int64_t length, int64_t *out)
{
#if defined(__linux__) && !defined(__alpha__)
    /* cachestat: Linux 6.5, and not in every libc. It counts the pages of the file that is open, and a file system on top of
     * another, as overlay, maps those of a file below: so it is asked where it is known that they are the same. */
    static const uint32_t known[] = {0xEF53 /* ext4 */, 0x58465342 /* XFS */, 0x9123683E /* btrfs */, 0x01021994 /* tmpfs */};
    struct statfs volume;
    size_t at;
    struct {
        uint64_t offset, length;
    } range = {(uint64_t)offset, (uint64_t)length};
    struct {
        uint64_t cached, dirty, written_back, evicted, recently_evicted;
    } found;

    if (fstatfs(fd_of(file), &volume) != 0)
        return errno;
    for (at = 0; (uint32_t)volume.f_type != known[at]; at++)
        if (at + 1 == sizeof known / sizeof known[0])
            return ENOTSUP;
    if (syscall(451, fd_of(file), &range, &found, 0) != 0)
        return errno;
    *out = (int64_t)(found.cached + found.evicted);
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
    return posix_fadvise(fd_of(file), 0, 0, POSIX_FADV_DONTNEED); /* returns the error, and leaves errno alone */
#endif
}
