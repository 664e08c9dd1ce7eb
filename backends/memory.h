/* The CPython types, which own what the system gives: what their files share.
 *
 *   memory.c   File, Map and Buffer: who uses them is counted, and the last one gives them back
 *   storage.c  a file's size: open, grow, shrink, refresh, close
 *   window.c   Window: index, slice, search, buffer, flush; MappedFile and View are its two kinds
 *   stream.c   Stream: a window's bytes read and written in turn, as a file's are
 *   mmap.c     Mmap: a window with a position, which says and does what the standard library's mmap
 * does
 *
 * Every object is right whenever Python code can run: a change is prepared aside, and put in place
 * without a call between that could run any. Without a GIL the lock of the file does what the GIL
 * does otherwise. */
#ifndef MAPPEDFILE_MEMORY_H
#define MAPPEDFILE_MEMORY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "native.h"

/* What one thread may read while another writes it with the lock, and so is read without for a hint
 * alone. With the GIL it is nothing special. A 32-bit MSVC reads an int64_t in two halves. */
#ifndef Py_GIL_DISABLED
#define SHARED(type) type
#elif defined(_MSC_VER)
#define SHARED(type) type volatile
#else
#define SHARED(type) _Atomic(type)
#endif

/* A lock that takes a word, and is there without a GIL. No Python code may run while it is held,
 * nor anything that lets other threads run: a forked child would find it held by nobody. */
#ifdef Py_GIL_DISABLED
#define MUTEX PyMutex mutex;
#define LOCK(owner) PyMutex_Lock(&(owner)->mutex)
#define UNLOCK(owner) PyMutex_Unlock(&(owner)->mutex)
#else
#define MUTEX
#define LOCK(owner) ((void)(owner))
#define UNLOCK(owner) ((void)(owner))
#endif

typedef struct {
    mf_table call; /* the backend */
    PyTypeObject *file_type, *map_type, *buffer_type, *use_type, *window_type, *iterator_type,
        *stream_type, *mmap_type;
    PyObject *os_error, *mapping_fault, *lock_error,
        *alive_error;           /* build exceptions: _errors.py */
    PyObject *close_descriptor; /* os.close: descriptors are the C library's that Python uses, which
                                   may not be ours */
    SHARED(int) guard;          /* what the fault guard is to be: see GUARD_PENDING */
    MUTEX                       /* for those that open one object at once */
    void *spare;                /* a Buffer that has gone, for the next one; with the GIL alone */
} State;

/* The guard is put in place with the first map, and on top again with each map of a whole file; or
 * never. */
enum { GUARD_PENDING, GUARD_WANTED, GUARD_REFUSED };

typedef struct Map Map;

/* An open file. It is shared by a MappedFile, the owner, and by its views and maps, which may
 * outlive it. */
typedef struct {
    PyObject_HEAD
    State *state;
    PyObject *name;
    mf_file file;
    mf_section section;
    /* On the same file, for fileno() on Windows; -1: none was asked for yet. */
    SHARED(int) descriptor;
    mf_word users; /* the owner while it is open, and calls under way: the last one gives the
                      handles back */
    mf_word views; /* open ones */
    Map *maps;     /* those that are there */
    int access;
    int sparse;
    int mmap;                      /* of an Mmap, which has no refresh() */
    int chosen, flags, protection; /* what every map of it is told: mf_mapping */
    size_t reserve;                /* bytes of address space for the map of the whole file */
    /* The process that locked that map, or 0: a forked child inherits no lock. */
    SHARED(int) locked;
    SHARED(unsigned long) changer; /* the thread that changes the size, or 0 */
    int changing_process;          /* and its process: a forked child waits for nobody */
    int waiting;                   /* how many threads wait for their turn */
    PyThread_type_lock turn; /* what they wait for. On Windows it may be a handle: it is there while
                                it is needed */
    MUTEX
} File;

/* One map of the system's.
 *
 *     base            start                        base + slack + length
 *     |<--- slack --->|<--------- length --------->|
 *     multiple of     where the caller's
 *     the granularity range begins
 */
struct Map {
    PyObject_HEAD
    File *file;
    mf_mapping map; /* the guard's list has its address */
    int64_t offset; /* in the file, of base */
    size_t slack;
    mf_word users; /* its window, until that closes; calls under way; buffers: the last one gives it
                      back */
    mf_word buffers;      /* alive: each memoryview's obj, kept by whatever was made from it */
    Map *next, *previous; /* in the list of the file */
};

/* A window on bytes of a file. It is opened once: the file is there from then on, before it is
 * open, and so is the mode. What changes later changes with the lock of the file, and the map is
 * looked into with it. */
typedef struct {
    PyObject_HEAD
    SHARED(File *) file; /* NULL: never opened */
    SHARED(Map *)
    map; /* the map that it has, or had when it was closed; NULL: none yet, or none needed */
    SHARED(char *) start;    /* its first byte. NULL: closed, empty or not mapped yet */
    SHARED(int64_t) length;  /* bytes */
    int64_t offset;          /* in the file */
    SHARED(PyObject *) mode; /* of a whole file */
    PyObject *weakrefs;
    SHARED(char) whole; /* a MappedFile, or an Mmap: it has the file */
    char mmap;          /* an Mmap: its errors are those of the standard library's */
    SHARED(char) open;
    SHARED(char) owns; /* it is counted among the users of the map */
} Window;

/* Adds to a count of users, and returns what it is then. */
static inline uintptr_t tally(mf_word *word, intptr_t by)
{
#if defined(Py_GIL_DISABLED) || defined(_WIN32)
    return mf_add(word, by);
#else
    /* With the GIL, which the caller has, this needs no bus lock: it would cost a fifth of
     * memoryview(w). */
    uintptr_t sum = atomic_load_explicit(word, memory_order_relaxed) + (uintptr_t)by;

    atomic_store_explicit(word, sum, memory_order_relaxed);
    return sum;
#endif
}

/* A call of the system that may take its time. */
#define WITHOUT_GIL(statement) \
    do {                       \
        Py_BEGIN_ALLOW_THREADS \
        statement;             \
        Py_END_ALLOW_THREADS   \
    } while (0)

/* The same, made again after a signal, once Python's handlers have run (PEP 475). If one of them
 * raised, error is that of the interrupt, and the exception is set. */
#define CALL_AGAIN(owner, error, expression) \
    do                                       \
        WITHOUT_GIL(error = (expression));   \
    while (error == (owner)->call.system.interrupted && PyErr_CheckSignals() == 0)

/* Copies out of the map, or into it: the range lies in it, and it does not go meanwhile. Returns
 * the backend's code. */
static inline int copy(const Map *map, char *to, const char *from, Py_ssize_t count)
{
#ifdef _WIN32
    return map->file->state->call.copy((mf_mapping *)&map->map, to, 1, from, 1, (size_t)count);
#else
    (void)map; /* the guard lets nothing fail here */
    memmove(to, from, (size_t)count);
    return 0;
#endif
}

/* Whether no byte of a map is gone. */
static inline int is_whole(const Map *map)
{
#ifndef _WIN32
    atomic_thread_fence(memory_order_acquire); /* the copy is done, also if another thread's handler
                                                  put zeros there */
#endif
    return WITHOUT_GUARD || map->map.lost_to == 0;
}

/* memory.c */

extern PyType_Spec file_spec, map_spec, buffer_spec, use_spec, window_spec, iterator_spec,
    stream_spec, mmap_spec;

/* These raise, and return NULL. The first does nothing else if an exception is set already. */
PyObject *raise_os_error(File *file, int code, const char *doing);
PyObject *raise_fault(File *file, int64_t offset);
PyObject *raise_alive(File *file, uintptr_t views, uintptr_t buffers, PyObject *what);

File *file_new(State *state, PyObject *name);

/* Begins a use of an open file; says no when it is closed. */
int file_use(File *file);

/* Ends one; whoever is last gives the handles back. Returns the system's code. */
int file_release(File *file);

/* Maps length bytes, 1 or more, from offset on. The caller is its first user. NULL: *error is the
 * system's code, or 0 when an exception is set. Called with the lock. */
Map *map_new(File *file, const mf_section *section, int64_t offset, int64_t length, size_t reserve,
             int *error);

/* How many bytes from slack on the map has; and how many it can have where it is. */
int64_t map_length(const Map *map);
int64_t map_room(const Map *map);

/* How many buffers are alive on all maps of a file. Called with the lock. */
uintptr_t file_buffers(File *file);

/* Ends a use of a map; whoever is last gives it back. Returns the system's code. Called without the
 * lock. */
int map_release(Map *map);

/* The same for a use that counts among the buffers, and lets go of the map. */
int map_unexport(Map *map);

/* Gives back a map that the caller has made, and held the lock since. */
int map_discard(Map *map);

/* Flushes every map of a file that the caller uses; returns the system's code, or -1 when an
 * exception is set. */
int flush_maps(File *file, int wait);

/* Puts the guard in place if it is wanted and not there; returns the system's code. */
int guard(State *state, int whole);

/* Rounds a range of a map outwards to pages. */
char *pages_around(const Map *map, int64_t first, int64_t count, size_t *size);

/* Whether bytes of a range are gone, first of them in *at. It tells of what was just read or
 * written too. */
int is_lost(const Map *map, int64_t first, int64_t count, int64_t *at);

/* Fills in a buffer on bytes of a map, or on none; or raises and returns -1. The caller is a user
 * of the map, or has the lock. */
int export(State *state, Map *map, char *start, int64_t length, int readonly, Py_buffer *view,
           int flags);

/* Returns a Use of a range in a map, which may be NULL for an empty one; or NULL. */
PyObject *use_new(Map *map, File *file, int64_t first, int64_t count, int inwards, int64_t window);

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

/* Gives back all that a window has, without a word. */
void window_drop(Window *self);

/* Has the window mapped, if it is not empty; or raises and returns -1. */
int window_map(Window *self);

/* Has the file reach at least to size: it grows, and what others made longer is taken note of. Or
 * raises and returns -1. */
int window_reach(Window *self, int64_t size);
/* Sets the size of the file, in bytes; or raises and returns -1. */
int window_set_size(Window *self, int64_t new);

/* Raises io.UnsupportedOperation with this text, which it lets go. */
void raise_unsupported(PyObject *why);

/* stream.c */

PyObject *window_stream(PyObject *self, PyObject *const *args, Py_ssize_t n);
/* Waits until nobody else changes the size, and keeps others from it; the file stays open
 * meanwhile. Or raises, and returns -1. */
int begin_change(Window *self);
void end_change(Window *self);

/* Has a map made longer or shorter, wherever it is then, if the system can and nobody else uses it.
 * Called with the lock. */
int move(Window *self, Map *map, int64_t length);

/* Puts a map in the place of the one there is. Called with the lock. */
void put_in_place(Window *self, Map *map);

/* window.c */

/* Raises that it is closed; returns NULL. */
PyObject *raise_closed(Window *self);

/* An int of the caller's from 0 to 2**63 - 1; or raises and returns -1. */
int to_size(PyObject *number, const char *what, int64_t *out);

/* Bytes of the caller's, one after the other. */
int to_bytes(PyObject *value, Py_buffer *out);

/* Whether a range lies in size bytes; or raises and returns -1. A count of -1 reaches to the end.
 */
int to_range(Window *self, int64_t first, int64_t size, int64_t *count);

const char *kind_of(const Window *self);

/* Raises that bytes of the file are gone: which, if its map knows. */
PyObject *raise_faulted(Window *self);

/* Sorts the arguments of a fast call by name: known names them, and so many can be given by place.
 * What was not given is NULL. */
int to_arguments(const char *function, const char *const *known, int number, Py_ssize_t by_place,
                 PyObject **out, PyObject *const *args, Py_ssize_t n, PyObject *names);

/* Has the window ready for a look at its bytes, and takes the lock; or raises and returns -1. */
int look(Window *self);

/* Raises MappingFault if what was just done with a range met bytes that are gone: failed is the
 * backend's code. */
int judge(const Map *map, int failed, int64_t first, int64_t count);

typedef enum { FIND, RFIND, COUNT } Search;

/* Searches for what args has first, from its second on, or else from first on. */
PyObject *search(Window *self, Search kind, const char *name, int64_t first, PyObject *const *args,
                 Py_ssize_t n);

/* Flushes a range, which is not empty, of a window that can be written to. */
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

/* Returns the map of a window as one that the caller uses; *length is how much of it is the
 * window's. NULL: an exception is set, or there is none because the window is empty, and *length is
 * 0. */
Map *window_use(Window *self, int64_t *length);

/* Ends such a use: the map may be gone then, and what the system says of that is raised, unless
 * there is an exception. */
int window_release(Window *self, Map *map);

#endif
