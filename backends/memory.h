/* The CPython types own files, sections and maps. This header is what their source files share.
 *
 *   memory.c   File, Map and Buffer, with their use counts: the last user releases them
 *   checks.c   arguments: conversions and checks; the errors of a window
 *   storage.c  a file's size: open, grow, shrink, refresh, close
 *   window.c   Window: index, slice, search, buffer, flush; MappedFile and View are its two kinds
 *   stream.c   Stream: a binary stream on the bytes of a window
 *   mmap.c     Mmap: a window with a position, compatible with the standard library's mmap
 *
 * Every object is consistent whenever Python code can run. A change is prepared separately, then
 * put in place without a call that could run Python code. Without a GIL the lock of the file does
 * the GIL's job. */
#ifndef MAPPEDFILE_MEMORY_H
#define MAPPEDFILE_MEMORY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "native.h"

/* A field that a thread may read without the lock while another thread writes it with the lock.
 * Such a read is only a hint. With the GIL it is a plain field. A 32-bit MSVC reads an int64_t in
 * two halves. */
#ifndef Py_GIL_DISABLED
#define SHARED(type) type
#elif defined(_MSC_VER)
#define SHARED(type) type volatile
#else
#define SHARED(type) _Atomic(type)
#endif

/* A lock of one word, for builds without a GIL. Between LOCK and UNLOCK no Python code may run, nor
 * anything that lets other threads run: a forked child would find it locked by a thread that it
 * does not have. abi3t has no PyMutex: a thread that waits for the lock tries again and again. */
#if defined(Py_TARGET_ABI3T)
#define MUTEX mf_word mutex;
#define LOCK(owner) wait_for(&(owner)->mutex)
#define UNLOCK(owner) mf_add(&(owner)->mutex, -1)
#elif defined(Py_GIL_DISABLED)
#define MUTEX PyMutex mutex;
#define LOCK(owner) PyMutex_Lock(&(owner)->mutex)
#define UNLOCK(owner) PyMutex_Unlock(&(owner)->mutex)
#else
#define MUTEX
#define LOCK(owner) ((void)(owner))
#define UNLOCK(owner) ((void)(owner))
#endif

#ifdef Py_TARGET_ABI3T
#ifdef _WIN32
__declspec(dllimport) void __stdcall Sleep(unsigned long milliseconds); /* without windows.h */
#define PAUSE(longer) Sleep(longer)
#else
#include <time.h>
#define PAUSE(longer) nanosleep(&(struct timespec){0, (longer) ? 100000 : 0}, NULL)
#endif

/* Locks a mutex. The first pauses only let other threads run. */
static inline void wait_for(mf_word *mutex)
{
    uintptr_t unlocked = 0;
    int tries;

    for (tries = 0; !mf_replace(mutex, &unlocked, 1); tries++) {
        unlocked = 0;
        Py_BEGIN_ALLOW_THREADS /* the garbage collector may be waiting for this thread */
        PAUSE(tries > 100);
        Py_END_ALLOW_THREADS
    }
}
#endif

/* An object and its struct. The struct begins with OBJECT_HEAD, and so has the address of the
 * object. In abi3t, the stable ABI without a GIL, objects are opaque: the struct follows the head
 * of the object. SIZE is for the types, and RELATIVE for their members. */
#ifdef Py_TARGET_ABI3T
#define OBJECT_HEAD
#define SIZE(type) (-(int)sizeof(type))
#define RELATIVE Py_RELATIVE_OFFSET
extern size_t head_size; /* bytes, the same in all objects */
#else
#define OBJECT_HEAD PyObject_HEAD
#define SIZE(type) ((int)sizeof(type))
#define RELATIVE 0
enum { head_size = 0 };
#endif
#define DATA(type, object) ((type *)data_of(object))
#define OBJECT(data) object_of(data)
#define NEW_REF(type, data) DATA(type, Py_NewRef(OBJECT(data)))

static inline void *data_of(PyObject *object)
{
    return head_size == 0 || object == NULL ? (void *)object : (char *)object + head_size;
}

static inline PyObject *object_of(void *data)
{
    return (PyObject *)(head_size == 0 || data == NULL ? data : (char *)data - head_size);
}

typedef struct {
    mf_table call; /* the backend */
    PyTypeObject *file_type, *map_type, *buffer_type, *use_type, *window_type, *iterator_type,
        *stream_type, *mmap_type;
    PyObject *os_error, *mapping_fault, *lock_error,
        *alive_error;           /* they build exceptions: _errors.py */
    PyObject *close_descriptor; /* os.close: descriptors belong to the C library that Python uses,
                                   which may not be ours */
    SHARED(int) guard;          /* the policy for the fault guard: see GUARD_PENDING */
    MUTEX                       /* for threads that open the same object */
    void *free_buffer;          /* memory of a freed Buffer, for the next one; only with the GIL */
} State;

/* GUARD_PENDING: the first map installs the guard. GUARD_WANTED: each map of a whole file installs
 * it again, if other code has taken its place. GUARD_REFUSED: nothing installs it. */
enum { GUARD_PENDING, GUARD_WANTED, GUARD_REFUSED };

typedef struct Map Map;

/* An open file. A MappedFile owns it. Its views and maps share it, and may outlive the owner. */
typedef struct {
    OBJECT_HEAD
    State *state;
    PyObject *name;
    mf_file file;
    mf_section section;
    /* A descriptor on the same file, for fileno() on Windows; -1: nobody has asked for one. */
    SHARED(int) descriptor;
    mf_word users; /* the owner while it is open, and calls in progress; the last one closes the
                      handles */
    mf_word views; /* open views */
    Map *maps;     /* its maps */
    int access;
    int sparse;
    int mmap;                      /* it is of an Mmap, which has no refresh() */
    int chosen, flags, protection; /* for every map of it: see mf_mapping */
    size_t reserve;                /* bytes of address space for the map of the whole file */
    /* The process that locked the map of the whole file in memory, or 0. A forked child inherits no
     * such lock. */
    SHARED(int) mlocked;
    SHARED(unsigned long) changer; /* the thread that changes the size, or 0 */
    int changing_process; /* the process of the turns: a forked child does not wait for a thread of
                             its parent */
    int waiting;          /* how many threads wait for their turn */
    PyThread_type_lock turn; /* what they wait for. It exists only while it is needed, since it may
                                be a handle on Windows */
    MUTEX
} File;

/* One map of the system.
 *
 *     base              start                        base + padding + length
 *     |<--- padding --->|<--------- length --------->|
 *     multiple of       where the caller's
 *     the granularity   range begins
 */
struct Map {
    OBJECT_HEAD
    File *file;
    mf_mapping map; /* it must not move: the guard's list has its address */
    int64_t offset; /* of base in the file */
    size_t padding;
    mf_word users;   /* its window until that closes, calls in progress, and buffers; the last one
                        unmaps it */
    mf_word buffers; /* the buffers among them: obj of each memoryview, kept by everything made from
                        it */
    Map *next, *previous; /* in the list of the file */
};

/* A window on bytes of a file. It is opened once. file and mode are set before open, and never
 * change. The other fields change only with the lock of the file, and the memory of the map is read
 * and written with that lock. */
typedef struct {
    OBJECT_HEAD
    SHARED(File *) file; /* NULL: never opened */
    SHARED(Map *)
    map; /* its map, or the map that it had when it was closed. NULL: none yet, or none needed */
    SHARED(char *) start;    /* its first byte; NULL while it is closed, empty or not mapped yet */
    SHARED(int64_t) length;  /* bytes */
    int64_t offset;          /* in the file */
    SHARED(PyObject *) mode; /* of a whole file */
    PyObject *weakrefs;
    SHARED(char) whole; /* a MappedFile or an Mmap, which own the file */
    char mmap;          /* an Mmap: its errors are those of the standard library */
    SHARED(char) open;
    SHARED(char) owns; /* it counts among the users of the map */
} Window;

/* Adds to a count of users, and returns the new count. */
static inline uintptr_t tally(mf_word *word, intptr_t by)
{
#if defined(Py_GIL_DISABLED) || defined(_WIN32)
    return mf_add(word, by);
#else
    /* The caller has the GIL, so this needs no bus lock, which would cost a fifth of memoryview(w).
     */
    uintptr_t sum = atomic_load_explicit(word, memory_order_relaxed) + (uintptr_t)by;

    atomic_store_explicit(word, sum, memory_order_relaxed);
    return sum;
#endif
}

/* The flags of all types. Nobody can change what their objects do. */
#define TYPE_FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE)

/* A function for METH_FASTCALL. */
#define FAST(function) (PyCFunction)(void (*)(void))(function)

/* A system call that may block or take long. */
#define WITHOUT_GIL(statement) \
    do {                       \
        Py_BEGIN_ALLOW_THREADS \
        statement;             \
        Py_END_ALLOW_THREADS   \
    } while (0)

/* The same, repeated after a signal, once Python's signal handlers have run (PEP 475). If a handler
 * raised, the exception is set, and error is the code for "interrupted". */
#define CALL_AGAIN(owner, error, expression) \
    do                                       \
        WITHOUT_GIL(error = (expression));   \
    while (error == (owner)->call.system.interrupted && PyErr_CheckSignals() == 0)

/* Copies out of the map or into it. The range must lie in the map, and the map must stay mapped.
 * Returns the backend's code. */
static inline int copy(const Map *map, char *to, const char *from, Py_ssize_t count)
{
#ifdef _WIN32
    return map->file->state->call.copy((mf_mapping *)&map->map, to, 1, from, 1, (size_t)count);
#else
    (void)map; /* the guard repairs every fault here */
    memmove(to, from, (size_t)count);
    return 0;
#endif
}

/* Whether no byte of a map is gone. */
static inline int is_whole(const Map *map)
{
#ifndef _WIN32
    atomic_thread_fence(memory_order_acquire); /* after the copy: another thread's handler may have
                                                  put zeros there */
#endif
    return WITHOUT_GUARD || map->map.lost_to == 0;
}

/* memory.c */

extern PyType_Spec file_spec, map_spec, buffer_spec, use_spec, window_spec, iterator_spec,
    stream_spec, mmap_spec;

/* These set an exception and return NULL. raise_os_error keeps an exception that is already set. */
PyObject *raise_os_error(File *file, int code, const char *doing);
PyObject *raise_fault(File *file, int64_t offset);
PyObject *raise_alive(File *file, uintptr_t views, uintptr_t buffers, PyObject *what);

/* Reports an error of the system that no caller can catch, with where it came from. */
void report(File *file, int code, const char *doing, PyObject *where);

/* Returns the exact str, bytes or int for an object of a subclass. Such an object may refer to
 * others, and the garbage collector cannot look into a file. */
PyObject *plain(PyObject *value);

/* Returns a file that is not open; or raises, also if there is no backend yet. */
File *file_new(State *state, PyObject *name);

/* Begins a use of an open file. Returns 0 if it is closed. */
int file_use(File *file);

/* Ends a use; the last one closes the handles. Returns the system's code. */
int file_release(File *file);

/* Maps length bytes, at least 1, from offset on. The caller is the first user. After NULL, *error
 * is the system's code, or 0 if an exception is set. Called with the lock. */
Map *map_new(File *file, const mf_section *section, int64_t offset, int64_t length, size_t reserve,
             int *error);

/* The bytes of a map after its padding; and the bytes that it can have without moving. */
int64_t map_length(const Map *map);
int64_t map_room(const Map *map);

/* How many buffers are alive on all maps of a file. Called with the lock. */
uintptr_t file_buffers(File *file);

/* Ends a use of a map; the last one unmaps it. Returns the system's code. Called without the lock.
 */
int map_release(Map *map);

/* The same for a buffer; it also drops the reference to the map. */
int map_unexport(Map *map);

/* Unmaps a map that the caller has just made, with the lock. */
int map_discard(Map *map);

/* Flushes every map of a file. The caller must have a use of the file. Returns the system's code,
 * or -1 if an exception is set. */
int flush_maps(File *file, int wait);

/* Installs the guard if it is wanted and not installed. Returns the system's code. */
int guard(State *state, int whole);

/* Rounds a range of a map outwards to whole pages. */
char *pages_around(const Map *map, int64_t first, int64_t count, size_t *size);

/* Returns a copy of bytes of a map, which must stay mapped. *failed is the backend's code. */
PyObject *map_bytes(const Map *map, const char *from, Py_ssize_t count, int *failed);

/* Searches for the end of a line. *count is the length of the line with its end, or 0 if there is
 * no end. Returns the backend's code. */
int find_line_end(Map *map, const char *from, int64_t length, int64_t *count);

/* Whether bytes of a range are gone; *at is the first of them. A copy that has just ended is
 * covered. */
int is_lost(const Map *map, int64_t first, int64_t count, int64_t *at);

/* Fills in a buffer on bytes of a map, or on no bytes; or raises and returns -1. The caller is a
 * user of the map, or has the lock. */
int export(State *state, Map *map, char *start, int64_t length, int readonly, Py_buffer *view,
           int flags);

/* Returns a Use of a range in a map; or NULL with an exception. map may be NULL if the range is
 * empty. */
PyObject *use_new(Map *map, File *file, int64_t first, int64_t count, int inwards, int64_t window);

/* checks.c */

/* Says what a window is, for messages. */
const char *kind_of(const Window *self);

/* Raises ValueError, since the window is closed; returns NULL. */
PyObject *raise_closed(Window *self);

/* Converts an int of the caller, from 0 to 2**63 - 1; or raises and returns -1. */
int to_size(PyObject *number, const char *what, int64_t *out);

/* Gets a contiguous buffer from an object of the caller. */
int to_bytes(PyObject *value, Py_buffer *out);

/* Checks that a range lies in size bytes; or raises and returns -1. A count of -1 reaches to the
 * end. */
int to_range(Window *self, int64_t first, int64_t size, int64_t *count);

/* Raises MappingFault, with the offset if the map knows it. */
PyObject *raise_faulted(Window *self);

/* Sorts the arguments of a fast call. known has the names of all arguments; the first by_place can
 * be positional. A missing argument is NULL. */
int to_arguments(const char *function, const char *const *known, int number, Py_ssize_t by_place,
                 PyObject **out, PyObject *const *args, Py_ssize_t n, PyObject *names);

/* Raises MappingFault if the last copy of a range met bytes that are gone, and returns -1 then.
 * failed is the backend's code. */
int check_fault(const Map *map, int failed, int64_t first, int64_t count);

/* Raises an exception of this kind, since the window is read-only; returns NULL. */
PyObject *raise_readonly(Window *self, PyObject *kind);

/* Converts a byte of the caller, from 0 to 255; or raises and returns -1. An int that is too large
 * for C is an error of this kind; NULL: the same error as for any other. */
int to_byte(PyObject *value, PyObject *kind, char *out);

/* Converts where a range begins and how long it is; None is -1, to the end. Or raises and returns
 * -1. */
int to_numbers(PyObject *offset, PyObject *length, int64_t *first, int64_t *count);

/* storage.c */

PyObject *window_open(PyObject *self, PyTypeObject *type, PyObject *const *args, Py_ssize_t n,
                      PyObject *names);
PyObject *window_view(PyObject *self, PyObject *const *args, Py_ssize_t n);
PyObject *window_descriptor(PyObject *self, PyObject *make);
PyObject *window_close(PyObject *self, PyObject *strict);
PyObject *window_abandon(PyObject *self, PyObject *unused);
PyObject *window_resize(PyObject *self, PyObject *size);
PyObject *window_refresh(PyObject *self, PyObject *unused);
PyObject *window_lock(PyObject *self, PyObject *unused);
PyObject *window_unlock(PyObject *self, PyObject *unused);

/* Gives a file that was just opened its section, or the size of one. Returns the system's code. */
int first_section(File *file);

/* Closes a window, and reports errors that no caller can catch. */
void window_drop(Window *self);

/* Maps the window if it is not empty; or raises and returns -1. */
int window_map(Window *self);

/* Makes a window ready for reading and writing its bytes: open, mapped and locked. Or raises and
 * returns -1. */
int acquire(Window *self);

/* Begins a use of the map of a window, and returns the map; *length is the length of the window.
 * NULL: an exception is set; or the window is empty, and *length is 0. */
Map *window_use(Window *self, int64_t *length);

/* Ends such a use. The map may be unmapped then; an error of that is raised, unless an exception is
 * already set. */
int window_release(Window *self, Map *map);

/* Grows the file to at least size bytes. If others have made it longer, the window gets that
 * length. Or raises and returns -1. */
int window_grow_to(Window *self, int64_t size);
/* Sets the size of the file, in bytes; or raises and returns -1. */
int window_set_size(Window *self, int64_t wanted);

/* Waits until no other thread changes the size, then keeps others from doing so. The file stays
 * open until end_change. Or raises and returns -1. */
int begin_change(Window *self);
void end_change(Window *self);

/* The standard library's mmap holds the GIL during a call, so resize() of another thread comes
 * before it or after it. A long call of an Mmap takes a turn like a change of size. begin_call
 * returns whether it did, or raises and returns -1. */
int begin_call(Window *self);
void end_call(Window *self, int begun);

/* Makes a map longer or shorter, and may move it. Returns 0 if the system cannot do that, or if the
 * map has other users. Called with the lock. */
int remap_window(Window *self, Map *map, int64_t length);

/* Replaces the map of a window. Called with the lock. */
void set_map(Window *self, Map *map);

/* Raises io.UnsupportedOperation with this text; steals the reference. */
void raise_unsupported(PyObject *why);

/* stream.c */

PyObject *window_stream(PyObject *self, PyObject *const *args, Py_ssize_t n);

/* window.c */

typedef enum { FIND, RFIND, COUNT } Search;

/* Searches for the first of args, in the range of the second and third. The search begins at first
 * if there is no second. */
PyObject *search(Window *self, Search kind, const char *name, int64_t first, PyObject *const *args,
                 Py_ssize_t n);

/* Flushes a range of a writable window; the range is not empty. */
PyObject *flush_range(Window *self, int64_t first, int64_t count, int durable);

/* Slots and properties of a window that an Mmap has too. */
PyObject *window_subscript(PyObject *object, PyObject *key);
int window_assign(PyObject *object, PyObject *key, PyObject *value);
Py_ssize_t window_length(PyObject *object);
int window_contains(PyObject *object, PyObject *sub);
int window_get_buffer(PyObject *object, Py_buffer *view, int flags);
void window_release_buffer(PyObject *object, Py_buffer *view);
void window_dealloc(PyObject *object);
PyObject *window_get_closed(PyObject *self, void *unused);
PyObject *window_get_mapped(PyObject *object, void *unused);
PyObject *window_get_faulted(PyObject *object, void *unused);

#endif
