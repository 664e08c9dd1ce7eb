/* A library for LD_PRELOAD that imitates file systems without O_TMPFILE. With NO_LINKS in the
 * environment, hard links fail too. With NO_RENAMES, renameat2 fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_next(const char *name, const char *path, int flags, mode_t mode)
{
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, name);

    if ((flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return next(path, flags, mode);
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...)      \
    {                                               \
        va_list rest;                               \
        mode_t mode;                                \
                                                    \
        va_start(rest, flags);                      \
        mode = va_arg(rest, mode_t);                \
        va_end(rest);                               \
        return open_next(#name, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int link(const char *from, const char *to)
{
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT,
                                                                                         "link");

    if (getenv("NO_LINKS") != NULL) {
        errno = EPERM;
        return -1;
    }
    return next(from, to);
}

long syscall(long number, ...)
{
    long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long given[6];
    va_list rest;
    int i;

    if (number == SYS_renameat2 && getenv("NO_RENAMES") != NULL) {
        errno = EINVAL;
        return -1;
    }
    va_start(rest, number);
    for (i = 0; i < 6; i++)
        given[i] = va_arg(rest, long);
    va_end(rest);
    return next(number, given[0], given[1], given[2], given[3], given[4], given[5]);
}
