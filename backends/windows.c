/* The Windows backend: CreateFileMapping, MapViewOfFile, UnmapViewOfFile, FlushViewOfFile,
 * CloseHandle. The fault guard is in windows_guard.c. backend.h says what each function promises.
 * kernel32 is the only import. Functions that Windows before 10 version 1803 lacks are looked up at
 * run time. */
#include "windows_private.h"

#include <psapi.h>
#include <winioctl.h>
#include <stdio.h>
#include <wchar.h>

#define ABSENT ((intptr_t)-1)

static HANDLE handle_of(intptr_t value)
{
    return (HANDLE)value;
}

/* Rounds up to whole pages. */
static size_t round_up(size_t length)
{
    return mf_round_up(length, get_page_size());
}

/* The protection for sections and placeholders. */
static DWORD protection_of(int access)
{
    static const DWORD protections[] = {PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY};

    return protections[access];
}

/* A placeholder is reserved address space, which views can replace piece by piece: VirtualAlloc2,
 * reference. */
#ifndef MEM_RESERVE_PLACEHOLDER
#define MEM_COALESCE_PLACEHOLDERS 0x00000001
#define MEM_PRESERVE_PLACEHOLDER 0x00000002
#define MEM_REPLACE_PLACEHOLDER 0x00004000
#define MEM_RESERVE_PLACEHOLDER 0x00040000
#endif
typedef void *(WINAPI *virtual_alloc_2)(HANDLE, void *, SIZE_T, ULONG, ULONG, void *, ULONG);
typedef void *(WINAPI *map_view_of_file_3)(HANDLE, HANDLE, void *, ULONG64, SIZE_T, ULONG, ULONG,
                                           void *, ULONG);

/* Returns a function of kernelbase.dll, or NULL. */
static FARPROC find_function(const char *name)
{
    HMODULE module = GetModuleHandleW(L"kernelbase.dll");

    return module == NULL ? NULL : GetProcAddress(module, name);
}

/* Splits a placeholder, or joins its pieces. */
static int reshape_placeholder(char *base, size_t size, DWORD how)
{
    return VirtualFree(base, size, MEM_RELEASE | how) ? 0 : last_error();
}

static int reserve_placeholder(size_t size, char **out)
{
    virtual_alloc_2 allocate = (virtual_alloc_2)(void (*)(void))find_function("VirtualAlloc2");
    void *base;

    if (allocate == NULL)
        return ERROR_NOT_SUPPORTED;
    base = allocate(GetCurrentProcess(), NULL, size, MEM_RESERVE | MEM_RESERVE_PLACEHOLDER,
                    PAGE_NOACCESS, NULL, 0);
    if (base == NULL)
        return last_error();
    *out = base;
    return 0;
}

/* Returns the end of the view or placeholder that begins at base; or base if none begins there. */
static char *allocation_end(char *base, DWORD *type)
{
    MEMORY_BASIC_INFORMATION info;
    char *end = base;

    while (VirtualQuery(end, &info, sizeof info) != 0 && info.AllocationBase == base) {
        *type = info.Type;
        end += info.RegionSize; /* one allocation has several regions if its pages differ in
                                   protection */
    }
    return end;
}

/* Releases adjacent views and placeholders. */
static int release_range(char *base, char *stop)
{
    int error = 0;

    while (base < stop) {
        DWORD type = 0;
        char *next = allocation_end(base, &type);
        BOOL done = type == MEM_MAPPED ? UnmapViewOfFile(base) : VirtualFree(base, 0, MEM_RELEASE);

        if (!done && error == 0)
            error = last_error();
        if (next == base)
            break; /* other code has released it: the memory behind it may belong to others */
        base = next;
    }
    return error;
}

/* Puts a view at the start of a placeholder. The placeholder ends where the reservation of the map
 * ends. */
static int replace_placeholder(const mf_section *section, int access, int64_t offset, char *base,
                               size_t length, size_t room)
{
    map_view_of_file_3 map = (map_view_of_file_3)(void (*)(void))find_function("MapViewOfFile3");
    size_t size = round_up(length);
    int error = map == NULL ? ERROR_NOT_SUPPORTED : 0;

    if (error == 0 && size < room)
        error = reshape_placeholder(base, size, MEM_PRESERVE_PLACEHOLDER);
    if (error != 0)
        return error;
    /* The length is exact. The reference asks for whole pages, but a view that reaches past the
     * section, to the end of its page, is refused. The system rounds up to the placeholder by
     * itself (Windows 10: simdjson, issue 2728). */
    if (map(handle_of(section->handle), GetCurrentProcess(), base, (ULONG64)offset, length,
            MEM_REPLACE_PLACEHOLDER, protection_of(access), NULL, 0) == NULL) {
        error = last_error();
        if (size < room)
            reshape_placeholder(base, room, MEM_COALESCE_PLACEHOLDERS);
    }
    return error;
}

/* Whether this Windows has placeholders: the functions exist, and a trial succeeds. */
static int can_reserve(void)
{
    size_t page = get_page_size();
    char *base;
    int split;

    if (find_function("MapViewOfFile3") == NULL || reserve_placeholder(2 * page, &base) != 0)
        return 0;
    split = reshape_placeholder(base, page, MEM_PRESERVE_PLACEHOLDER) == 0;
    return release_range(base, base + 2 * page) == 0 && split;
}

void mf_query_system(mf_system *out)
{
    SYSTEM_INFO info = get_system_info();

    out->page_size = info.dwPageSize;
    out->granularity = info.dwAllocationGranularity;
    out->interrupted = -1;
    out->not_supported = ERROR_NOT_SUPPORTED;
    out->too_large = ERROR_NOT_ENOUGH_MEMORY;
    out->over_quota = ERROR_WORKING_SET_QUOTA;
    out->bad_address = -1;
    out->invalid = ERROR_INVALID_PARAMETER;
    out->can_reserve = can_reserve();
    out->has_sections = 1;
    out->guard_covers_all = 0;
    /* FlushViewOfFile does not wait for the disk, and writes no metadata: FlushViewOfFile, Remarks.
     */
    out->flush_reaches_device = 0;
    out->sync_covers_maps = 0;
}

int mf_get_size(const mf_file *file, int64_t *out)
{
    LARGE_INTEGER size;

    if (!GetFileSizeEx(handle_of(file->handle), &size))
        return last_error();
    *out = size.QuadPart;
    return 0;
}

/* Size 0 stands for the size of the file. A larger size extends the file. */
static int make_section(const mf_file *file, DWORD protection, int64_t size, const wchar_t *tag,
                        HANDLE *out)
{
    DWORD high = (DWORD)((uint64_t)size >> 32);
    DWORD low = (DWORD)((uint64_t)size & 0xFFFFFFFFu);
    HANDLE section = CreateFileMappingW(handle_of(file->handle), NULL, protection, high, low, tag);

    if (section == NULL)
        return last_error();
    *out = section;
    return 0;
}

static int map_view(HANDLE section, DWORD rights, int64_t offset, size_t length, char **out)
{
    DWORD high = (DWORD)((uint64_t)offset >> 32);
    DWORD low = (DWORD)((uint64_t)offset & 0xFFFFFFFFu);
    void *base = MapViewOfFile(section, rights, high, low, length);

    if (base == NULL)
        return last_error();
    *out = base;
    return 0;
}

int mf_open_section(const mf_file *file, int access, mf_section *out)
{
    HANDLE section = INVALID_HANDLE_VALUE;
    int64_t size = 0, size_before;
    int error = mf_get_size(file, &size);

    /* The size of a section cannot be read, and others may be changing the file's size. A file with
     * a section cannot be truncated. So if the file has the same size before and after, that is the
     * size of the section. */
    while (error == 0 && size > 0) {
        size_before = size;
        error = make_section(file, protection_of(access), 0, NULL, &section);
        if (error == ERROR_FILE_INVALID) /* the file has become empty */
            error = 0;
        if (error == 0)
            error = mf_get_size(file, &size);
        if (error == 0 && size == size_before && section != INVALID_HANDLE_VALUE)
            break;
        if (section != INVALID_HANDLE_VALUE && !CloseHandle(section) && error == 0)
            error = last_error();
        section = INVALID_HANDLE_VALUE;
    }
    if (error == 0) {
        out->handle = (intptr_t)section;
        out->size = size;
    }
    return error;
}

int mf_open_memory(const mf_file *file, int access, int64_t size, const mf_char *tag,
                   mf_section *out)
{
    DWORD protection = file->handle == ABSENT ? PAGE_READWRITE : protection_of(access);
    HANDLE section;
    int error = file->handle == ABSENT ? 0 : mf_get_size(file, &size);

    if (error == 0) {
        SetLastError(0);
        error = make_section(file, protection, file->handle == ABSENT ? size : 0, tag, &section);
    }
    if (error == 0) {
        out->handle = (intptr_t)section;
        out->size = file->handle == ABSENT && last_error() == ERROR_ALREADY_EXISTS ? -1 : size;
    }
    return error;
}

/* A map may have written behind the end of the file, in its last page. These bytes would appear
 * when the file grows, so they are set to zero. This uses a map, since WriteFile moves the file
 * pointer, which a duplicated handle shares with the caller's. */
static int clear_tail(const mf_file *file, int64_t size)
{
    size_t length = (size_t)(size % (int64_t)get_granularity()); /* bytes of the last view */
    size_t behind = round_up(length) - length;
    HANDLE section = NULL;
    char *base = NULL;
    int error;

    if (behind == 0)
        return 0;
    error = make_section(file, PAGE_READWRITE, size, NULL, &section);
    if (error != 0)
        return error;
    error = map_view(section, FILE_MAP_WRITE, size - (int64_t)length, length, &base);
    if (error == 0) {
        memset(base + length, 0, behind);
        error = UnmapViewOfFile(base) ? 0 : last_error();
    }
    return CloseHandle(section) || error != 0 ? error : last_error();
}

/* A file that is not sparse gets its clusters when its size is set. */
static int make_sparse(const mf_file *file)
{
    DWORD written;

    if (!DeviceIoControl(handle_of(file->handle), FSCTL_SET_SPARSE, NULL, 0, NULL, 0, &written,
                         NULL))
        return last_error();
    return 0;
}

int mf_grow(const mf_file *file, mf_growth *growth, mf_section *out)
{
    HANDLE section = NULL;
    int error = clear_tail(file,
                           growth->size); /* first, since an error later could not be undone */

    if (error == 0 && !growth->allocate)
        error = make_sparse(file);
    if (error == 0)
        error = make_section(file, PAGE_READWRITE, growth->grown, NULL, &section);
    if (error == 0) {
        growth->reached = growth->grown;
        out->handle = (intptr_t)section;
        out->size = growth->grown;
    }
    return error;
}

int mf_remove(const mf_char *path)
{
    return DeleteFileW(path) ? 0 : last_error();
}

int mf_process(void)
{
    return (int)GetCurrentProcessId();
}

uintptr_t mf_forker(void)
{
    return 0; /* there is no fork */
}

int64_t mf_milliseconds(void)
{
    return (int64_t)GetTickCount64();
}

/* Fills in out from a new handle, and truncates the file to 0 bytes for MF_EMPTIED; or closes the
 * handle and returns the error. */
static int init_file(HANDLE handle, int disposition, mf_file *out)
{
    mf_file file = {.handle = (intptr_t)handle};
    int error = GetFileType(handle) == FILE_TYPE_DISK ? 0 : ERROR_NOT_SUPPORTED;

    /* Not CREATE_ALWAYS: that refuses hidden files, and drops attributes. */
    if (error == 0 && disposition == MF_EMPTIED)
        error = mf_set_size(&file, 0);
    if (error == 0) {
        error = mf_get_size(&file, &file.size);
        /* A disk such as \\.\PhysicalDrive0 gives these errors. It cannot have a section. */
        if (error == ERROR_INVALID_FUNCTION || error == ERROR_INVALID_PARAMETER)
            error = ERROR_NOT_SUPPORTED;
    }
    file.granularity = get_granularity();
    if (error == 0)
        *out = file;
    else
        CloseHandle(handle);
    return error;
}

static DWORD access_rights(int access)
{
    return access == MF_WRITE ? GENERIC_READ | GENERIC_WRITE : GENERIC_READ;
}

int mf_open(const mf_char *path, int access, int disposition, mf_file *out)
{
    static const DWORD dispositions[] = {OPEN_EXISTING, OPEN_ALWAYS, CREATE_NEW};
    DWORD sharing = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    HANDLE handle = CreateFileW(path, access_rights(access), sharing, NULL,
                                dispositions[disposition], FILE_ATTRIBUTE_NORMAL, NULL);
    int error;

    if (handle == INVALID_HANDLE_VALUE)
        return last_error();
    error = init_file(handle, disposition, out);
    if (error != 0 && disposition == MF_NEW)
        DeleteFileW(path);
    return error;
}

int mf_create(const mf_char *path, mf_file *out, mf_char *temporary, size_t room)
{
    size_t length = wcslen(path);
    DWORD number;
    int error;

    temporary[0] = L'\0';
    if (GetFileAttributesW(path) != INVALID_FILE_ATTRIBUTES)
        return ERROR_FILE_EXISTS;
    if (length + 40 > room)
        return ERROR_NOT_SUPPORTED;
    for (number = 0; number < MF_TEMPORARY_NAMES; number++) {
        wmemcpy(temporary, path, length);
        swprintf(temporary + length, room - length, L".%lx-%lx-%lx", GetCurrentProcessId(),
                 GetTickCount(), number);
        error = mf_open(temporary, MF_WRITE, MF_NEW, out);
        if (error != ERROR_FILE_EXISTS)
            break;
    }
    if (error != 0)
        temporary[0] = L'\0';
    return error;
}

int mf_publish(const mf_file *file, mf_char *temporary, const mf_char *path)
{
    (void)file;
    return MoveFileExW(temporary, path, 0) ? 0 : last_error();
}

int mf_duplicate(intptr_t handle, int access, int disposition, mf_file *out)
{
    HANDLE process = GetCurrentProcess();
    HANDLE copy;

    /* DuplicateHandle refuses rights that the original handle lacks: DuplicateHandle, Remarks. */
    if (!DuplicateHandle(process, handle_of(handle), process, &copy, access_rights(access), FALSE,
                         0))
        return last_error();
    return init_file(copy, disposition, out);
}

static int close_field(intptr_t *field)
{
    intptr_t value = *field;

    *field = ABSENT;
    return value == ABSENT || CloseHandle(handle_of(value)) ? 0 : last_error();
}

int mf_close(mf_file *file)
{
    return close_field(&file->handle);
}

int mf_close_section(mf_section *section)
{
    return close_field(&section->handle);
}

int mf_set_size(const mf_file *file, int64_t size)
{
    FILE_END_OF_FILE_INFO info;

    info.EndOfFile.QuadPart = size;
    if (!SetFileInformationByHandle(handle_of(file->handle), FileEndOfFileInfo, &info, sizeof info))
        return last_error();
    return 0;
}

static int map_reserving(const mf_section *section, int access, int64_t offset, size_t length,
                         size_t reserved, char **out)
{
    size_t room = round_up(reserved);
    char *base = NULL;
    int error = reserve_placeholder(room, &base);

    if (error != 0)
        return error;
    error = replace_placeholder(section, access, offset, base, length, room);
    if (error == 0)
        *out = base;
    else if (release_range(base, base + room) != 0)
        return error; /* of two errors, the first is returned */
    return error;
}

int mf_map(mf_file *file, const mf_section *section, int access, int64_t offset, size_t length,
           mf_mapping *out)
{
    static const DWORD rights[] = {FILE_MAP_READ, FILE_MAP_READ | FILE_MAP_WRITE, FILE_MAP_COPY};
    char *base = NULL;
    int error;

    if (out->reserved <= length)
        out->reserved = 0; /* one view */
    if (out->reserved != 0)
        error = map_reserving(section, access, offset, length, out->reserved, &base);
    else
        error = map_view(handle_of(section->handle), rights[access], offset, length, &base);
    if (error == 0)
        mf_fill_mapping(out, file, base, length, access);
    return error;
}

int mf_remap(mf_mapping *map, size_t grown)
{
    (void)map;
    (void)grown;
    return ERROR_NOT_SUPPORTED;
}

int mf_extend(mf_mapping *map, const mf_section *section, int64_t offset, size_t grown)
{
    size_t there = round_up(map->length), room = round_up(map->reserved);
    int error = 0;

    if (grown > there) /* the last page is already mapped as a whole */
        error = replace_placeholder(section, map->access, offset + (int64_t)there,
                                    map->base + there, grown - there, room - there);
    if (error == 0)
        map->length = grown;
    return error;
}

int mf_unmap(mf_mapping *map)
{
    int error;

    if (map->base == NULL)
        return ERROR_INVALID_ADDRESS;
    if (map->reserved != 0)
        error = release_range(map->base, map->base + round_up(map->reserved));
    else
        error = UnmapViewOfFile(map->base) ? 0 : last_error();
    map->base = NULL;
    mf_add(&map->file->map_count, -1);
    return error;
}

/* Policy: retries of FlushViewOfFile. While the system writes the same pages, it fails with
 * ERROR_LOCK_VIOLATION. Each pause is twice as long as the one before: 511 milliseconds in all.
 * Then the error is returned. */
enum { FIRST_PAUSE = 1, LAST_PAUSE = 256 }; /* milliseconds */

static int flush_view(char *base, size_t length)
{
    DWORD pause;

    for (pause = FIRST_PAUSE; !FlushViewOfFile(base, length); pause *= 2) {
        int error = last_error();
        if (error != ERROR_LOCK_VIOLATION || pause > LAST_PAUSE)
            return error;
        Sleep(pause);
    }
    return 0;
}

/* Calls a function for each view. A map that was extended has several views, and system calls take
 * only one. */
static int for_each_view(char *base, size_t length, int (*call)(char *, size_t))
{
    char *stop = base + length;
    int error = 0;

    while (error == 0 && base < stop) {
        MEMORY_BASIC_INFORMATION info;
        char *next = stop;

        if (VirtualQuery(base, &info, sizeof info) == 0)
            return last_error();
        if ((char *)info.BaseAddress + info.RegionSize < stop)
            next = (char *)info.BaseAddress + info.RegionSize;
        error = call(base, (size_t)(next - base));
        base = next;
    }
    return error;
}

int mf_flush(const mf_file *file, char *base, size_t length, int64_t offset, int wait)
{
    (void)file;
    (void)offset;
    (void)wait;
    return for_each_view(base, length, flush_view);
}

int mf_sync(const mf_file *file, int wait)
{
    /* Without wait there is nothing to do: FlushViewOfFile has already started write-back. */
    return !wait || FlushFileBuffers(handle_of(file->handle)) ? 0 : last_error();
}

/* PrefetchVirtualMemory is new in Windows 8. A program that imports it does not start on older
 * systems, so it is looked up. */
static int prefetch(char *base, size_t length)
{
    typedef BOOL(WINAPI * prefetcher)(HANDLE, ULONG_PTR, WIN32_MEMORY_RANGE_ENTRY *, ULONG);
    FARPROC function = GetProcAddress(GetModuleHandleW(L"kernel32.dll"), "PrefetchVirtualMemory");
    WIN32_MEMORY_RANGE_ENTRY range = {base, length};

    if (function == NULL)
        return ERROR_NOT_SUPPORTED;
    if (length == 0 || ((prefetcher)(void (*)(void))function)(GetCurrentProcess(), 1, &range, 0))
        return 0;
    return last_error();
}

static int unlock_view(char *base, size_t length)
{
    int error = VirtualUnlock(base, length) ? 0 : last_error();

    return error == ERROR_NOT_LOCKED ? 0 : error;
}

int mf_unlock(char *base, size_t length)
{
    return for_each_view(base, length, unlock_view);
}

int mf_advise(char *base, size_t length, int kind)
{
    switch (kind) {
    case MF_WILLNEED:
        return length == 0 ? prefetch(base, 0) : for_each_view(base, length, prefetch);
    case MF_DONTNEED:
        /* VirtualUnlock removes pages that are not locked from the working set: VirtualUnlock,
         * Remarks. */
        return mf_unlock(base, length);
    default: return ERROR_NOT_SUPPORTED;
    }
}

int mf_madvise(char *base, size_t length, int advice)
{
    int error = mf_advise(base, length, advice);

    return error == ERROR_NOT_SUPPORTED ? 0 : error;
}

int mf_set_name(char *base, size_t length, const char *name)
{
    (void)base;
    (void)length;
    (void)name;
    return ERROR_NOT_SUPPORTED;
}

int mf_constant(int number, const char **name, int *value)
{
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"MADV_NORMAL", MADV_NORMAL},
        {"MADV_RANDOM", MADV_RANDOM},
        {"MADV_SEQUENTIAL", MADV_SEQUENTIAL},
        {"MADV_WILLNEED", MADV_WILLNEED},
        {"MADV_DONTNEED", MF_DONTNEED},
        {"MAP_SHARED", MAP_SHARED},
        {"MAP_PRIVATE", MAP_PRIVATE},
        {"MAP_ANON", MAP_ANONYMOUS},
        {"MAP_ANONYMOUS", MAP_ANONYMOUS},
        {"PROT_READ", PROT_READ},
        {"PROT_WRITE", PROT_WRITE},
        {"PROT_EXEC", PROT_EXEC},
        {"MS_ASYNC", MS_ASYNC},
        {"MS_INVALIDATE", MS_INVALIDATE},
        {"MS_SYNC", MS_SYNC},
    };

    if (number < 0 || (size_t)number >= sizeof constants / sizeof constants[0])
        return 0;
    *name = constants[number].name;
    *value = constants[number].value;
    return 1;
}

static int lock_view(char *base, size_t length)
{
    return VirtualLock(base, length) ? 0 : last_error();
}

int mf_lock(char *base, size_t length)
{
    return for_each_view(base, length, lock_view);
}

int mf_allow_locked(size_t more)
{
    HANDLE process = GetCurrentProcess();
    SIZE_T least, most;

    if (!GetProcessWorkingSetSize(process, &least, &most) ||
        !SetProcessWorkingSetSize(process, least + more, most + more))
        return last_error();
    return 0;
}

int mf_residency(char *base, size_t length, char *out)
{
    PSAPI_WORKING_SET_EX_INFORMATION pages[256];
    size_t page = get_page_size();
    size_t left, some, at;

    for (left = mf_round_up(length, page) / page; left > 0; left -= some) {
        some = left < 256 ? left : 256;
        for (at = 0; at < some; at++, base += page)
            pages[at].VirtualAddress = base;
        if (!K32QueryWorkingSetEx(GetCurrentProcess(), pages, (DWORD)(some * sizeof pages[0])))
            return last_error();
        for (at = 0; at < some; at++)
            *out++ = (char)(pages[at].VirtualAttributes.Flags & 1); /* Valid */
    }
    return 0;
}

int mf_residency_is_reliable(const mf_file *file, int *out)
{
    (void)file;
    *out = 1;
    return 0;
}

int mf_count_cached(const mf_file *file, int64_t offset, int64_t length, int64_t *out)
{
    (void)file;
    (void)offset;
    (void)length;
    (void)out;
    return ERROR_NOT_SUPPORTED;
}

int mf_evict(const mf_file *file, char *base, size_t length)
{
    (void)file;
    (void)base;
    (void)length;
    return ERROR_NOT_SUPPORTED;
}
