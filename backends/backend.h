/* The backend contract.
 *
 * Each system implements every function below, and exports nothing else: posix.c and posix_guard.c,
 * or windows.c and windows_guard.c. A function is one operation of the system. It returns 0, or the
 * system's error code (errno or GetLastError). The code is read before any clean-up call. After an
 * error the output arguments are unchanged. Arguments arrive validated: offsets are multiples of
 * the granularity; the addresses and lengths that mf_flush gets are whole pages inside one map. No
 * function allocates memory. Only the fault guard keeps state. The word Policy marks what a backend
 * decides by itself.
 *
 * build.py hands this file to cffi as it is, so it has no preprocessor directives. The types that
 * it needs come from native.h. */

/* An open file. handle is a descriptor, or a HANDLE on Windows; -1 when the file is closed. */
typedef struct {
    intptr_t handle;
    int64_t size;       /* bytes in the file when it was opened */
    size_t granularity; /* bytes: the offset of a map is a multiple of it. On huge pages it is
                           larger than the system's */
    int device;         /* it is a disk: its size cannot be changed */
    mf_word faults;     /* how many of its pages the fault guard has replaced */
    mf_word map_count;  /* how many maps of the file there are */
} mf_file;

/* The object from which Windows makes maps, for the size of the file at that time; -1 while the
 * file is empty. POSIX maps the file itself and uses no section. */
typedef struct {
    intptr_t handle;
    int64_t size; /* bytes in the file when the section was made: maps lie inside it */
} mf_section;

typedef struct mf_mapping mf_mapping;

/* Copies count bytes out of a map or into it. Each side advances by its step, which may be
 * negative. Where a page is gone it returns an error on Windows. On POSIX the guard puts zeros
 * there, and the copy goes on. */
typedef int mf_copier(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from,
                      ptrdiff_t from_step, size_t count);

/* One map and its state. From mf_map to mf_unmap neither this struct nor that of its file may move.
 */
struct mf_mapping {
    char *base;      /* NULL after mf_unmap */
    mf_word length;  /* bytes, as asked for; the system maps whole pages */
    size_t reserved; /* bytes of address space to reserve from base on: mf_extend can grow the map
                        to this length. 0: reserve no more than length. Set before mf_map */
    int chosen;      /* POSIX, set before mf_map. Nonzero: mmap gets flags and protection from this
                        struct. 0: they follow from access */
    int flags;
    int protection;
    uintptr_t self; /* the address of this struct while it is on the guard's list */
    mf_file *file;
    int access;
    /* Every page that is gone lies between these two, in bytes from base on. lost_to is 0 while no
     * page is gone, and it is set last. */
    mf_word lost_from;
    mf_word lost_to;
    mf_word next, previous; /* the guard's list */
};

/* The access of a map: how its memory may be used. */
enum {
    MF_READ = 0,  /* read, shared */
    MF_WRITE = 1, /* read and write, shared */
    MF_COPY = 2   /* read and write, private copy-on-write */
};

/* The disposition of mf_open: what to do when the file exists, and when it does not. */
enum {
    MF_EXISTING = 0, /* it must exist */
    MF_EMPTIED = 1,  /* it is created, or truncated to 0 bytes */
    MF_NEW = 2,      /* it is created and must not exist */
    MF_DEVICE = 3    /* it must exist, and may be a device (mf_duplicate on POSIX) */
};

/* The properties of the system. page_size and granularity are in bytes. The offset of a map is a
 * multiple of granularity. */
typedef struct {
    size_t page_size;
    size_t granularity;
    int interrupted;   /* the code for "a signal came, call again"; -1 where no call returns it */
    int not_supported; /* the code for "this system cannot" */
    int too_large;     /* the code for "no room in the address space" */
    int over_quota;    /* the code after which mf_allow_locked may help; -1 where there is none */
    int bad_address; /* the code for "a page of this range cannot be read"; -1 where no call returns
                        it */
    int invalid;     /* the code for "invalid argument" */
    int flush_reaches_device; /* mf_flush with wait set is durable. Where this is 0, mf_sync must
                                 follow */
    int can_reserve;          /* address space can be reserved behind a map, for mf_extend */
    int has_sections;         /* maps are made from a section, not from the file itself */
    int sync_covers_maps;     /* mf_sync also writes pages that are dirty in maps. Where this is 0,
                                 mf_flush must come first */
    int guard_covers_all;     /* the fault guard protects all code that touches a page that is gone.
                                 Where this is 0, it protects mf_copy and mf_search only */
} mf_system;

void mf_query_system(mf_system *out);

/* Opens a regular file or a disk by name. Child programs do not inherit the handle. On Windows it
 * shares the file for reading, writing and deleting. */
int mf_open(const mf_char *path, int access, int disposition, mf_file *out);

/* Duplicates the caller's handle: of a regular file, open for what access needs. Child programs do
 * not inherit the duplicate. MF_EMPTIED truncates the file to 0 bytes. The size of a device is -1.
 */
int mf_duplicate(intptr_t handle, int access, int disposition, mf_file *out);

/* Creates a file that gets its name from mf_publish. Until then it has no name, or a temporary one.
 * temporary receives that name, or an empty string; room is its size in characters. Some file
 * systems cannot do this. */
int mf_create(const mf_char *path, mf_file *out, mf_char *temporary, size_t room);

/* Gives such a file its name. No other file may have that name. */
int mf_publish(const mf_file *file, mf_char *temporary, const mf_char *path);

/* Removes the name of a file. */
int mf_remove(const mf_char *path);

/* Closes the handle. The field is -1 afterwards, also after an error. */
int mf_close(mf_file *file);
int mf_close_section(mf_section *section);

/* Looks up the size of the file. POSIX: fstat. Windows: GetFileSizeEx. */
int mf_get_size(const mf_file *file, int64_t *out);

/* Truncates the file, or extends it with a hole. Windows does not truncate while there is a
 * section. */
int mf_set_size(const mf_file *file, int64_t size);

/* Makes a section of the whole file. */
int mf_open_section(const mf_file *file, int access, mf_section *out);

/* Windows: makes a section of size bytes of memory without a file if the handle of the file is -1,
 * or a section of the whole file. tag may be NULL. Otherwise it is the section's name, by which
 * others find it. If a section of that name exists already, this opens it and sets its size to -1.
 * POSIX does nothing. */
int mf_open_memory(const mf_file *file, int access, int64_t size, const mf_char *tag,
                   mf_section *out);

/* The state of a growth: mf_grow is called again after a signal. */
typedef struct {
    int64_t size;    /* of the file before the growth, in bytes */
    int64_t grown;   /* of the file after it, in bytes */
    int64_t reached; /* the size so far; starts as size */
    int64_t step;    /* bytes for the next piece; starts as 0 */
    int allocate;    /* allocate the disk blocks, where the system can do that; 0: leave holes */
} mf_growth;

/* Extends the file with zeros, and makes a section of the whole. After each long piece it returns
 * the code for "interrupted", so that the caller can handle signals and call it again. The pieces
 * that are done stay done. After any other error the file has its old size; on Windows it may be
 * marked as sparse. */
int mf_grow(const mf_file *file, mf_growth *growth, mf_section *out);

/* Maps a range of the section, which is not empty; or memory without a file if the handle of the
 * file is -1. It reserves out->reserved bytes of address space with it. POSIX maps the whole
 * reservation: a map may reach past the end of the file, and works there once the file is longer.
 * The struct must not be mapped already. Neither it nor that of its file may move before mf_unmap,
 * since the fault guard uses their addresses. */
int mf_map(mf_file *file, const mf_section *section, int access, int64_t offset, size_t length,
           mf_mapping *out);

/* Makes a map longer. The map may move, and then its old address is invalid. Linux: mremap. Other
 * systems return the code for "not supported", and leave the map unchanged. */
int mf_remap(mf_mapping *map, size_t grown);

/* Makes a map longer in place, within its reservation; offset is where it starts in the file. POSIX
 * has nothing to do. Windows maps another view, right behind the others. */
int mf_extend(mf_mapping *map, const mf_section *section, int64_t offset, size_t grown);

/* Unmaps a map and its reservation. A struct that is not mapped is an error, without another
 * effect. */
int mf_unmap(mf_mapping *map);

/* Writes the pages of a map back to the file. With wait set, POSIX waits for the device (msync with
 * MS_SYNC); Windows needs mf_sync for that. Without wait, it starts write-back: by sync_file_range,
 * if the system has it and file is not NULL. offset is where the range starts in the file. */
int mf_flush(const mf_file *file, char *base, size_t length, int64_t offset, int wait);

/* Writes the file back. With wait set, it returns when data and size are on stable storage. Without
 * wait, it starts write-back, where the system can do that. */
int mf_sync(const mf_file *file, int wait);

/* Installs the fault guard; or installs it again, if other code has taken its place. From then on
 * the process survives when a page of a map is gone because the file was truncated or the device
 * failed. POSIX puts a page of zeros there (SIGBUS). On Windows mf_copy and mf_search return an
 * error (EXCEPTION_IN_PAGE_ERROR). On both, lost_from, lost_to and faults record it. A fault
 * outside the library's maps goes to the handler that was installed before. */
int mf_guard(void);

/* Whether the guard is installed. */
int mf_guarded(void);

/* The mf_copier of every map. */
int mf_copy(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step,
            size_t count);

/* Searches a part of a map with one of the functions of search.h. */
int mf_search(mf_mapping *map, mf_searcher *search, const void *haystack, size_t length,
              const void *needle, size_t needle_length, size_t *end, int64_t *out);

/* The kinds of mf_advise. */
enum {
    MF_NORMAL = 0,
    MF_SEQUENTIAL = 1,
    MF_RANDOM = 2,
    MF_WILLNEED = 3,
    MF_DONTNEED = 4,
    MF_COLD = 5,
    MF_PAGEOUT = 6,
    MF_HUGEPAGE = 7,
    MF_NOHUGEPAGE = 8,
    MF_POPULATE_READ = 9,
    MF_POPULATE_WRITE = 10
};

/* Stands for a hint that has no number on this system, for mf_madvise. */
enum { MF_NO_ADVICE = -1 };

/* Tells the system how whole pages of a map will be used. A kind that the system does not know is
 * ENOTSUP or ERROR_NOT_SUPPORTED. With length 0 it only asks whether the system knows the kind;
 * base can be anything then. */
int mf_advise(char *base, size_t length, int kind);

/* The same, with the system's own number for the advice, which is not checked. Windows has no such
 * numbers: there, advice is a kind of mf_advise, and one that it does not know has no effect. */
int mf_madvise(char *base, size_t length, int advice);

/* Names memory without a file. Linux shows the name in /proc/self/maps; other systems have none. */
int mf_set_name(char *base, size_t length, const char *name);

/* Gives the name and value of constant number of the header of mmap; numbers start at 0. Returns 0
 * past the last one. Windows has no such header: there, the list has the constants that also make
 * sense on Windows. */
int mf_constant(int number, const char **name, int *value);

/* Locks whole pages of a map in memory, until mf_unlock or mf_unmap. Locks do not nest. Unlocking
 * pages that are not locked is no error. */
int mf_lock(char *base, size_t length);
int mf_unlock(char *base, size_t length);

/* Raises the limit on locked memory by this many bytes. Windows: SetProcessWorkingSetSize. POSIX
 * returns the code for "not supported": a process cannot raise RLIMIT_MEMLOCK by itself. */
int mf_allow_locked(size_t more);

/* Writes a 1 into out for each page of a map that is in memory, and a 0 for each other page. POSIX:
 * in the page cache, whichever process read it. Windows: in the working set of this process. */
int mf_residency(char *base, size_t length, char *out);

/* Whether mf_residency is reliable for a file. Linux reports every page as being in memory if the
 * process neither owns the file nor may write to it: can_do_mincore in mm/mincore.c. */
int mf_residency_is_reliable(const mf_file *file, int *out);

/* Counts the pages of a range of the file that are in memory, or were recently, without a look at
 * each page. It is fast where the answer is 0. Only some systems and file systems can do this. */
int mf_count_cached(const mf_file *file, int64_t offset, int64_t length, int64_t *out);

/* Evicts the pages of a file from memory, except pages that are dirty or mapped. macOS needs a map
 * of the whole file for that. */
int mf_evict(const mf_file *file, char *base, size_t length);

/* The id of the process; the thread that forked it (pthread_self), which is the only one that
 * parent and child have, or 0; and a monotonic clock. */
int mf_process(void);
uintptr_t mf_forker(void);
int64_t mf_milliseconds(void);

/* The functions that the CPython types call. They get a copy of this table at import. */
typedef struct {
    mf_system system;
    int (*open)(const mf_char *path, int access, int disposition, mf_file *out);
    int (*duplicate)(intptr_t handle, int access, int disposition, mf_file *out);
    int (*create)(const mf_char *path, mf_file *out, mf_char *temporary, size_t room);
    int (*publish)(const mf_file *file, mf_char *temporary, const mf_char *path);
    int (*remove)(const mf_char *path);
    int (*close)(mf_file *file);
    int (*close_section)(mf_section *section);
    int (*get_size)(const mf_file *file, int64_t *out);
    int (*set_size)(const mf_file *file, int64_t size);
    int (*open_section)(const mf_file *file, int access, mf_section *out);
    int (*open_memory)(const mf_file *file, int access, int64_t size, const mf_char *tag,
                       mf_section *out);
    int (*grow)(const mf_file *file, mf_growth *growth, mf_section *out);
    int (*map)(mf_file *file, const mf_section *section, int access, int64_t offset, size_t length,
               mf_mapping *out);
    int (*remap)(mf_mapping *map, size_t grown);
    int (*extend)(mf_mapping *map, const mf_section *section, int64_t offset, size_t grown);
    int (*unmap)(mf_mapping *map);
    int (*flush)(const mf_file *file, char *base, size_t length, int64_t offset, int wait);
    int (*sync)(const mf_file *file, int wait);
    int (*guard)(void);
    mf_copier *copy;
    int (*search)(mf_mapping *map, mf_searcher *search, const void *haystack, size_t length,
                  const void *needle, size_t needle_length, size_t *end, int64_t *out);
    mf_searcher *find;
    mf_searcher *rfind;
    mf_searcher *count;
    int (*advise)(char *base, size_t length, int kind);
    int (*madvise)(char *base, size_t length, int advice);
    int (*set_name)(char *base, size_t length, const char *name);
    int (*lock)(char *base, size_t length);
    int (*unlock)(char *base, size_t length);
    int (*allow_locked)(size_t more);
    int (*process)(void);
    uintptr_t (*forker)(void);
    int64_t (*milliseconds)(void);
} mf_table;

void mf_fill_table(mf_table *out);
