/* The backend contract.
 *
 * A system's files have every function below, and nothing else is public: posix.c and
 * posix_guard.c, or windows.c and windows_guard.c. A function is one operation of the system. It
 * returns 0, or the system's error code (errno or GetLastError), read before any clean-up call;
 * what it was to fill in is then untouched. Arguments arrive validated: offsets are multiples of
 * the granularity, addresses and lengths handed to mf_flush are whole pages inside one map. Nothing
 * here allocates or, but for the fault guard, keeps state. What a system leaves a backend to decide
 * is marked with the word Policy there.
 *
 * build.py hands this file to cffi as it stands, so it has no directives; the types it needs come
 * from native.h.
 */

/* A file that is open: a descriptor; on Windows a HANDLE. -1 when it is not. */
typedef struct {
    intptr_t handle;
    int64_t size;       /* bytes in the file, when it was opened */
    size_t granularity; /* bytes: the offset of a map is a multiple of it. More than the system's
                           where pages are huge */
    int device;         /* it is a disk, which has the size that it has */
    mf_word faults; /* how often the fault guard had to put something in the place of its pages */
    mf_word maps;   /* how many there are */
} mf_file;

/* What maps are made from. Windows: the file mapping object, for the size that the file had then,
 * or -1 while the file was empty. POSIX maps from the file itself and looks at no section. */
typedef struct {
    intptr_t handle;
    int64_t size; /* bytes in the file when the section was made: maps lie inside */
} mf_section;

typedef struct mf_mapping mf_mapping;

/* Copies count bytes out of a map or into it. Each side moves on by its step, which may be
 * negative. Past pages that are gone it returns an error where the guard does not put zeros there
 * (Windows). */
typedef int mf_copier(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from,
                      ptrdiff_t from_step, size_t count);

/* One map, and what has become of it. It stays where it is in memory from mf_map to mf_unmap, and
 * so does its file. */
struct mf_mapping {
    char *base;      /* NULL once it is given back */
    mf_word length;  /* bytes, as they were asked for: the system maps whole pages */
    size_t reserved; /* bytes of address space from base on that are to be its own: what mf_extend
                      * can make it. 0: no more than it needs. Set before mf_map */
    int chosen; /* flags and protection, set before mf_map, are what mmap is told; 0: what access
                   comes to (POSIX) */
    int flags;
    int protection;
    uintptr_t self; /* the address of this struct, while it is on the guard's list */
    mf_file *file;
    mf_copier *copier; /* NULL: memcpy will do, since the guard lets nothing fail (POSIX) */
    int access;
    int error;         /* what giving it back came to */
    mf_word lost_from; /* the pages that are gone are all within lost_from and lost_to, bytes from
                          base on. lost_to is 0 */
    mf_word lost_to;   /* while none is, and set last */
    mf_word next, previous; /* the guard's list */
};

/* What may be done with the memory of a map. */
enum {
    MF_READ = 0,  /* read, shared */
    MF_WRITE = 1, /* read and write, shared */
    MF_COPY = 2   /* read and write, private copy-on-write */
};

/* The disposition of mf_open: what it does when the file exists, or does not. */
enum {
    MF_EXISTING = 0, /* it must exist */
    MF_EMPTIED = 1,  /* it is created, or cut to no bytes */
    MF_NEW = 2,      /* it is created and must not exist */
    MF_DEVICE = 3    /* it exists, and may be a device (mf_duplicate, POSIX) */
};

/* What the system is like. page_size and granularity are in bytes; the offset of a map is a
 * multiple of granularity. */
typedef struct {
    size_t page_size;
    size_t granularity;
    int interrupted;   /* the code for "a signal came, call again"; -1 where no call says so */
    int not_supported; /* the code for "this system cannot" */
    int too_large;     /* the code for "no room in the address space" */
    int over_quota;    /* the code that mf_allow_locked may help against; -1 where there is none */
    int bad_address;   /* the code for "a page of this range cannot be had"; -1: no call says so */
    int invalid;       /* the code for "that makes no sense" */
    int flush_reaches_device; /* mf_flush with wait set is durable by itself; elsewhere mf_sync must
                                 follow */
    int can_reserve;          /* maps can have address space behind them, for mf_extend */
    int has_sections;         /* maps are made from a section, not from the file itself */
    int sync_covers_maps; /* mf_sync writes what is dirty in maps too; elsewhere mf_flush must come
                             first */
    int guard_covers_all; /* the fault guard saves whoever meets a page that is gone; elsewhere
                             mf_copy and mf_search alone */
} mf_system;

void mf_query_system(mf_system *out);

/* Opens a regular file or a disk by name, not inherited by child programs, with every kind of
 * sharing (Windows). */
int mf_open(const mf_char *path, int access, int disposition, mf_file *out);

/* Duplicates a handle of the caller's (a regular file's, open for what access needs), not inherited
 * either. MF_EMPTIED cuts the file to no bytes. The size of a device is -1. */
int mf_duplicate(intptr_t handle, int access, int disposition, mf_file *out);

/* Makes a new file that has its name only once it is published: until then it has none, or a
 * temporary one, which is left in temporary (room counts characters; empty: none). Not every file
 * system can. */
int mf_create(const mf_char *path, mf_file *out, mf_char *temporary, size_t room);

/* Gives such a file its name, which nobody may have. */
int mf_publish(const mf_file *file, mf_char *temporary, const mf_char *path);

/* Removes the name of a file. */
int mf_remove(const mf_char *path);

/* Gives the handle back. The field reads -1 afterwards, whatever happened. */
int mf_close(mf_file *file);
int mf_close_section(mf_section *section);

/* Looks up the size of the file. POSIX: fstat. Windows: GetFileSizeEx. */
int mf_get_size(const mf_file *file, int64_t *out);

/* Cuts the file short, or leaves a hole behind its end. Windows refuses the former while there is a
 * section. */
int mf_set_size(const mf_file *file, int64_t size);

/* Makes a section of the whole file. */
int mf_open_section(const mf_file *file, int access, mf_section *out);

/* Makes a section of size bytes of memory that no file has, when the handle of the file is -1; or
 * of the whole file. With a tag, which may be NULL, others find it by that name, and if they have
 * made it, it is that one, and its size -1 (Windows). POSIX does nothing. */
int mf_open_memory(const mf_file *file, int access, int64_t size, const mf_char *tag,
                   mf_section *out);

/* A growth, and how far it has come: mf_grow is called again after a signal. */
typedef struct {
    int64_t size;    /* of the file before, in bytes */
    int64_t grown;   /* and after */
    int64_t reached; /* how long it is already: begins as size */
    int64_t step;    /* bytes for the next piece: begins as 0 */
    int allocate; /* the disk blocks are to be there, where the system can do that; otherwise there
                     are holes */
} mf_growth;

/* Moves the end of the file, with zeros behind the old end, and makes a section of the whole. It
 * says that it was interrupted after each piece that takes its time, so that signals are heard:
 * what is done stays done, and it is called again. When it fails with anything else the file is as
 * it was, but Windows may know it as one with holes. */
int mf_grow(const mf_file *file, mf_growth *growth, mf_section *out);

/* Maps a range, which lies inside the section and is not empty; memory of its own when the handle
 * of the file is -1. What out->reserved says is set aside with it. POSIX maps it all: a map may
 * reach beyond the end of the file, and works there once the file is longer. The struct is not
 * mapped already, and it and its file's stay where they are until mf_unmap: the fault guard goes by
 * them. */
int mf_map(mf_file *file, const mf_section *section, int access, int64_t offset, size_t length,
           mf_mapping *out);

/* Makes a map longer, where the system can: it may move, and the old address is no more. Linux:
 * mremap. Elsewhere it says that it is not supported, and the map is as it was. */
int mf_remap(mf_mapping *map, size_t grown);

/* Makes a map longer where it is, inside what it reserved; offset is where in the file it starts.
 * POSIX: nothing is left to do. Windows maps a further view, right behind the others. */
int mf_extend(mf_mapping *map, const mf_section *section, int64_t offset, size_t grown);

/* Gives a map back, with all that it reserved; one that was never there is an error, and nothing
 * else. The error is left in the map too, for those who come later: a destructor of cffi's has
 * nobody to tell. */
int mf_unmap(mf_mapping *map);

/* Writes the pages of a map back to the file. With wait set, POSIX waits for the device (msync with
 * MS_SYNC); Windows needs mf_sync for that. Without it, write-back is started: through
 * sync_file_range where there is one and file is not NULL; offset is where in the file the range
 * starts. */
int mf_flush(const mf_file *file, char *base, size_t length, int64_t offset, int wait);

/* Writes the file back. With wait set it returns when what was written, and the size, is on stable
 * storage; without, write-back is started, where the system can be told to. */
int mf_sync(const mf_file *file, int wait);

/* Puts the guard against faults in place; again, if somebody has taken it out. From then on the
 * process lives when a page of a map is gone, because the file was cut short or the device failed:
 * POSIX puts a page of zeros there (SIGBUS); Windows lets mf_copy and mf_search return an error
 * (EXCEPTION_IN_PAGE_ERROR). Either way lost_from, lost_to and faults tell. Whatever is no map of
 * ours goes to whoever was there before. */
int mf_guard(void);

/* Whether the guard is in place. */
int mf_guarded(void);

/* The mf_copier of every map. */
int mf_copy(mf_mapping *map, char *to, ptrdiff_t to_step, const char *from, ptrdiff_t from_step,
            size_t count);

/* Searches a part of a map with one of the functions of search.h. */
int mf_search(mf_mapping *map, mf_searcher *search, const void *haystack, size_t length,
              const void *needle, size_t needle_length, size_t *end, int64_t *out);

/* What mf_advise can be told. */
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

/* What mf_madvise takes for a hint that the system has no number for. */
enum { MF_NO_ADVICE = -1 };

/* Tells the system how whole pages of a map will be used. A kind that it does not know is ENOTSUP
 * or ERROR_NOT_SUPPORTED; length 0 asks for nothing but that, wherever base is. */
int mf_advise(char *base, size_t length, int kind);

/* The same by the system's own number for it, whatever it does. Windows has none: it is a kind of
 * mf_advise, and one that it cannot do does nothing. */
int mf_madvise(char *base, size_t length, int advice);

/* Gives memory without a file a name, where the system shows one: Linux. */
int mf_set_name(char *base, size_t length, const char *name);

/* Tells the names that the header of mmap has, and their values, one for each number from 0 on.
 * Returns 0 past the last one. Windows has no such header: these are what has a meaning there too.
 */
int mf_constant(int number, const char **name, int *value);

/* Keeps whole pages of a map in memory, until they are unlocked or unmapped; and no longer. Locks
 * do not nest, and to unlock what is not locked is no error. */
int mf_lock(char *base, size_t length);
int mf_unlock(char *base, size_t length);

/* Lets the process lock so many bytes more. Windows: SetProcessWorkingSetSize. POSIX has a limit
 * that is not ours to move: it says that it is not supported. */
int mf_allow_locked(size_t more);

/* Writes a 1 into out for each page of a map that is in memory, and a 0 for any other. POSIX: in
 * the memory of the system, whoever brought it there. Windows: in the working set of the process.
 */
int mf_residency(char *base, size_t length, char *out);

/* Whether mf_residency tells the truth of a file. Linux says of every page that it is in memory
 * when the file is neither the process's own nor one that it may write: can_do_mincore in its
 * mm/mincore.c. */
int mf_tells_residency(const mf_file *file, int *out);

/* Counts the pages of a range of the file that are in memory, or were not long ago, without looking
 * at every one: 0 is quick to tell. Not every system can, nor for every file. */
int mf_count_cached(const mf_file *file, int64_t offset, int64_t length, int64_t *out);

/* Has the system forget the pages of a file that it keeps in memory: those that are written back,
 * and that nobody has mapped. macOS needs a map of all of the file for that. */
int mf_evict(const mf_file *file, char *base, size_t length);

/* The process, and a clock that only goes forward. */
int mf_process(void);
int64_t mf_milliseconds(void);

/* What the CPython types call of all this. They get a copy when the library is imported. */
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
    int64_t (*milliseconds)(void);
} mf_table;

void mf_fill_table(mf_table *out);
