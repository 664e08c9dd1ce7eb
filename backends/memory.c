/* mappedfile._memory: files and maps as objects that count their users. memory.h has the structs.
 */
#include "memory.h"

#define LONG_MAP (16 << 20) /* bytes: unmapping more than this takes long */

/* Errors */

static PyObject *raise(PyObject *error)
{
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

PyObject *raise_os_error(File *file, int code, const char *doing)
{
    if (PyErr_Occurred())
        return NULL;
    if (file->state->os_error == NULL) /* the interpreter is shutting down */
        return PyErr_Format(PyExc_OSError, "the system refused to %s %R: error %d", doing,
                            file->name, code);
    return raise(PyObject_CallFunction(file->state->os_error, "iOs", code, file->name, doing));
}

PyObject *raise_fault(File *file, int64_t offset)
{
    PyObject *at = offset < 0 ? Py_NewRef(Py_None) : PyLong_FromLongLong(offset);

    return raise(PyObject_CallFunction(file->state->mapping_fault, "ONni", file->name, at,
                                       (Py_ssize_t)file->file.handle, file->mmap));
}

PyObject *raise_alive(File *file, uintptr_t views, uintptr_t buffers, PyObject *what)
{
    return raise(PyObject_CallFunction(file->state->alive_error, "nnO", (Py_ssize_t)views,
                                       (Py_ssize_t)buffers, what));
}

void report(File *file, int code, const char *doing, PyObject *where)
{
    PyObject *kind, *value, *trace;

    PyErr_Fetch(&kind, &value, &trace);
    raise_os_error(file, code, doing);
    PyErr_WriteUnraisable(where);
    PyErr_Restore(kind, value, trace);
}

/* File */

PyObject *plain(PyObject *value)
{
    if (PyUnicode_Check(value))
        return PyUnicode_FromObject(value);
    if (PyBytes_Check(value) && !PyBytes_CheckExact(value))
        return PyBytes_FromStringAndSize(PyBytes_AsString(value), PyBytes_Size(value));
    if (PyLong_Check(value) && !PyLong_CheckExact(value))
        return PyObject_CallMethod((PyObject *)&PyLong_Type, "__pos__", "(O)", value);
    return Py_NewRef(value);
}

File *file_new(State *state, PyObject *name)
{
    File *file;

    if (state->os_error == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the C types are not connected to the backend: import mappedfile does it");
        return NULL;
    }
    file = DATA(File, PyType_GenericAlloc(state->file_type, 0));
    if (file == NULL)
        return NULL;
    file->state = state;
    file->name = plain(name);
    file->file.handle = file->section.handle = -1;
    file->descriptor = -1;
    if (file->name == NULL) {
        Py_DECREF(OBJECT(file));
        return NULL;
    }
    return file;
}

static void file_dealloc(PyObject *object)
{
    File *file = DATA(File, object);
    PyTypeObject *type = Py_TYPE(object);

    if (file->turn != NULL) /* the thread that waited for it was interrupted */
        PyThread_free_lock(file->turn);
    Py_XDECREF(file->name);
    PyObject_Free(object);
    Py_DECREF(type);
}

int file_use(File *file)
{
    uintptr_t users = file->users;

    while (users != 0)
        if (mf_replace(&file->users, &users, users + 1))
            return 1;
    return 0;
}

/* Closes the descriptor that fileno() made. */
static void close_descriptor(File *file)
{
    PyObject *kind, *value, *trace, *none;

    if (file->descriptor == -1 || file->state->close_descriptor == NULL)
        return;
    PyErr_Fetch(&kind, &value, &trace);
    none = PyObject_CallFunction(file->state->close_descriptor, "i", file->descriptor);
    file->descriptor = -1;
    if (none == NULL)
        PyErr_WriteUnraisable(file->state->close_descriptor);
    Py_XDECREF(none);
    PyErr_Restore(kind, value, trace);
}

int file_release(File *file)
{
    int error;

    if (tally(&file->users, -1) != 0)
        return 0;
    close_descriptor(file);
    error = file->state->call.close_section(&file->section);
    if (file->file.handle != -1) {
        int closing;

        WITHOUT_GIL(closing = file->state->call.close(&file->file));
        error = error != 0 ? error : closing;
    }
    return error;
}

static PyType_Slot file_slots[] = {{Py_tp_dealloc, file_dealloc}, {0, NULL}};

PyType_Spec file_spec = {
    "mappedfile._memory.File",
    SIZE(File),
    0,
    TYPE_FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    file_slots,
};

/* Map */

static void put_on_list(Map *map)
{
    File *file = map->file;

    map->previous = NULL;
    map->next = file->maps;
    if (map->next != NULL)
        map->next->previous = map;
    file->maps = map;
}

static void take_off_list(Map *map)
{
    if (map->next != NULL)
        map->next->previous = map->previous;
    if (map->previous != NULL)
        map->previous->next = map->next;
    else
        map->file->maps = map->next;
}

Map *map_new(File *file, const mf_section *section, int64_t offset, int64_t length, size_t reserve,
             int *error)
{
    const mf_system *system = &file->state->call.system;
    size_t padding = (size_t)(offset % (int64_t)file->file.granularity);
    Map *map;

    if ((uint64_t)length > (uint64_t)PTRDIFF_MAX - padding) {
        *error = system->too_large;
        return NULL;
    }
    *error = 0;
    map = DATA(Map, PyType_GenericAlloc(file->state->map_type, 0));
    if (map == NULL)
        return NULL;
    map->file = NEW_REF(File, file);
    map->offset = offset - (int64_t)padding;
    map->padding = padding;
    map->map.reserved = reserve;
    map->map.chosen = file->chosen;
    map->map.flags = file->flags;
    map->map.protection = file->protection;
    *error = file->state->call.map(&file->file, section, file->access, map->offset,
                                   padding + (size_t)length, &map->map);
    if (*error != 0) {
        Py_DECREF(OBJECT(map));
        return NULL;
    }
    map->users = 1;
    put_on_list(map);
    return map;
}

uintptr_t file_buffers(File *file)
{
    uintptr_t sum = 0;
    Map *map;

    for (map = file->maps; map != NULL; map = map->next)
        sum += map->buffers;
    return sum;
}

int64_t map_length(const Map *map)
{
    return (int64_t)(map->map.length - map->padding);
}

int64_t map_room(const Map *map)
{
    return (int64_t)((map->map.reserved > map->map.length ? map->map.reserved : map->map.length) -
                     map->padding);
}

int map_release(Map *map)
{
    int error;

    if (tally(&map->users, -1) != 0)
        return 0;
    LOCK(map->file);
    take_off_list(map);
    UNLOCK(map->file);
    if (map->map.length < LONG_MAP)
        error = map->file->state->call.unmap(&map->map);
    else
        WITHOUT_GIL(error = map->file->state->call.unmap(&map->map));
    return error;
}

int map_unexport(Map *map)
{
    int error;

    tally(&map->buffers, -1);
    error = map_release(map);
    Py_DECREF(OBJECT(map));
    return error;
}

int map_discard(Map *map)
{
    int error;

    map->users = 0;
    take_off_list(map);
    error = map->file->state->call.unmap(&map->map);
    Py_DECREF(OBJECT(map));
    return error;
}

static void map_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    Py_DECREF(OBJECT(DATA(Map, object)->file));
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyType_Slot map_slots[] = {{Py_tp_dealloc, map_dealloc}, {0, NULL}};

PyType_Spec map_spec = {
    "mappedfile._memory.Map",
    SIZE(Map),
    0,
    TYPE_FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    map_slots,
};

char *pages_around(const Map *map, int64_t first, int64_t count, size_t *size)
{
    size_t page = map->file->state->call.system.page_size;
    size_t start = map->padding + (size_t)first, stop = start + (size_t)count;

    start -= start % page;
    stop = mf_round_up(stop, page);
    if (stop > map->map.length)
        stop = map->map.length;
    *size = stop - start;
    return map->map.base + start;
}

/* Rounds a range inwards, to the pages that share no byte with the rest of the window. That may be
 * no page at all. */
static char *pages_within(const Map *map, int64_t first, int64_t count, int64_t window,
                          size_t *size)
{
    size_t page = map->file->state->call.system.page_size;
    size_t start = map->padding + (size_t)first, stop = start + (size_t)count;

    if (first > 0)
        start = mf_round_up(start, page);
    else
        start -= start % page;
    if (stop < map->padding + (size_t)window)
        stop -= stop % page;
    *size = stop > start ? stop - start : 0;
    return map->map.base + start;
}

int is_lost(const Map *map, int64_t first, int64_t count, int64_t *at)
{
    uintptr_t from, to, start = map->padding + (uintptr_t)first;

#ifndef _WIN32
    atomic_thread_fence(memory_order_acquire); /* after the copy: another thread's handler may have
                                                  put zeros there */
#endif
    to = map->map.lost_to; /* it is set last, so it is read first */
    if (WITHOUT_GUARD || to == 0)
        return 0;
    from = map->map.lost_from;
    if (from >= start + (uintptr_t)count || start >= to)
        return 0;
    *at = map->offset + (int64_t)(from > start ? from : start);
    return 1;
}

PyObject *map_bytes(const Map *map, const char *from, Py_ssize_t count, int *failed)
{
    *failed = 0;
    if (count == 0)
        return PyBytes_FromStringAndSize(NULL, 0);
#ifdef _WIN32
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count);

    if (bytes != NULL)
        *failed = copy(map, PyBytes_AsString(bytes), from, count);
    return bytes;
#else
    (void)map;
    return PyBytes_FromStringAndSize(from, count);
#endif
}

int find_line_end(Map *map, const char *from, int64_t length, int64_t *count)
{
#ifdef _WIN32
    const mf_table *call = &map->file->state->call;
    int64_t at = -1;
    size_t end = 0;
    int error = call->search(&map->map, call->find, from, (size_t)length, "\n", 1, &end, &at);

    *count = at + 1;
    return error;
#else
    const char *end = memchr(from, '\n', (size_t)length);

    (void)map;
    *count = end == NULL ? 0 : end - from + 1;
    return 0;
#endif
}

int guard(State *state, int whole)
{
    int error;

    if (WITHOUT_GUARD || state->guard == GUARD_REFUSED || (state->guard == GUARD_WANTED && !whole))
        return 0;
    error = state->call.guard();
    if (state->guard == GUARD_WANTED)
        return 0; /* other code has taken its place for now: fault_guard() returns False */
    if (error == 0)
        state->guard = GUARD_WANTED;
    return error;
}

int flush_maps(File *file, int wait)
{
    State *state = file->state;
    Map **maps = NULL, *map;
    size_t n = 0, i, room = 0;
    int error = 0, flushing;

    LOCK(file);
    for (map = file->maps; map != NULL; map = map->next)
        room++;
    if (room > 0)
        maps = PyMem_Malloc(room * sizeof *maps);
    for (map = maps == NULL ? NULL : file->maps; map != NULL; map = map->next) {
        uintptr_t users = map->users;

        while (users != 0 && !mf_replace(&map->users, &users, users + 1))
            ;
        if (users != 0) /* otherwise another thread is unmapping it */
            maps[n++] = NEW_REF(Map, map);
    }
    UNLOCK(file);
    if (room > 0 && maps == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (i = 0; i < n; i++) {
        if (error == 0)
            CALL_AGAIN(state, error,
                       state->call.flush(&file->file, maps[i]->map.base, maps[i]->map.length,
                                         maps[i]->offset, wait));
        flushing = map_release(maps[i]);
        error = error != 0 ? error : flushing;
        Py_DECREF(OBJECT(maps[i]));
    }
    PyMem_Free(maps);
    return error;
}

/* Buffer: the exporter, which is the obj of a memoryview and of everything made from it. Buffers
 * are counted, not Py_buffers: np.ndarray(shape, dtype, memoryview) releases its Py_buffer at once,
 * and keeps obj. */
typedef struct {
    OBJECT_HEAD
    Map *map; /* NULL for an empty window */
    char *start;
    Py_ssize_t length;
    int readonly;
} Buffer;

/* Whether the next Buffer uses the memory of the last one. The GIL protects it. A debug build and
 * a sanitizer are to see every object. */
#if defined(Py_GIL_DISABLED) || defined(Py_DEBUG) || defined(__SANITIZE_ADDRESS__)
#define REUSE 0
#else
#define REUSE 1
#endif

int export(State *state, Map *map, char *start, int64_t length, int readonly, Py_buffer *view,
           int flags)
{
    static char nothing[1];
    Buffer *buffer = state->free_buffer;

    if (buffer != NULL) {
        state->free_buffer = NULL;
        Py_SET_REFCNT(OBJECT(buffer), 1); /* its type has stayed */
    } else {
        buffer = DATA(Buffer, PyObject_New(PyObject, state->buffer_type));
    }
    if (buffer == NULL)
        return -1;
    buffer->map = map;
    buffer->start = map == NULL ? nothing : start;
    buffer->length = (Py_ssize_t)length;
    buffer->readonly = readonly;
    if (map != NULL) {
        Py_INCREF(OBJECT(map));
        tally(&map->users, 1);
        tally(&map->buffers, 1);
    }
    /* The same as PyBuffer_FillInfo, inline. The caller has checked whether the buffer may be
     * writable. */
    view->buf = buffer->start;
    view->obj = OBJECT(buffer);
    view->len = buffer->length;
    view->itemsize = 1;
    view->readonly = readonly;
    view->ndim = 1;
    view->format = (flags & PyBUF_FORMAT) == PyBUF_FORMAT ? "B" : NULL;
    view->shape = (flags & PyBUF_ND) == PyBUF_ND ? &view->len : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &view->itemsize : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

static int buffer_get(PyObject *object, Py_buffer *view, int flags)
{
    Buffer *buffer = DATA(Buffer, object);

    return PyBuffer_FillInfo(view, object, buffer->start, buffer->length, buffer->readonly, flags);
}

static void buffer_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Map *map = DATA(Buffer, object)->map;
    int error;

    if (map != NULL) {
        tally(&map->buffers, -1);
        error = map_release(map);
        if (error != 0)
            report(map->file, error, "unmap", (PyObject *)type);
#if REUSE
        if (map->file->state->free_buffer == NULL) {
            map->file->state->free_buffer = object;
            Py_DECREF(OBJECT(map));
            return;
        }
#endif
        Py_DECREF(OBJECT(map));
    }
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_dealloc, buffer_dealloc},
    {Py_bf_getbuffer, buffer_get},
    {Py_tp_doc, "The exporter of a buffer, which keeps its memory mapped: obj of a memoryview."},
    {0, NULL},
};

PyType_Spec buffer_spec = {
    "mappedfile._memory.Buffer",
    SIZE(Buffer),
    0,
    TYPE_FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    buffer_slots,
};

/* Use: a call in progress, for the calls that Python makes through cffi. The end of the with
 * statement ends it. If an interrupt comes before that, deallocation ends it. */
typedef struct {
    OBJECT_HEAD
    Map *map;      /* NULL after its end, and for an empty range */
    File *file;    /* NULL if the file was already closed */
    int64_t first; /* the range, in bytes from the start of the map */
    int64_t count;
    unsigned long long address; /* where the pages of the range begin */
    unsigned long long size;    /* bytes in these pages */
    long long offset;           /* in the file */
    SHARED(unsigned long long)
    handle; /* the address of the mf_file until the use ends; 0: the file is closed */
    MUTEX
} Use;

PyObject *use_new(Map *map, File *file, int64_t first, int64_t count, int inwards, int64_t window)
{
    State *state = file->state;
    Use *use = DATA(Use, PyType_GenericAlloc(state->use_type, 0));
    size_t size = 0;

    if (use == NULL)
        return NULL;
    use->first = first;
    use->count = count;
    if (map != NULL) {
        use->map = NEW_REF(Map, map);
        tally(&map->users, 1);
        if (count != 0) {
            char *start = inwards ? pages_within(map, first, count, window, &size)
                                  : pages_around(map, first, count, &size);

            use->address = (uintptr_t)start;
            use->size = size;
            use->offset = map->offset + (start - map->map.base);
        }
    }
    if (file_use(file)) {
        use->file = NEW_REF(File, file);
        use->handle = (uintptr_t)&file->file;
    }
    return OBJECT(use);
}

/* Ends the use. Returns the system's code; *about is the file that the code is about, a reference
 * for the caller to drop. */
static int use_end(Use *use, File **about)
{
    Map *map;
    File *file;
    int error = 0, closing;

    *about = NULL;
    LOCK(use);
    map = use->map;
    file = use->file;
    use->map = NULL;
    use->file = NULL;
    use->handle = 0;
    UNLOCK(use);
    if (map != NULL) {
        error = map_release(map);
        *about = NEW_REF(File, map->file);
        Py_DECREF(OBJECT(map));
    }
    if (file != NULL) {
        closing = file_release(file);
        error = error != 0 ? error : closing;
        Py_XDECREF(OBJECT(*about));
        *about = file;
    }
    return error;
}

static PyObject *use_exit(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    File *file;
    int error = use_end(DATA(Use, object), &file);

    (void)args;
    (void)n;
    if (error != 0)
        raise_os_error(file, error, "unmap");
    Py_XDECREF(OBJECT(file));
    return error != 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *use_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(object);
}

/* Begins another use of the map, since another thread may end this one. NULL: the use has ended, or
 * has no map. */
static Map *use_again(Use *use)
{
    Map *map;

    LOCK(use);
    map = use->map;
    if (map != NULL) {
        Py_INCREF(OBJECT(map));
        tally(&map->users, 1);
    }
    UNLOCK(use);
    return map;
}

/* Ends the use of use_again. Returns None; or NULL if that fails or an exception is set. */
static PyObject *use_no_more(Map *map)
{
    int error = map_release(map);

    if (error != 0)
        raise_os_error(map->file, error, "unmap");
    Py_DECREF(OBJECT(map));
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* Raises if bytes of the range are gone. */
static PyObject *use_check(PyObject *object, PyObject *unused)
{
    Use *use = DATA(Use, object);
    Map *map = use_again(use);
    int64_t at;

    (void)unused;
    if (map == NULL)
        return Py_NewRef(Py_None);
    if (is_lost(map, use->first, use->count, &at))
        raise_fault(map->file, at);
    return use_no_more(map);
}

/* touch(place, size): reads one byte of every page of a range; place counts from address. */
static PyObject *use_touch(PyObject *object, PyObject *args)
{
    Use *use = DATA(Use, object);
    unsigned long long place, size;
    size_t page;
    char byte;
    int failed;
    int64_t at;
    Map *map;

    if (!PyArg_ParseTuple(args, "KK", &place, &size))
        return NULL;
    map = place > use->size || size > use->size - place ? NULL : use_again(use);
    if (map == NULL) {
        PyErr_SetString(PyExc_ValueError, "the use has ended, or the range is outside of it");
        return NULL;
    }
    page = map->file->state->call.system.page_size;
    WITHOUT_GIL(failed = map->file->state->call.copy(
                    &map->map, &byte, 0, (char *)(uintptr_t)(use->address + place), (ptrdiff_t)page,
                    (size_t)((size + page - 1) / page)));
    at = use->offset + (int64_t)place - map->offset - (int64_t)map->padding;
    if (is_lost(map, at, (int64_t)size, &at) || failed)
        raise_fault(map->file, at);
    return use_no_more(map);
}

static void use_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    File *file;
    int error = use_end(DATA(Use, object), &file);

    if (error != 0)
        report(file, error, "unmap", (PyObject *)type);
    Py_XDECREF(OBJECT(file));
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyMethodDef use_methods[] = {
    {"__enter__", use_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(use_exit), METH_FASTCALL, NULL},
    {"touch", use_touch, METH_VARARGS, NULL},
    {"check", use_check, METH_NOARGS, "Raise MappingFault if bytes of the range are gone."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef use_members[] = {
    {"address", T_ULONGLONG, offsetof(Use, address), READONLY | RELATIVE,
     "where the pages of the range begin"},
    {"size", T_ULONGLONG, offsetof(Use, size), READONLY | RELATIVE,
     "how many bytes these pages have"},
    {"offset", T_LONGLONG, offsetof(Use, offset), READONLY | RELATIVE,
     "where these pages begin in the file, "
     "in bytes"},
    {"handle", T_ULONGLONG, offsetof(Use, handle), READONLY | RELATIVE,
     "the address of the mf_file, or 0 when the file is closed"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot use_slots[] = {
    {Py_tp_dealloc, use_dealloc},
    {Py_tp_methods, use_methods},
    {Py_tp_members, use_members},
    {0, NULL},
};

PyType_Spec use_spec = {
    "mappedfile._memory.Use",
    SIZE(Use),
    0,
    TYPE_FLAGS | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    use_slots,
};

/* The module */

static State *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

/* connect(table, os_error, mapping_fault, lock_error, alive_error, os.close): _system.py calls it
 * once. */
static PyObject *connect(PyObject *module, PyObject *args)
{
    State *state = state_of(module);
    PyObject *os_error, *mapping_fault, *lock_error, *alive_error, *close_descriptor;
    Py_buffer table;

    if (!PyArg_ParseTuple(args, "y*OOOOO", &table, &os_error, &mapping_fault, &lock_error,
                          &alive_error, &close_descriptor))
        return NULL;
    if (state->os_error != NULL || table.len != sizeof state->call) {
        PyBuffer_Release(&table);
        PyErr_SetString(PyExc_RuntimeError,
                        "the backend is connected already, or is of another version");
        return NULL;
    }
    memcpy(&state->call, table.buf, sizeof state->call);
    PyBuffer_Release(&table);
    state->os_error = Py_NewRef(os_error);
    state->mapping_fault = Py_NewRef(mapping_fault);
    state->lock_error = Py_NewRef(lock_error);
    state->alive_error = Py_NewRef(alive_error);
    state->close_descriptor = Py_NewRef(close_descriptor);
    return Py_NewRef(Py_None);
}

/* guard_policy(policy=None): returns the policy, and sets a new one if it is given. */
static PyObject *guard_policy(PyObject *module, PyObject *args)
{
    State *state = state_of(module);
    int before = state->guard, policy = before;

    if (!PyArg_ParseTuple(args, "|i", &policy))
        return NULL;
    state->guard = policy;
    return PyLong_FromLong(before);
}

#ifdef Py_TARGET_ABI3T
size_t head_size;

/* Finds out where the struct of an object begins: PyType_GetTypeDataSize leaves out what Python has
 * before it. */
static int measure_head(PyTypeObject *type)
{
    PyObject *size = PyObject_GetAttrString((PyObject *)type, "__basicsize__");
    Py_ssize_t whole = size == NULL ? -1 : PyLong_AsSsize_t(size);

    Py_XDECREF(size);
    if (whole < 0)
        return -1;
    head_size = (size_t)(whole - PyType_GetTypeDataSize(type));
    return 0;
}
#else
static int measure_head(PyTypeObject *type)
{
    (void)type;
    return 0;
}
#endif

static int execute(PyObject *module)
{
    State *state = state_of(module);
    struct {
        PyTypeObject **type;
        PyType_Spec *spec;
    } all[] = {
        {&state->file_type, &file_spec},     {&state->map_type, &map_spec},
        {&state->buffer_type, &buffer_spec}, {&state->use_type, &use_spec},
        {&state->window_type, &window_spec}, {&state->iterator_type, &iterator_spec},
        {&state->stream_type, &stream_spec}, {&state->mmap_type, &mmap_spec},
    };
    size_t i;

    for (i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i].type = (PyTypeObject *)PyType_FromModuleAndSpec(module, all[i].spec, NULL);
        if (*all[i].type == NULL)
            return -1;
    }
    if (measure_head(state->file_type) < 0 || PyModule_AddType(module, state->window_type) < 0 ||
        PyModule_AddType(module, state->buffer_type) < 0 ||
        PyModule_AddType(module, state->stream_type) < 0 ||
        PyModule_AddType(module, state->mmap_type) < 0 ||
        PyModule_AddIntMacro(module, GUARD_PENDING) < 0 ||
        PyModule_AddIntMacro(module, GUARD_WANTED) < 0 ||
        PyModule_AddIntMacro(module, GUARD_REFUSED) < 0 ||
        PyModule_AddIntMacro(module, MF_READ) < 0 || PyModule_AddIntMacro(module, MF_WRITE) < 0 ||
        PyModule_AddIntMacro(module, MF_COPY) < 0 ||
        PyModule_AddIntMacro(module, MF_EXISTING) < 0 ||
        PyModule_AddIntMacro(module, MF_EMPTIED) < 0 || PyModule_AddIntMacro(module, MF_NEW) < 0)
        return -1;
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = state_of(module);

    Py_VISIT(state->file_type);
    Py_VISIT(state->map_type);
    Py_VISIT(state->buffer_type);
    if (state->free_buffer != NULL) /* its memory has the reference to its type still */
        Py_VISIT(state->buffer_type);
    Py_VISIT(state->use_type);
    Py_VISIT(state->window_type);
    Py_VISIT(state->iterator_type);
    Py_VISIT(state->stream_type);
    Py_VISIT(state->mmap_type);
    Py_VISIT(state->os_error);
    Py_VISIT(state->mapping_fault);
    Py_VISIT(state->lock_error);
    Py_VISIT(state->alive_error);
    Py_VISIT(state->close_descriptor);
    return 0;
}

static int module_clear(PyObject *module)
{
    State *state = state_of(module);

    if (state->free_buffer != NULL) {
        PyObject_Free(state->free_buffer);
        state->free_buffer = NULL;
        Py_DECREF(state->buffer_type);
    }
    Py_CLEAR(state->file_type);
    Py_CLEAR(state->map_type);
    Py_CLEAR(state->buffer_type);
    Py_CLEAR(state->use_type);
    Py_CLEAR(state->window_type);
    Py_CLEAR(state->iterator_type);
    Py_CLEAR(state->stream_type);
    Py_CLEAR(state->mmap_type);
    Py_CLEAR(state->os_error);
    Py_CLEAR(state->mapping_fault);
    Py_CLEAR(state->lock_error);
    Py_CLEAR(state->alive_error);
    Py_CLEAR(state->close_descriptor);
    return 0;
}

static PyMethodDef functions[] = {
    {"connect", connect, METH_VARARGS, NULL},
    {"guard_policy", guard_policy, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

#ifdef Py_TARGET_ABI3T
PyMODEXPORT_FUNC PyModExport__memory(void)
{
    PyABIInfo_VAR(abi);
    static PySlot slots[] = {
        PySlot_STATIC_DATA(Py_mod_abi, &abi),
        PySlot_STATIC_DATA(Py_mod_name, "mappedfile._memory"),
        PySlot_SIZE(Py_mod_state_size, sizeof(State)),
        PySlot_STATIC_DATA(Py_mod_methods, functions),
        PySlot_FUNC(Py_mod_exec, execute),
        PySlot_FUNC(Py_mod_state_traverse, module_traverse),
        PySlot_FUNC(Py_mod_state_clear, module_clear),
        PySlot_DATA(Py_mod_gil, Py_MOD_GIL_NOT_USED),
        PySlot_END,
    };

    return slots;
}
#else
static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "mappedfile._memory", NULL,         sizeof(State), functions,
    module_slots,          module_traverse,      module_clear, NULL,
};

PyMODINIT_FUNC PyInit__memory(void)
{
    return PyModuleDef_Init(&definition);
}
#endif
