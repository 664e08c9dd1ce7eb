/* Stream: the bytes of a window as a binary stream, with a position. It keeps its map as a buffer
 * does.
 *
 * The caller's objects are converted first. Then the stream is checked and used, with no Python
 * code in between. */
#include "memory.h"

#include <errno.h>

#define SHORT_LINE (64 << 10) /* bytes */
#define LINE_PIECE (1 << 20)
#define PEEK 8192

typedef struct {
    OBJECT_HEAD
    File *file;
    Map *map;         /* NULL if it has no bytes or is closed */
    Window *window;   /* for a stream with grow=True; otherwise NULL */
    char *start;      /* the first byte */
    int64_t first;    /* offset of the first byte in the map, after its padding */
    int64_t offset;   /* offset of the first byte in the window */
    int64_t length;   /* bytes */
    int64_t position; /* bytes from the first byte on; may be past the end */
    PyObject *weakrefs;
    SHARED(char) open;
    MUTEX
} Stream;

static PyObject *raise_closed_stream(Stream *self)
{
    return PyErr_Format(PyExc_ValueError, "the stream on %R is closed", self->file->name);
}

/* Whether the window of a growing stream has another map or length by now. */
static int is_behind(Stream *self)
{
    Window *window = self->window;
    const Map *map;
    int64_t length;
    int open, behind;

    LOCK(self->file);
    open = window->open;
    length = window->length > self->offset ? window->length - self->offset : 0;
    map = window->start == NULL ? NULL : window->map;
    UNLOCK(self->file);
    LOCK(self);
    behind = self->open && open && (length != self->length || (length != 0 && map != self->map));
    UNLOCK(self);
    return behind;
}

/* Gives a growing stream the map and length of its window. */
static int catch_up(Stream *self)
{
    int64_t length;
    Map *map = window_use(self->window, &length), *old;
    int error;

    if (map == NULL && PyErr_Occurred()) {
        if (self->window->open)
            return -1;
        PyErr_Clear(); /* the window was closed meanwhile: the stream keeps its map */
        return 0;
    }
    if (map != NULL)
        tally(&map->buffers, 1);
    LOCK(self);
    if (self->open) {
        old = self->map;
        self->map = map;
        self->start = map == NULL ? NULL : map->map.base + map->padding + self->offset;
        self->length = length > self->offset ? length - self->offset : 0;
    } else {
        old = map;
    }
    UNLOCK(self);
    error = old == NULL ? 0 : map_unexport(old);
    if (error == 0)
        return 0;
    raise_os_error(self->file, error, "unmap");
    return -1;
}

/* Makes the stream ready for reading and writing, and takes its lock; or raises and returns -1. */
static int acquire_stream(Stream *self)
{
    if (self->window != NULL)
        while (is_behind(self))
            if (catch_up(self) < 0)
                return -1;
    LOCK(self);
    if (self->open)
        return 0;
    UNLOCK(self);
    raise_closed_stream(self);
    return -1;
}

/* The number of bytes from the position to the end. */
static int64_t left(const Stream *self)
{
    return self->length > self->position ? self->length - self->position : 0;
}

/* Ends reading or writing count bytes at the position, and advances the position by by bytes. If a
 * byte is gone, it raises MappingFault and leaves the position unchanged. */
static int done(Stream *self, int failed, int64_t count, int64_t by)
{
    const Map *map = self->map;
    int64_t at;

    if (count == 0 || (failed == 0 && is_whole(map)))
        goto fine;
    at = map->offset + (int64_t)map->padding + self->first + self->position;
    if (!is_lost(map, self->first + self->position, count, &at) && failed == 0)
        goto fine;
    UNLOCK(self);
    raise_fault(self->file, at);
    return -1;
fine:
    self->position += by;
    UNLOCK(self);
    return 0;
}

/* Returns count bytes at the position, which must be there, and advances the position by by bytes.
 */
static PyObject *take(Stream *self, int64_t count, int64_t by)
{
    int failed;
    PyObject *bytes = map_bytes(self->map, self->start + self->position, (Py_ssize_t)count,
                                &failed);

    if (bytes == NULL)
        UNLOCK(self);
    else if (done(self, failed, count, by) < 0)
        Py_CLEAR(bytes);
    return bytes;
}

/* Converts the only argument, a number of bytes; -1: all there are. */
static int to_count(const char *function, PyObject *const *args, Py_ssize_t n, Py_ssize_t *out)
{
    *out = -1;
    if (n > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument, not %zd", function, n);
        return -1;
    }
    if (n == 0 || args[0] == Py_None)
        return 0;
    *out = PyNumber_AsSsize_t(args[0], NULL); /* clamped to the limits of Py_ssize_t */
    if (*out == -1 && PyErr_Occurred())
        return -1;
    if (*out < 0)
        *out = -1;
    return 0;
}

static PyObject *stream_read(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Stream *self = DATA(Stream, object);
    Py_ssize_t count;
    int64_t there;

    if (to_count("read", args, n, &count) < 0 || acquire_stream(self) < 0)
        return NULL;
    there = left(self);
    if (count >= 0 && count < there)
        there = count;
    return take(self, there, there);
}

static PyObject *stream_peek(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Stream *self = DATA(Stream, object);
    Py_ssize_t count;
    int64_t there;

    if (to_count("peek", args, n, &count) < 0 || acquire_stream(self) < 0)
        return NULL;
    if (count <= 0)
        count = PEEK;
    there = left(self);
    return take(self, count < there ? count : there, 0);
}

static PyObject *stream_readinto(PyObject *object, PyObject *target)
{
    Stream *self = DATA(Stream, object);
    PyObject *number = NULL;
    Py_buffer into;
    int64_t count;
    int failed = 0;

    if (PyObject_GetBuffer(target, &into, PyBUF_WRITABLE) < 0)
        return PyErr_Format(PyExc_TypeError,
                            "the argument of readinto() must be a writable, contiguous bytes-like "
                            "object, not %R",
                            Py_TYPE(target));
    if (acquire_stream(self) == 0) {
        count = left(self);
        if (into.len < count)
            count = into.len;
        if (count > 0)
            failed = copy(self->map, into.buf, self->start + self->position, (Py_ssize_t)count);
        if (done(self, failed, count, count) == 0)
            number = PyLong_FromLongLong(count);
    }
    PyBuffer_Release(&into);
    return number;
}

/* Lines */

/* The same as find_line_end for a long line, without the GIL. It checks for signals in between. The
 * caller uses the map. Returns -1 if a signal handler raised. */
static int find_far_end(Map *map, const char *from, int64_t length, int64_t *count)
{
    int64_t at, piece;
    int error = 0;

    *count = 0;
    for (at = 0; error == 0 && *count == 0 && at < length; at += piece) {
        piece = length - at < LINE_PIECE ? length - at : LINE_PIECE;
        WITHOUT_GIL(error = find_line_end(map, from + at, piece, count));
        if (error == 0 && PyErr_CheckSignals() < 0)
            return -1;
        if (*count != 0)
            *count += at;
    }
    return error;
}

/* Returns the next line, of at most limit bytes unless limit is -1; empty at the end. */
static PyObject *next_line(Stream *self, int64_t limit)
{
    int64_t there, count, position;
    int failed;
    Map *map;

    for (;;) {
        if (acquire_stream(self) < 0)
            return NULL;
        there = left(self);
        if (limit >= 0 && limit < there)
            there = limit;
        if (there == 0)
            return take(self, 0, 0);
        failed = find_line_end(self->map, self->start + self->position,
                               there < SHORT_LINE ? there : SHORT_LINE, &count);
        if (failed == 0 && count == 0 && there > SHORT_LINE) {
            const char *from = self->start + self->position;

            map = NEW_REF(Map, self->map);
            tally(&map->users, 1);
            position = self->position;
            UNLOCK(self);
            failed = find_far_end(map, from, there, &count);
            if (PyErr_Occurred()) {
                map_release(map);
                Py_DECREF(OBJECT(map));
                return NULL;
            }
            LOCK(self);
            if (!self->open || self->position != position || self->map != map) {
                UNLOCK(self); /* another thread or a signal handler has used the stream */
                failed = map_release(map);
                if (failed != 0)
                    raise_os_error(self->file, failed, "unmap");
                Py_DECREF(OBJECT(map));
                if (failed != 0)
                    return NULL;
                continue;
            }
            map_release(map); /* this is not the last use */
            Py_DECREF(OBJECT(map));
        }
        if (failed != 0) {
            done(self, failed, there, 0);
            return NULL;
        }
        if (count == 0)
            count = there;
        return take(self, count, count);
    }
}

static PyObject *stream_readline(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Py_ssize_t limit;

    if (to_count("readline", args, n, &limit) < 0)
        return NULL;
    return next_line(DATA(Stream, self), limit);
}

static PyObject *stream_next(PyObject *self)
{
    PyObject *line = next_line(DATA(Stream, self), -1);

    if (line != NULL && PyBytes_Size(line) == 0)
        Py_CLEAR(line);
    return line;
}

static PyObject *stream_readlines(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Py_ssize_t hint, sum = 0, size;
    PyObject *lines, *line;

    if (to_count("readlines", args, n, &hint) < 0)
        return NULL;
    lines = PyList_New(0);
    while (lines != NULL) {
        line = next_line(DATA(Stream, self), -1);
        size = line == NULL ? 0 : PyBytes_Size(line);
        if (line == NULL || (size > 0 && PyList_Append(lines, line) < 0))
            Py_CLEAR(lines);
        Py_XDECREF(line);
        sum += size;
        if (size == 0 || (hint > 0 && sum >= hint))
            break;
    }
    return lines;
}

/* Writing */

static int is_readonly(const Stream *self)
{
    return self->file->access == MF_READ;
}

/* Raises OSError (ENOSPC): only count of total bytes were written. */
static void raise_full(Stream *self, int64_t count, int64_t total)
{
    PyObject *text, *error, *number;

    text = PyUnicode_FromFormat(
        "no room at the end of the window: %lld of %lld bytes were written; to grow the file, use "
        "resize() or stream(grow=True)",
        (long long)count, (long long)total);
    if (text == NULL)
        return;
    error = PyObject_CallFunction(PyExc_OSError, "iOO", ENOSPC, text, self->file->name);
    number = PyLong_FromLongLong(count);
    if (error != NULL && number != NULL &&
        PyObject_SetAttrString(error, "characters_written", number) == 0)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(number);
    Py_XDECREF(error);
    Py_DECREF(text);
}

/* Checks that the file is open, so that its size can be set; or raises and returns 0. */
static int can_set_size(Stream *self)
{
    if (self->window->open)
        return 1;
    PyErr_Format(PyExc_ValueError,
                 "the file %R is closed, and a stream needs it to grow: write before closing it",
                 self->file->name);
    return 0;
}

/* Grows the file until count bytes fit at the position. */
static int make_room(Stream *self, int64_t position, int64_t count)
{
    int64_t reached = self->offset + position;

    if (!can_set_size(self))
        return -1;
    if (position > INT64_MAX - self->offset || count > INT64_MAX - reached) {
        PyErr_Format(PyExc_OverflowError,
                     "cannot write %lld bytes at position %lld: a file has at most "
                     "9223372036854775807 bytes",
                     (long long)count, (long long)position);
        return -1;
    }
    return window_grow_to(self->window, reached + count);
}

static PyObject *stream_write(PyObject *object, PyObject *value)
{
    Stream *self = DATA(Stream, object);
    PyObject *number = NULL;
    int64_t count, position;
    Py_buffer data;
    int failed = 0;

    if (!self->open)
        return raise_closed_stream(self);
    if (is_readonly(self)) {
        raise_unsupported(PyUnicode_FromFormat(
            "the stream on %R is read-only: open the file in mode 'r+' or 'c'", self->file->name));
        return NULL;
    }
    if (to_bytes(value, &data) < 0)
        return NULL;
    for (;;) {
        if (acquire_stream(self) < 0)
            goto end;
        count = left(self);
        if (count >= data.len) {
            count = data.len;
            break;
        }
        if (self->window == NULL || data.len == 0)
            break;
        position = self->position;
        UNLOCK(self);
        if (make_room(self, position, data.len) < 0)
            goto end;
    }
    if (count > 0)
        failed = copy(self->map, self->start + self->position, data.buf, (Py_ssize_t)count);
    if (done(self, failed, count, count) < 0)
        goto end;
    if (count < data.len)
        raise_full(self, count, data.len);
    else
        number = PyLong_FromLongLong(count);
end:
    PyBuffer_Release(&data);
    return number;
}

static PyObject *stream_writelines(PyObject *self, PyObject *lines)
{
    PyObject *line, *number, *iterator;

    if (!DATA(Stream, self)->open)
        return raise_closed_stream(DATA(Stream, self));
    iterator = PyObject_GetIter(lines);
    if (iterator == NULL)
        return NULL;
    while ((line = PyIter_Next(iterator)) != NULL) {
        number = stream_write(self, line);
        Py_DECREF(line);
        if (number == NULL)
            break;
        Py_DECREF(number);
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* The position */

/* Raises an error that is both an OSError, as files raise, and a ValueError, as io.BytesIO raises.
 * zipfile catches the OSError when it searches from the end. */
static PyObject *raise_negative(const char *what, int64_t number)
{
    PyObject *text = PyUnicode_FromFormat("%s must be 0 or more, not %lld", what,
                                          (long long)number);

    if (text != NULL)
        raise_unsupported(Py_BuildValue("(iN)", EINVAL, text));
    return NULL;
}

static PyObject *stream_seek(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Stream *self = DATA(Stream, object);
    int64_t offset, base;
    PyObject *index;
    long whence = 0;

    if (n < 1 || n > 2) {
        PyErr_Format(PyExc_TypeError, "seek() takes 1 or 2 arguments, offset and whence, not %zd",
                     n);
        return NULL;
    }
    index = PyNumber_Index(args[0]);
    if (index == NULL)
        return NULL;
    offset = PyLong_AsLongLong(index);
    Py_DECREF(index);
    if ((offset == -1 && PyErr_Occurred()) ||
        (n > 1 && (whence = PyLong_AsLong(args[1])) == -1 && PyErr_Occurred()))
        return NULL;
    if (whence < 0 || whence > 2) {
        PyErr_Format(PyExc_ValueError, "whence must be 0 (start), 1 (position) or 2 (end), not %R",
                     args[1]);
        return NULL;
    }
    if (acquire_stream(self) < 0)
        return NULL;
    base = whence == 0 ? 0 : whence == 1 ? self->position : self->length;
    if (offset > INT64_MAX - base) {
        UNLOCK(self);
        PyErr_SetString(PyExc_OverflowError, "a position must be at most 9223372036854775807");
        return NULL;
    }
    if (base + offset < 0) {
        UNLOCK(self);
        return raise_negative("a position", base + offset);
    }
    self->position = offset = base + offset;
    UNLOCK(self);
    return PyLong_FromLongLong(offset);
}

static PyObject *stream_tell(PyObject *object, PyObject *unused)
{
    Stream *self = DATA(Stream, object);
    int64_t position;

    (void)unused;
    LOCK(self);
    position = self->open ? self->position : -1;
    UNLOCK(self);
    return position < 0 ? raise_closed_stream(self) : PyLong_FromLongLong(position);
}

/* Truncates the file, for a stream with grow=True. It releases its map first: as a buffer, the map
 * would prevent the truncation. */
static int cut(Stream *self, int64_t to)
{
    PyObject *kind, *value, *trace;
    Map *map;
    int error;

    if (!can_set_size(self))
        return -1;
    LOCK(self);
    map = self->map;
    self->map = NULL;
    self->start = NULL;
    self->length = 0;
    UNLOCK(self);
    error = map == NULL ? 0 : map_unexport(map);
    if (error != 0)
        raise_os_error(self->file, error, "unmap");
    else
        window_set_size(self->window, self->offset + to);
    PyErr_Fetch(&kind, &value, &trace);
    error = is_behind(self) ? catch_up(self) : 0;
    if (kind == NULL)
        return error;
    PyErr_Clear();
    PyErr_Restore(kind, value, trace);
    return -1;
}

static PyObject *stream_truncate(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Stream *self = DATA(Stream, object);
    Py_ssize_t size;
    int64_t to, length;

    if (to_count("truncate", args, n, &size) < 0 || acquire_stream(self) < 0)
        return NULL;
    to = n == 0 || args[0] == Py_None ? self->position : size;
    length = self->length;
    UNLOCK(self);
    if (self->window == NULL) {
        raise_unsupported(PyUnicode_FromFormat(
            "this stream does not set the size of %R: stream(grow=True) does, and "
            "MappedFile.resize()",
            self->file->name));
        return NULL;
    }
    if (to < 0)
        return raise_negative("a size", to);
    if ((to < length && cut(self, to) < 0) || (to > length && make_room(self, to, 0) < 0))
        return NULL;
    return PyLong_FromLongLong(to);
}

/* Other methods of a file */

static PyObject *if_open(PyObject *object, int answer)
{
    Stream *self = DATA(Stream, object);

    return self->open ? PyBool_FromLong(answer) : raise_closed_stream(self);
}

static PyObject *stream_is(PyObject *self, PyObject *unused)
{
    (void)unused;
    return if_open(self, 1);
}

static PyObject *stream_is_not(PyObject *self, PyObject *unused)
{
    (void)unused;
    return if_open(self, 0);
}

static PyObject *stream_writable(PyObject *self, PyObject *unused)
{
    (void)unused;
    return if_open(self, !is_readonly(DATA(Stream, self)));
}

static PyObject *stream_flush(PyObject *object, PyObject *unused)
{
    Stream *self = DATA(Stream, object);

    (void)unused;
    return self->open ? Py_NewRef(Py_None) : raise_closed_stream(self);
}

static PyObject *stream_enter(PyObject *object, PyObject *unused)
{
    Stream *self = DATA(Stream, object);

    (void)unused;
    return self->open ? Py_NewRef(object) : raise_closed_stream(self);
}

static PyObject *stream_iterate(PyObject *self)
{
    return stream_enter(self, NULL);
}

static PyObject *refuse(Stream *self, const char *why)
{
    raise_unsupported(PyUnicode_FromFormat("the stream on %R %s", self->file->name, why));
    return NULL;
}

static PyObject *stream_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    return refuse(DATA(Stream, self),
                  "has no descriptor: it reads mapped memory, and its position is its own");
}

static PyObject *stream_detach(PyObject *self, PyObject *unused)
{
    (void)unused;
    return refuse(DATA(Stream, self), "has no raw stream to detach: it reads mapped memory");
}

static PyObject *stream_reduce(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyErr_SetString(PyExc_TypeError,
                    "a stream cannot be pickled or copied: open the file where it is needed");
    return NULL;
}

/* Closes it. Returns the system's code. */
static int shut(Stream *self)
{
    Map *map;

    LOCK(self);
    map = self->map;
    self->map = NULL;
    self->start = NULL;
    self->open = 0;
    UNLOCK(self);
    return map == NULL ? 0 : map_unexport(map);
}

static PyObject *stream_close(PyObject *object, PyObject *unused)
{
    Stream *self = DATA(Stream, object);
    int error = shut(self);

    (void)unused;
    return error != 0 ? raise_os_error(self->file, error, "unmap") : Py_NewRef(Py_None);
}

static PyObject *stream_exit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)args;
    (void)n;
    return stream_close(self, NULL);
}

static PyObject *get_closed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!DATA(Stream, self)->open);
}

static PyObject *get_name(PyObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(DATA(Stream, self)->file->name);
}

static PyObject *get_mode(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(is_readonly(DATA(Stream, self)) ? "rb" : "rb+");
}

static PyObject *represent(PyObject *object)
{
    Stream *self = DATA(Stream, object);
    int64_t length;

    LOCK(self);
    length = self->length;
    UNLOCK(self);
    return PyUnicode_FromFormat("<%sStream on %R, offset %lld, length %lld>",
                                self->open ? "" : "closed ", self->file->name,
                                (long long)self->offset, (long long)length);
}

/* _stream(offset, length, grow) of a window. */
PyObject *window_stream(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Window *window = DATA(Window, object);
    int64_t offset, count = -1, length;
    Stream *self;
    Map *map;
    int grow;

    if (n != 3) {
        PyErr_SetString(PyExc_TypeError, "_stream takes offset, length and grow");
        return NULL;
    }
    grow = PyObject_IsTrue(args[2]);
    if (grow < 0 || to_size(args[0], "offset", &offset) < 0 ||
        (args[1] != Py_None && to_size(args[1], "length", &count) < 0))
        return NULL;
    if (!window->open)
        return raise_closed(window);
    if (grow && (!window->whole || count >= 0)) {
        PyErr_SetString(
            PyExc_ValueError,
            "grow=True needs a stream on the whole file, to its end: use MappedFile.stream() "
            "without length");
        return NULL;
    }
    if (grow && window->file->access != MF_WRITE) {
        raise_unsupported(PyUnicode_FromFormat(
            "a file opened in mode %R cannot grow: open it in mode 'r+', 'w+' or 'x+'",
            window->mode));
        return NULL;
    }
    if (grow && window->file->file.device) {
        raise_unsupported(
            PyUnicode_FromFormat("%R is a disk, whose size cannot be changed", window->file->name));
        return NULL;
    }
    self = DATA(Stream, PyType_GenericAlloc(window->file->state->stream_type, 0));
    if (self == NULL)
        return NULL;
    self->file = NEW_REF(File, window->file);
    map = window_use(window, &length);
    if ((map == NULL && PyErr_Occurred()) || to_range(window, offset, length, &count) < 0) {
        if (map != NULL)
            window_release(window, map);
        Py_DECREF(OBJECT(self));
        return NULL;
    }
    if (map != NULL) { /* the stream takes over the use */
        tally(&map->buffers, 1);
        self->map = map;
        self->start = map->map.base + map->padding + offset;
    }
    self->first = self->offset = offset;
    self->length = count;
    self->open = 1;
    if (grow)
        self->window = DATA(Window, Py_NewRef(object));
    return OBJECT(self);
}

/* A window of a subclass may have a growing stream as an attribute, which is a cycle. */
static int traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(OBJECT(DATA(Stream, object)->window));
    return 0;
}

static int clear(PyObject *object)
{
    Stream *self = DATA(Stream, object);
    Window *window = self->window;

    self->window = NULL;
    Py_XDECREF(OBJECT(window));
    return 0;
}

static void dealloc(PyObject *object)
{
    Stream *self = DATA(Stream, object);
    PyTypeObject *type = Py_TYPE(object);
    int error;

    PyObject_GC_UnTrack(object);
    error = shut(self);
    if (error != 0)
        report(self->file, error, "unmap", (PyObject *)type);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(object);
    clear(object);
    Py_DECREF(OBJECT(self->file));
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"read", FAST(stream_read), METH_FASTCALL,
     "read($self, size=-1, /)\n--\n\n"
     "Read *size* bytes, or fewer at the end; without *size* all bytes up to the end.\n\n"
     "Raises ``MappingFault`` if bytes of the range are gone. The position is unchanged then."},
    {"read1", FAST(stream_read), METH_FASTCALL,
     "read1($self, size=-1, /)\n--\n\nThe same as ``read()``."},
    {"readinto", stream_readinto, METH_O,
     "readinto($self, buffer, /)\n--\n\n"
     "Fill *buffer*, a writable bytes-like object, and return the number of bytes read.\n\n"
     "There are fewer at the end of the stream."},
    {"readinto1", stream_readinto, METH_O,
     "readinto1($self, buffer, /)\n--\n\nThe same as ``readinto()``."},
    {"readline", FAST(stream_readline), METH_FASTCALL,
     "readline($self, size=-1, /)\n--\n\n"
     "Read a line with its ``\\n``, but at most *size* bytes if *size* is 0 or more.\n\n"
     "The end of a long line is searched for without the GIL."},
    {"readlines", FAST(stream_readlines), METH_FASTCALL,
     "readlines($self, hint=-1, /)\n--\n\n"
     "Read lines into a list, up to the end, or until they have *hint* bytes in total."},
    {"peek", FAST(stream_peek), METH_FASTCALL,
     "peek($self, size=0, /)\n--\n\n"
     "Return the next *size* bytes, or fewer at the end, and leave the position unchanged.\n\n"
     "Without *size*, it returns at most 8192 bytes."},
    {"write", stream_write, METH_O,
     "write($self, data, /)\n--\n\n"
     "Write bytes at the position, and return the number of bytes written.\n\n"
     "At the end of the window a stream with ``grow=True`` grows the file. Any other stream\n"
     "writes what fits, and raises ``OSError`` (``ENOSPC``) with ``characters_written``.\n\n"
     "Raises ``io.UnsupportedOperation`` if the window is read-only; ``MappingFault`` if the\n"
     "bytes at the position are gone."},
    {"writelines", stream_writelines, METH_O,
     "writelines($self, lines, /)\n--\n\n"
     "Write every item of *lines*, in order."},
    {"seek", FAST(stream_seek), METH_FASTCALL,
     "seek($self, offset, whence=0, /)\n--\n\n"
     "Set the position, in bytes, and return it.\n\n"
     "*offset* counts from the start (*whence* 0), from the position (1) or from the end (2).\n"
     "The position can lie past the end. A position before the start raises an error that is\n"
     "an ``OSError`` (``EINVAL``) and a ``ValueError``."},
    {"tell", stream_tell, METH_NOARGS,
     "tell($self, /)\n--\n\n"
     "Return the position, in bytes from the start of the stream."},
    {"truncate", FAST(stream_truncate), METH_FASTCALL,
     "truncate($self, size=None, /)\n--\n\n"
     "Set the size of the file, so that the stream has *size* bytes; without *size*, up to the\n"
     "position. Return the size.\n\n"
     "Any stream but one with ``grow=True`` raises ``io.UnsupportedOperation``. Raises\n"
     "``BufferError`` if that shortens the file while a view, a buffer or another stream is\n"
     "alive."},
    {"flush", stream_flush, METH_NOARGS,
     "flush($self, /)\n--\n\n"
     "Do nothing: a write changes the mapped memory at once.\n\n"
     "``flush()`` of the window puts it on stable storage."},
    {"close", stream_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Close the stream and release its memory. The window stays open. Closing twice is silent."},
    {"readable", stream_is, METH_NOARGS, "readable($self, /)\n--\n\nTrue."},
    {"writable", stream_writable, METH_NOARGS,
     "writable($self, /)\n--\n\nWhether the window can be written."},
    {"seekable", stream_is, METH_NOARGS, "seekable($self, /)\n--\n\nTrue."},
    {"isatty", stream_is_not, METH_NOARGS, "isatty($self, /)\n--\n\nFalse."},
    {"fileno", stream_fileno, METH_NOARGS,
     "fileno($self, /)\n--\n\n"
     "Raise ``io.UnsupportedOperation``: a stream has no descriptor."},
    {"detach", stream_detach, METH_NOARGS,
     "detach($self, /)\n--\n\nRaise ``io.UnsupportedOperation``: there is no raw stream."},
    {"__enter__", stream_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(stream_exit), METH_FASTCALL, NULL},
    {"__reduce__", stream_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"closed", get_closed, NULL, "Whether ``close()`` was called.", NULL},
    {"name", get_name, NULL, "The name of the file, as it was given.", NULL},
    {"mode", get_mode, NULL, "``\"rb\"`` for a read-only window, otherwise ``\"rb+\"``.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Stream, weakrefs), READONLY | RELATIVE, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_iter, stream_iterate},
    {Py_tp_iternext, stream_next},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_tp_repr, represent},
    {Py_tp_traverse, traverse},
    {Py_tp_clear, clear},
    {Py_tp_dealloc, dealloc},
    {Py_tp_doc, "The bytes of a window as a binary stream: ``MappedFile.stream()``, "
                "``View.stream()``.\n\n"
                "It is an ``io.BufferedIOBase``, but has no buffer of its own."},
    {0, NULL},
};

PyType_Spec stream_spec = {
    "mappedfile.Stream",
    SIZE(Stream),
    0,
    TYPE_FLAGS | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    slots,
};
