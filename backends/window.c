/* Window: bytes of a file in memory, as Python sees them. MappedFile and View are Python classes on
 * top of it.
 *
 * The caller's objects are converted first, since that may run Python code. Then the window is
 * checked and used, with no Python code in between. A long operation is a use of the map
 * (memory.h): the window may be closed meanwhile. */
#include "memory.h"

#define SHORT_SEARCH (64 << 10) /* bytes */
#define SEARCH_PIECE (1 << 20)
#define LOOK_EVERY 50 /* milliseconds between two checks for signals */

/* Reading */

static PyObject *raise_index(Window *self, PyObject *key, int64_t length)
{
    if (key != NULL && self->mmap)
        PyErr_SetString(PyExc_IndexError, "mmap index out of range");
    else if (key != NULL) /* NULL for an iterator, which ends there */
        PyErr_Format(PyExc_IndexError, "index %R is out of range for %lld bytes", key,
                     (long long)length);
    return NULL;
}

static PyObject *get_byte(Window *self, Py_ssize_t place, PyObject *key)
{
    Py_ssize_t at = place;
    int64_t length;
    char byte;
    Map *map;
    int failed;

    if (acquire(self) < 0)
        return NULL;
    length = self->length;
    if (at < 0)
        at += (Py_ssize_t)length;
    if (at < 0 || at >= length) {
        UNLOCK(self->file);
        return raise_index(self, key, length);
    }
    map = self->map;
    failed = copy(map, &byte, self->start + at, 1);
    if (failed == 0 && is_whole(map)) {
        UNLOCK(self->file);
        return PyLong_FromLong((unsigned char)byte);
    }
    Py_INCREF(OBJECT(map));
    UNLOCK(self->file);
    failed = check_fault(map, failed, at, 1);
    Py_DECREF(OBJECT(map));
    return failed ? NULL : PyLong_FromLong((unsigned char)byte);
}

static PyObject *get_slice(Window *self, PyObject *key)
{
    Py_ssize_t start, stop, step, count;
    PyObject *bytes;
    int64_t first;
    Map *map;
    int failed;

    if (PySlice_Unpack(key, &start, &stop, &step) < 0 || acquire(self) < 0)
        return NULL;
    count = PySlice_AdjustIndices((Py_ssize_t)self->length, &start, &stop, step);
    bytes = PyBytes_FromStringAndSize(NULL, count);
    if (bytes == NULL || count == 0) {
        UNLOCK(self->file);
        return bytes;
    }
    map = self->map;
    if (step == 1)
        failed = copy(map, PyBytes_AsString(bytes), self->start + start, count);
    else
        failed = self->file->state->call.copy(&map->map, PyBytes_AsString(bytes), 1,
                                              self->start + start, step, (size_t)count);
    if (failed == 0 && is_whole(map)) {
        UNLOCK(self->file);
        return bytes;
    }
    Py_INCREF(OBJECT(map));
    UNLOCK(self->file);
    first = step > 0 ? start : start + (count - 1) * step;
    failed = check_fault(map, failed, first, (count - 1) * (step > 0 ? step : -step) + 1);
    Py_DECREF(OBJECT(map));
    if (failed)
        Py_CLEAR(bytes);
    return bytes;
}

static PyObject *raise_key(Window *self, PyObject *key)
{
    if (self->mmap)
        PyErr_SetString(PyExc_TypeError, "mmap indices must be integers");
    else
        PyErr_Format(PyExc_TypeError, "indices must be integers or slices, not %R", Py_TYPE(key));
    return NULL;
}

PyObject *window_subscript(PyObject *object, PyObject *key)
{
    Window *self = DATA(Window, object);
    Py_ssize_t place;

    if (PyLong_CheckExact(key)) {
        place = PyLong_AsSsize_t(key);
        if (place != -1 || !PyErr_Occurred())
            return get_byte(self, place, key);
        PyErr_Clear(); /* raised below */
    }
    if (self->mmap && !self->open)
        return raise_closed(self);
    if (Py_IS_TYPE(key, &PySlice_Type))
        return get_slice(self, key);
    if (!PyIndex_Check(key))
        return raise_key(self, key);
    place = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (place == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_IndexError) && self->open) {
            PyErr_Clear();
            raise_index(self, key, self->length);
        }
        return NULL;
    }
    return get_byte(self, place, key);
}

/* For reversed(). */
static PyObject *item(PyObject *object, Py_ssize_t place)
{
    PyObject *key = PyLong_FromSsize_t(place);
    PyObject *byte = key == NULL ? NULL : get_byte(DATA(Window, object), place, key);

    Py_XDECREF(key);
    return byte;
}

Py_ssize_t window_length(PyObject *object)
{
    Window *self = DATA(Window, object);

    if (!self->open) {
        raise_closed(self);
        return -1;
    }
    if (self->length > PY_SSIZE_T_MAX) {
        PyErr_Format(PyExc_OverflowError, "the %s has %lld bytes, which this Python cannot count",
                     kind_of(self), (long long)self->length);
        return -1;
    }
    return (Py_ssize_t)self->length;
}

/* Writes count bytes into a writable window, and takes and releases the lock. */
static int put(Window *self, Py_ssize_t first, Py_ssize_t step, const char *from, Py_ssize_t count)
{
    Map *map = self->map;
    int failed;

    if (step == 1)
        failed = copy(map, self->start + first, from, count);
    else
        failed = self->file->state->call.copy(&map->map, self->start + first, step, from, 1,
                                              (size_t)count);
    if (failed == 0 && is_whole(map)) {
        UNLOCK(self->file);
        return 0;
    }
    Py_INCREF(OBJECT(map));
    UNLOCK(self->file);
    if (step < 0)
        first += (count - 1) * step;
    failed = check_fault(map, failed, first, (count - 1) * (step > 0 ? step : -step) + 1);
    Py_DECREF(OBJECT(map));
    return failed;
}

/* Raises TypeError or ValueError for a wrong byte, and says what to write instead. */
static void raise_byte(Window *self, Py_ssize_t place, PyObject *value)
{
    Py_ssize_t length = PyBytes_Check(value) ? PyBytes_Size(value) : -1, end;
    PyObject *until, *what;

    if (place < 0 && place + length > 0)
        place += (Py_ssize_t)self->length;
    end = place + (length < 0 ? 1 : length);
    until = end == 0 ? PyUnicode_FromString("")
                     : PyUnicode_FromFormat("%zd", end); /* w[-1:] ends at the end of the window */
    what = length < 0 || length > 20 ? PyUnicode_FromString("...") : PyObject_Repr(value);

    if (until != NULL && what != NULL && length == 1)
        PyErr_Format(
            PyExc_TypeError,
            "a byte is set to an int from 0 to 255, not to %R: write w[%zd] = %d, or w[%zd:%U] = "
            "%U",
            Py_TYPE(value), place, (unsigned char)PyBytes_AsString(value)[0], place, until, what);
    else if (until != NULL && what != NULL)
        PyErr_Format(
            PyExc_TypeError,
            "a byte is set to an int from 0 to 255, not to %R; to set bytes, write w[%zd:%U] = %U",
            Py_TYPE(value), place, until, what);
    Py_XDECREF(until);
    Py_XDECREF(what);
}

static int set_byte(Window *self, PyObject *key, PyObject *value)
{
    Py_ssize_t place;
    int64_t length;
    char byte;

    if (!PyIndex_Check(key)) {
        raise_key(self, key);
        return -1;
    }
    place = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (place == -1 && PyErr_Occurred())
        return -1;
    if (self->mmap && (place < -self->length || place >= self->length)) {
        raise_index(self, key, self->length);
        return -1;
    }
    if (!PyIndex_Check(value)) {
        if (self->mmap)
            PyErr_SetString(PyExc_TypeError, "mmap item value must be an int");
        else
            raise_byte(self, place, value);
        return -1;
    }
    if (to_byte(value, self->mmap ? PyExc_TypeError : NULL, &byte) < 0 || acquire(self) < 0)
        return -1;
    length = self->length;
    if (place < 0)
        place += (Py_ssize_t)length;
    if (place < 0 || place >= length) {
        UNLOCK(self->file);
        raise_index(self, key, length);
        return -1;
    }
    return put(self, place, 1, &byte, 1);
}

static int set_slice(Window *self, PyObject *key, PyObject *value)
{
    Py_ssize_t start, stop, step, count;
    Py_buffer data = {0};
    char *apart = NULL;
    int failed = -1;

    if (PySlice_Unpack(key, &start, &stop, &step) < 0)
        return -1;
    if (PyBytes_CheckExact(value)) {
        data.buf = PyBytes_AsString(value);
        data.len = PyBytes_Size(value);
    } else if (!PyObject_CheckBuffer(value)) {
        PyErr_Format(PyExc_TypeError, "a slice is set to a bytes-like object, not to %R",
                     Py_TYPE(value));
        return -1;
    } else if (to_bytes(value, &data) < 0) {
        return -1;
    }
    /* The bytes may lie in a map, even in this one. With step 1, memmove is right for that.
     * Otherwise they are copied beforehand. */
    if (step != 1 && !PyBytes_CheckExact(value)) {
        apart = PyMem_Malloc((size_t)data.len + 1);
        if (apart == NULL) {
            PyErr_NoMemory();
            goto done;
        }
        memcpy(apart, data.buf, (size_t)data.len);
    }
    if (acquire(self) < 0)
        goto done;
    count = PySlice_AdjustIndices((Py_ssize_t)self->length, &start, &stop, step);
    if (data.len != count) {
        UNLOCK(self->file);
        PyErr_Format(self->mmap ? PyExc_IndexError : PyExc_ValueError,
                     "a slice of %zd bytes cannot be set to %zd bytes", count, data.len);
    } else if (count == 0) {
        UNLOCK(self->file);
        failed = 0;
    } else {
        failed = put(self, start, step, apart != NULL ? apart : data.buf, count);
    }
done:
    if (apart != NULL)
        PyMem_Free(apart);
    if (data.obj != NULL)
        PyBuffer_Release(&data);
    return failed;
}

int window_assign(PyObject *object, PyObject *key, PyObject *value)
{
    Window *self = DATA(Window, object);

    if (value == NULL) {
        if (self->mmap && !self->open)
            raise_closed(self);
        else
            PyErr_SetString(
                PyExc_TypeError,
                "the bytes of a file cannot be deleted: set them, or resize() the file");
        return -1;
    }
    if (!self->open || self->file->access == MF_READ) {
        if (!self->open)
            raise_closed(self);
        else
            raise_readonly(self, PyExc_TypeError);
        return -1;
    }
    return Py_IS_TYPE(key, &PySlice_Type) ? set_slice(self, key, value)
                                          : set_byte(self, key, value);
}

/* Iteration */

typedef struct {
    OBJECT_HEAD
    Window *window; /* NULL at the end */
    Py_ssize_t place;
    MUTEX
} Iterator;

static PyObject *iterate(PyObject *object)
{
    Window *self = DATA(Window, object);
    Iterator *iterator;

    if (!self->open)
        return raise_closed(self);
    iterator = DATA(Iterator, PyType_GenericAlloc(self->file->state->iterator_type, 0));
    if (iterator != NULL)
        iterator->window = DATA(Window, Py_NewRef(object));
    return OBJECT(iterator);
}

static PyObject *iterator_next(PyObject *object)
{
    Iterator *self = DATA(Iterator, object);
    PyObject *byte;
    Window *window, *ended = NULL;
    Py_ssize_t place;

    LOCK(self);
    window = self->window;
    place = self->place++;
    Py_XINCREF(OBJECT(window)); /* another thread may reach the end meanwhile */
    UNLOCK(self);
    if (window == NULL)
        return NULL;
    byte = get_byte(window, place, NULL);
    if (byte == NULL && !PyErr_Occurred()) {
        LOCK(self);
        ended = self->window;
        self->window = NULL;
        UNLOCK(self);
    }
    Py_XDECREF(OBJECT(ended));
    Py_DECREF(OBJECT(window));
    return byte;
}

/* A window of a subclass may have its iterator as an attribute, which is a cycle. */
static int iterator_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(OBJECT(DATA(Iterator, object)->window));
    return 0;
}

static int iterator_clear(PyObject *object)
{
    Iterator *self = DATA(Iterator, object);
    Window *window = self->window;

    self->window = NULL;
    Py_XDECREF(OBJECT(window));
    return 0;
}

static void iterator_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);

    PyObject_GC_UnTrack(object);
    iterator_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_iter, PyObject_SelfIter},     {Py_tp_iternext, iterator_next},
    {Py_tp_traverse, iterator_traverse}, {Py_tp_clear, iterator_clear},
    {Py_tp_dealloc, iterator_dealloc},   {0, NULL},
};

PyType_Spec iterator_spec = {
    "mappedfile._memory.Iterator",
    SIZE(Iterator),
    0,
    TYPE_FLAGS | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    iterator_slots,
};

/* Searching */

typedef struct {
    Search kind;
    const char *needle;
    int64_t needle_length;
    int64_t first; /* the range, which advances */
    int64_t last;
    int64_t result;
    int64_t length; /* of the window, when it was begun */
    int done;
} Task;

/* Searches one piece of the window. Returns the backend's code. */
static int search_piece(const mf_table *call, Map *map, const char *start, Task *task,
                        int64_t piece)
{
    mf_searcher *const how[] = {call->find, call->rfind, call->count};
    int64_t first = task->first, last = task->last, found = -1;
    size_t end = 0;
    int error;

    /* A match that begins in the piece ends in it. */
    if (piece < last - first - (task->needle_length - 1)) {
        if (task->kind == RFIND)
            first = last - piece - (task->needle_length - 1);
        else
            last = first + piece + (task->needle_length - 1);
    }
    error = call->search(&map->map, how[task->kind], start + first, (size_t)(last - first),
                         task->needle, (size_t)task->needle_length, &end, &found);
    if (error != 0)
        return error;
    task->done = first == task->first && last == task->last;
    if (task->kind == COUNT) {
        task->result += found;
        task->first += (int64_t)end > piece ? (int64_t)end : piece;
    } else if (found >= 0) {
        task->result = first + found;
        task->done = 1;
    } else if (task->kind == RFIND) {
        task->last -= piece;
    } else {
        task->first += piece;
    }
    task->done = task->done || task->last - task->first < task->needle_length;
    return 0;
}

/* Searches piece by piece, and checks for signals in between. Returns -1 if a signal handler
 * raised. */
static int search_long(const mf_table *call, Map *map, const char *start, Task *task)
{
    int64_t piece = SEARCH_PIECE > 16 * task->needle_length ? SEARCH_PIECE
                                                            : 16 * task->needle_length;
    int64_t then = call->milliseconds();
    int error = 0;
    PyThreadState *thread = PyEval_SaveThread();

    while (error == 0 && !task->done) {
        error = search_piece(call, map, start, task, piece);
        if (error == 0 && !task->done && call->milliseconds() - then >= LOOK_EVERY) {
            PyEval_RestoreThread(thread);
            error = PyErr_CheckSignals();
            thread = PyEval_SaveThread();
            then = call->milliseconds();
        }
    }
    PyEval_RestoreThread(thread);
    return error;
}

/* Resolves the start and end of a search as bytes.find does. The start may lie past the end. */
static void clamp(int64_t length, int64_t *first, int64_t *last)
{
    if (*first < 0)
        *first = *first + length > 0 ? *first + length : 0;
    if (*last < 0)
        *last = *last + length > 0 ? *last + length : 0;
    if (*last > length)
        *last = length;
}

/* Whether a search is needed; otherwise the result is already set. */
static int begin_search(Task *task, int64_t length)
{
    clamp(length, &task->first, &task->last);
    task->result = task->kind == COUNT ? 0 : -1;
    task->done = 0;
    if (task->last - task->first < task->needle_length)
        return 0;
    if (task->needle_length != 0)
        return 1;
    task->result = task->kind == COUNT  ? task->last - task->first + 1
                   : task->kind == FIND ? task->first
                                        : task->last;
    return 0;
}

/* Searches a window. A long search of an Mmap needs a turn: without one it returns 0 after the
 * first piece, and done is 0. With it the search goes on, or begins again if the length has
 * changed. */
static int try_search(Window *self, Task *task, int has_turn, const Task *begin)
{
    const mf_table *call;
    int64_t first, last;
    Map *map = NULL;
    int error = 0, goes_on;

    if (acquire(self) < 0)
        return -1;
    goes_on = begin != task && self->length == task->length;
    if (!goes_on) {
        *task = *begin;
        task->length = self->length;
        if (!begin_search(task, self->length)) {
            UNLOCK(self->file);
            task->done = 1;
            return 0;
        }
    }
    call = &self->file->state->call;
    first = task->first;
    last = task->last;
    map = self->map;
    /* The first piece is searched with the GIL: releasing the GIL costs more than such a short
     * search. */
    if (!goes_on)
        error = search_piece(call, map, self->start, task, SHORT_SEARCH);
    if (error == 0 && is_whole(map) && (task->done || !has_turn)) {
        UNLOCK(self->file);
        return 0;
    }
    if (error == 0 && !has_turn && !task->done) { /* it goes on behind the bytes so far */
        first = task->kind == RFIND ? task->last : first;
        last = task->kind == RFIND ? last : task->first;
    }
    Py_INCREF(OBJECT(map));
    tally(&map->users, 1);
    UNLOCK(self->file);
    if (error == 0 && !task->done && has_turn)
        error = search_long(call, map, map->map.base + map->padding, task);
    if (error >= 0)
        error = check_fault(map, error, first, last - first);
    return window_release(self, map) != 0 ? -1 : error;
}

static int search_window(Window *self, Task *task)
{
    const Task begin = *task;
    int begun, error = try_search(self, task, !self->mmap, task);

    if (error != 0 || task->done)
        return error;
    begun = begin_call(self);
    if (begun < 0)
        return -1;
    error = try_search(self, task, 1, &begin);
    end_call(self, begun);
    return PyErr_Occurred() ? -1 : error;
}

static int to_limit(PyObject *limit, int64_t *out)
{
    if (limit == Py_None)
        return 0;
    *out = PyNumber_AsSsize_t(limit, NULL); /* clamped to the limits of Py_ssize_t */
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

PyObject *search(Window *self, Search kind, const char *name, int64_t first, PyObject *const *args,
                 Py_ssize_t n)
{
    Task task = {kind, NULL, 0, first, PY_SSIZE_T_MAX, 0, 0, 0};
    Py_buffer data = {0};
    char byte;
    int error;

    if (n < 1 || n > 3) {
        PyErr_Format(
            PyExc_TypeError,
            "%s() takes what to search for, and where to start and end: 1 to 3 arguments, not %zd",
            name, n);
        return NULL;
    }
    if ((n > 1 && to_limit(args[1], &task.first) < 0) ||
        (n > 2 && to_limit(args[2], &task.last) < 0))
        return NULL;
    if (PyBytes_CheckExact(args[0])) {
        task.needle = PyBytes_AsString(args[0]);
        task.needle_length = PyBytes_Size(args[0]);
    } else if (PyObject_CheckBuffer(args[0])) {
        if (to_bytes(args[0], &data) < 0)
            return NULL;
        task.needle = data.buf;
        task.needle_length = data.len;
    } else if (PyIndex_Check(args[0])) {
        if (to_byte(args[0], NULL, &byte) < 0)
            return NULL;
        task.needle = &byte;
        task.needle_length = 1;
    } else {
        return PyErr_Format(PyExc_TypeError,
                            "what to search for must be bytes-like, or an int for one byte, not %R",
                            Py_TYPE(args[0]));
    }
    error = search_window(self, &task);
    if (data.obj != NULL)
        PyBuffer_Release(&data);
    return error != 0 ? NULL : PyLong_FromLongLong(task.result);
}

static PyObject *window_find(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return search(DATA(Window, self), FIND, "find", 0, args, n);
}

static PyObject *window_rfind(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return search(DATA(Window, self), RFIND, "rfind", 0, args, n);
}

static PyObject *window_count(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return search(DATA(Window, self), COUNT, "count", 0, args, n);
}

/* Raises ValueError if the place is -1, as bytes.index does. */
static PyObject *require_found(PyObject *place)
{
    if (place == NULL || PyLong_AsLongLong(place) >= 0)
        return place;
    Py_DECREF(place);
    PyErr_SetString(PyExc_ValueError, "subsection not found");
    return NULL;
}

static PyObject *window_index(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return require_found(search(DATA(Window, self), FIND, "index", 0, args, n));
}

static PyObject *window_rindex(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return require_found(search(DATA(Window, self), RFIND, "rindex", 0, args, n));
}

/* Whether the bytes from first to last begin or end with part. */
static int has_there(Window *self, int64_t first, int64_t last, const Py_buffer *part, int at_end)
{
    const mf_table *call;
    int64_t at = -1;
    size_t end;
    int failed;
    Map *map;

    if (acquire(self) < 0)
        return -1;
    clamp(self->length, &first, &last);
    if (last - first < part->len || part->len == 0) {
        UNLOCK(self->file);
        return last - first >= part->len;
    }
    if (at_end)
        first = last - part->len;
    call = &self->file->state->call;
    map = self->map;
    failed = call->search(&map->map, call->find, self->start + first, (size_t)part->len, part->buf,
                          (size_t)part->len, &end, &at);
    if (failed == 0 && is_whole(map)) {
        UNLOCK(self->file);
        return at == 0;
    }
    Py_INCREF(OBJECT(map));
    UNLOCK(self->file);
    failed = check_fault(map, failed, first, part->len);
    Py_DECREF(OBJECT(map));
    return failed != 0 ? -1 : at == 0;
}

static PyObject *has_part(Window *self, const char *name, PyObject *const *args, Py_ssize_t n,
                          int at_end)
{
    int64_t first = 0, last = PY_SSIZE_T_MAX;
    Py_ssize_t i, parts;
    Py_buffer data;
    int has = 0;

    if (n < 1 || n > 3) {
        PyErr_Format(
            PyExc_TypeError,
            "%s() takes what to look for, and where to start and end: 1 to 3 arguments, not %zd",
            name, n);
        return NULL;
    }
    if ((n > 1 && to_limit(args[1], &first) < 0) || (n > 2 && to_limit(args[2], &last) < 0))
        return NULL;
    if (!self->open)
        return raise_closed(self);
    parts = PyTuple_Check(args[0]) ? PyTuple_Size(args[0]) : 1;
    for (i = 0; i < parts && has == 0; i++) {
        PyObject *part = PyTuple_Check(args[0]) ? PyTuple_GetItem(args[0], i) : args[0];

        if (!PyObject_CheckBuffer(part))
            return PyErr_Format(PyExc_TypeError,
                                "%s() takes a bytes-like object, or a tuple of some, not %R", name,
                                Py_TYPE(part));
        if (to_bytes(part, &data) < 0)
            return NULL;
        has = has_there(self, first, last, &data, at_end);
        PyBuffer_Release(&data);
    }
    return has < 0 ? NULL : PyBool_FromLong(has);
}

static PyObject *window_startswith(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return has_part(DATA(Window, self), "startswith", args, n, 0);
}

static PyObject *window_endswith(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return has_part(DATA(Window, self), "endswith", args, n, 1);
}

/* A number comes first, as in bytes: np.int64(65) is also bytes-like, and is taken as a byte. */
int window_contains(PyObject *object, PyObject *sub)
{
    PyObject *number = NULL, *place;
    long long found;

    if (PyIndex_Check(sub) && !PyBytes_Check(sub)) {
        number = PyNumber_Index(sub);
        if (number == NULL && !PyObject_CheckBuffer(sub))
            return -1;
        PyErr_Clear(); /* an array of NumPy: only one of a single number is an index */
    }
    place = search(DATA(Window, object), FIND, "find", 0, number != NULL ? &number : &sub, 1);
    Py_XDECREF(number);
    if (place == NULL)
        return -1;
    found = PyLong_AsLongLong(place);
    Py_DECREF(place);
    return found >= 0;
}

/* Buffers */

int window_get_buffer(PyObject *object, Py_buffer *view, int flags)
{
    Window *self = DATA(Window, object);
    int failed, readonly;

    if (view == NULL) {
        PyErr_SetString(PyExc_BufferError, "the Py_buffer is NULL");
        return -1;
    }
    view->obj = NULL;
    if (acquire(self) < 0)
        return -1;
    readonly = self->file->access == MF_READ;
    if (readonly && (flags & PyBUF_WRITABLE) == PyBUF_WRITABLE) {
        UNLOCK(self->file);
        raise_readonly(self, PyExc_BufferError);
        return -1;
    }
    failed = export(self->file->state, self->length == 0 ? NULL : self->map, self->start,
                    self->length, readonly, view, flags);
    UNLOCK(self->file);
    return failed;
}

/* There is nothing to do, since Buffer objects are counted instead. The slot must exist: NumPy
 * keeps the buffer of an object that can release one, and only the address from any other object.
 */
void window_release_buffer(PyObject *object, Py_buffer *view)
{
    (void)object;
    (void)view;
}

static PyObject *window_data(PyObject *self, void *unused)
{
    (void)unused;
    return PyMemoryView_FromObject(self);
}

/* Flushing and other system calls */

static PyObject *sync_file(Window *self, int durable)
{
    File *file = self->file;
    State *state = file->state;
    int error = 0, closing;

    if (!file_use(file))
        return raise_closed(self);
    if (!state->call.system.sync_covers_maps)
        error = flush_maps(file, durable);
    if (error == 0)
        CALL_AGAIN(state, error, state->call.sync(&file->file, durable));
    closing = file_release(file);
    if (error != 0 || closing != 0)
        return raise_os_error(file, error != 0 ? error : closing, "flush");
    if (file->file.faults != 0)
        return raise_faulted(self);
    return Py_NewRef(Py_None);
}

PyObject *flush_range(Window *self, int64_t first, int64_t count, int durable)
{
    File *file = self->file;
    State *state = file->state;
    const mf_table *call = &state->call;
    int64_t length, at;
    int error, used, closing = 0;
    size_t size;
    char *base;
    Map *map;

    used = file_use(file);
    if (durable && !used)
        return PyErr_Format(
            PyExc_ValueError,
            "the file %R is closed, and a durable flush needs it: flush before closing it, or use "
            "flush(durable=False)",
            file->name);
    map = window_use(self, &length);
    if (map != NULL &&
        to_range(self, first, length, &count) < 0) { /* another thread has shrunk the file */
        window_release(self, map);
        map = NULL;
    }
    if (map == NULL) {
        if (used)
            file_release(file);
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    base = pages_around(map, first, count, &size);
    at = map->offset + (base - map->map.base);
    CALL_AGAIN(
        state, error,
        call->flush(used && file->file.handle != -1 ? &file->file : NULL, base, size, at, durable));
    if (error == 0 && durable && !call->system.flush_reaches_device && file->file.handle != -1)
        CALL_AGAIN(state, error, call->sync(&file->file, 1));
    if (error == 0 && is_lost(map, first, count, &at)) {
        raise_fault(file, at);
        error = -1;
    }
    if (error != 0)
        raise_os_error(file, error, "flush");
    window_release(self, map);
    if (used)
        closing = file_release(file);
    if (closing != 0)
        raise_os_error(file, closing, "close");
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* flush(offset=0, length=None, *, durable=True) */
static PyObject *window_flush(PyObject *object, PyObject *const *args, Py_ssize_t n,
                              PyObject *names)
{
    static const char *const known[] = {"offset", "length", "durable"};
    Window *self = DATA(Window, object);
    PyObject *given[3] = {NULL, NULL, NULL};
    int64_t first = 0, count = -1;
    int durable;

    if (to_arguments("flush", known, 3, 2, given, args, n, names) < 0)
        return NULL;
    durable = given[2] == NULL ? 1 : PyObject_IsTrue(given[2]);
    if (durable < 0 || (given[0] != NULL && to_size(given[0], "offset", &first) < 0) ||
        (given[1] != NULL && given[1] != Py_None && to_size(given[1], "length", &count) < 0))
        return NULL;
    if (!self->open)
        return raise_closed(self);
    if (self->whole && first == 0 && count < 0 && self->file->access == MF_WRITE)
        return sync_file(self, durable);
    if (to_range(self, first, self->length, &count) < 0)
        return NULL;
    if (count == 0 || self->file->access != MF_WRITE)
        return Py_NewRef(Py_None);
    return flush_range(self, first, count, durable);
}

static PyObject *window_use_range(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Window *self = DATA(Window, object);
    int64_t first, count, length;
    PyObject *use = NULL;
    Map *map;
    int inwards;

    if (n != 3) {
        PyErr_SetString(PyExc_TypeError, "_use takes offset, length and inwards");
        return NULL;
    }
    inwards = PyObject_IsTrue(args[2]);
    if (inwards < 0 || to_numbers(args[0], args[1], &first, &count) < 0)
        return NULL;
    if (!self->open)
        return raise_closed(self);
    if (to_range(self, first, self->length, &count) < 0)
        return NULL;
    map = window_use(self, &length);
    if (map == NULL && PyErr_Occurred())
        return NULL;
    if (to_range(self, first, length, &count) == 0)
        use = use_new(map, self->file, first, count, inwards, length);
    if (map != NULL && window_release(self, map) != 0)
        Py_CLEAR(use);
    return use;
}

/* State */

PyObject *window_get_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!DATA(Window, self)->open);
}

PyObject *window_get_mapped(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);
    int mapped = 0;

    (void)unused;
    if (self->file != NULL) {
        LOCK(self->file);
        mapped = self->map != NULL && (self->open ? self->start != NULL : self->map->users != 0);
        UNLOCK(self->file);
    }
    return PyBool_FromLong(mapped);
}

PyObject *window_get_faulted(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);

    (void)unused;
    if (self->whole)
        return PyBool_FromLong(self->file != NULL && self->file->file.faults != 0);
    return PyBool_FromLong(self->map != NULL && self->map->map.lost_to != 0);
}

static PyObject *get_readonly(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);

    (void)unused;
    return PyBool_FromLong(self->file != NULL && self->file->access == MF_READ);
}

static PyObject *get_name(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);

    (void)unused;
    return self->file == NULL ? raise_closed(self) : Py_NewRef(self->file->name);
}

static PyObject *get_mode(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);

    (void)unused;
    return self->mode == NULL ? raise_closed(self) : Py_NewRef(self->mode);
}

static PyObject *get_access(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);

    (void)unused;
    return self->file == NULL ? raise_closed(self) : PyLong_FromLong(self->file->access);
}

static PyObject *get_offset(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(DATA(Window, self)->offset);
}

static PyObject *get_length(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(DATA(Window, self)->length);
}

static PyObject *get_handle(PyObject *object, void *unused)
{
    Window *self = DATA(Window, object);

    File *file = self->file;
    PyObject *handle;
    int error;

    (void)unused;
    if (!self->open || !file_use(file))
        return raise_closed(self);
    handle = PyLong_FromSsize_t((Py_ssize_t)file->file.handle);
    error = file_release(file);
    if (error == 0)
        return handle;
    Py_XDECREF(handle);
    return raise_os_error(file, error, "close");
}

static PyObject *get_kind(PyObject *object, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(kind_of(DATA(Window, object)));
}

static int refuse_init(PyObject *self, PyObject *args, PyObject *names)
{
    (void)args;
    (void)names;
    PyErr_Format(PyExc_TypeError, "%R is made by MappedFile.view(), and not by itself",
                 Py_TYPE(self));
    return -1;
}

/* Closes a window that was dropped while open, without Python code. Then it warns. */
static void finalize(PyObject *object)
{
    Window *self = DATA(Window, object);
    PyObject *kind, *value, *trace, *told, *source, *name;

    if (!self->open)
        return;
    PyErr_Fetch(&kind, &value, &trace);
    told = PyObject_Repr(object);
    window_drop(self);
    if (told == NULL) {
        PyErr_WriteUnraisable((PyObject *)Py_TYPE(object));
    } else {
        /* With a source, warnings imports tracemalloc. That fails during interpreter shutdown. */
        name = PyUnicode_FromString("tracemalloc");
        source = name == NULL ? NULL : PyImport_GetModule(name);
        PyErr_Clear(); /* no memory for the name */
        if (PyErr_ResourceWarning(
                source != NULL && PyObject_HasAttrString(source, "is_tracing") ? object : NULL, 1,
                "unclosed %U", told) < 0)
            PyErr_WriteUnraisable((PyObject *)Py_TYPE(object));
        Py_XDECREF(source);
        Py_XDECREF(name);
        Py_DECREF(told);
    }
    PyErr_Restore(kind, value, trace);
}

void window_dealloc(PyObject *object)
{
    Window *self = DATA(Window, object);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    if (self->open)
        window_drop(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(object);
    Py_XDECREF(OBJECT(self->map));
    Py_XDECREF(OBJECT(self->file));
    Py_XDECREF(self->mode);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"find", FAST(window_find), METH_FASTCALL,
     "find($self, sub, start=None, end=None, /)\n--\n\n"
     "Return the lowest index where *sub* begins, or -1, as ``bytes.find`` does.\n\n"
     "*sub* is bytes-like, or an int from 0 to 255 for one byte.\n\n"
     "A long search runs without the GIL. Its time is linear in the length."},
    {"rfind", FAST(window_rfind), METH_FASTCALL,
     "rfind($self, sub, start=None, end=None, /)\n--\n\n"
     "Return the highest index where *sub* begins, or -1, as ``bytes.rfind`` does."},
    {"count", FAST(window_count), METH_FASTCALL,
     "count($self, sub, start=None, end=None, /)\n--\n\n"
     "Return how often *sub* occurs, not counting overlaps, as ``bytes.count`` does."},
    {"index", FAST(window_index), METH_FASTCALL,
     "index($self, sub, start=None, end=None, /)\n--\n\n"
     "The same as ``find()``, but raises ``ValueError`` if *sub* is not there, as ``bytes.index`` "
     "does."},
    {"rindex", FAST(window_rindex), METH_FASTCALL,
     "rindex($self, sub, start=None, end=None, /)\n--\n\n"
     "The same as ``rfind()``, but raises ``ValueError`` if *sub* is not there, as "
     "``bytes.rindex`` does."},
    {"startswith", FAST(window_startswith), METH_FASTCALL,
     "startswith($self, prefix, start=None, end=None, /)\n--\n\n"
     "Return whether the bytes begin with *prefix*, as ``bytes.startswith`` does.\n\n"
     "*prefix* is bytes-like, or a tuple of such objects. The bytes are not copied."},
    {"endswith", FAST(window_endswith), METH_FASTCALL,
     "endswith($self, suffix, start=None, end=None, /)\n--\n\n"
     "Return whether the bytes end with *suffix*, as ``bytes.endswith`` does.\n\n"
     "*suffix* is bytes-like, or a tuple of such objects. The bytes are not copied."},
    {"_open", FAST(window_open), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_view", FAST(window_view), METH_FASTCALL, NULL},
    {"_stream", FAST(window_stream), METH_FASTCALL, NULL},
    {"_descriptor", window_descriptor, METH_O, NULL},
    {"_close", window_close, METH_O, NULL},
    {"_abandon", window_abandon, METH_O, NULL},
    {"flush", FAST(window_flush), METH_FASTCALL | METH_KEYWORDS,
     "flush($self, offset=0, length=None, *, durable=True)\n--\n\n"
     "Write changed pages back to the file, and wait until they are on stable storage.\n\n"
     "*offset* and *length* are bytes in the window, from 0 on; without *length* the range\n"
     "reaches to its end. ``durable=False`` starts write-back and does not wait. Without a\n"
     "range, a mapped file writes back its size and everything that was written through it\n"
     "and its views, also through closed ones. Read-only and private windows write nothing.\n\n"
     "Raises ``ValueError`` for a range outside the window, for a closed window, and for a\n"
     "durable flush of a view whose file is closed; ``OSError`` if the system could not\n"
     "write; ``MappingFault`` if bytes of the range are gone.\n\n"
     "Linux: ``msync(MS_SYNC)``, or ``sync_file_range`` with ``durable=False``. macOS adds\n"
     "``F_FULLFSYNC`` (fsync(2)). Windows: ``FlushViewOfFile``, then ``FlushFileBuffers``\n"
     "(FlushViewOfFile, Remarks)."},
    {"_use", FAST(window_use_range), METH_FASTCALL, NULL},
    {"_resize", window_resize, METH_O, NULL},
    {"_refresh", window_refresh, METH_NOARGS, NULL},
    {"_lock", window_lock, METH_NOARGS, NULL},
    {"_unlock", window_unlock, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"data", window_data, NULL,
     "A new memoryview of the memory, without a copy. It is read-only if the window is.\n\n"
     "It keeps the memory mapped and in its place when the window is closed or the file is\n"
     "resized. The memory is unmapped when the last buffer and everything made from it are gone.",
     NULL},
    {"closed", window_get_closed, NULL, "Whether ``close()`` was called.", NULL},
    {"mapped", window_get_mapped, NULL,
     "Whether the memory is mapped now. After ``close()`` it is, while a buffer keeps it.", NULL},
    {"faulted", window_get_faulted, NULL,
     "Whether bytes of the map are gone: the file was truncated under it, or its device failed.\n\n"
     "Buffers read zeros there. Reading or writing these bytes through this object raises\n"
     "``MappingFault``. ``refresh()`` of a file maps it again.",
     NULL},
    {"readonly", get_readonly, NULL, "Whether the bytes are read-only (mode ``\"r\"``).", NULL},
    {"name", get_name, NULL,
     "The file as it was given: the path, the name of the file object, or the descriptor.", NULL},
    {"_mode", get_mode, NULL, NULL, NULL},
    {"_access", get_access, NULL, NULL, NULL},
    {"_offset", get_offset, NULL, NULL, NULL},
    {"_length", get_length, NULL, NULL, NULL},
    {"_handle", get_handle, NULL, NULL, NULL},
    {"_kind", get_kind, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Window, weakrefs), READONLY | RELATIVE, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_mp_subscript, window_subscript},
    {Py_mp_ass_subscript, window_assign},
    {Py_sq_length, window_length},
    {Py_sq_item, item},
    {Py_sq_contains, window_contains},
    {Py_tp_iter, iterate},
    {Py_bf_getbuffer, window_get_buffer},
    {Py_bf_releasebuffer, window_release_buffer},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_tp_init, refuse_init},
    {Py_tp_finalize, finalize},
    {Py_tp_dealloc, window_dealloc},
    {Py_tp_doc, "Bytes of a file in memory."},
    {0, NULL},
};

PyType_Spec window_spec = {
    "mappedfile._memory.Window", SIZE(Window), 0, TYPE_FLAGS | Py_TPFLAGS_BASETYPE, slots,
};
