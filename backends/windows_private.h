/* Shared by windows.c and windows_guard.c, which include it first: its macros affect the system's
 * headers. No other file includes it. */
#ifndef MAPPEDFILE_WINDOWS_PRIVATE_H
#define MAPPEDFILE_WINDOWS_PRIVATE_H

#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0602
#endif
#ifndef UNICODE
#define UNICODE
#endif
#define WIN32_LEAN_AND_MEAN

#include "native.h"

#include <windows.h>

static inline int last_error(void)
{
    return (int)GetLastError();
}

static inline SYSTEM_INFO get_system_info(void)
{
    SYSTEM_INFO info;

    GetSystemInfo(&info);
    return info;
}

/* The page size in bytes. */
static inline size_t get_page_size(void)
{
    return get_system_info().dwPageSize;
}

/* The granularity in bytes: the offset of a map is a multiple of it. */
static inline size_t get_granularity(void)
{
    return get_system_info().dwAllocationGranularity;
}

#endif
