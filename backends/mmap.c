/* Mmap: the standard library's mmap.mmap, on the types of this library. mappedfile/mmap.py is the
 * module.
 *
 * Index, slice, search and buffer are those of Window. This file has the constructor, the position,
 * and the methods that differ. Error messages that programs compare are those of mmap. */
#include "memory.h"

#include <errno.h>

/* The values of the argument access. With ACCESS_DEFAULT, flags and prot count. */
enum { ACCESS_DEFAULT = 0, ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_COPY = 3 };

enum { USER_MAPPED_FILE = 1224 }; /* the error of Windows for a section that others use */
enum { LONGEST_NAME = 66 }; /* the system allows 80 bytes, with the prefix and the final NUL */

typedef struct {
    Window window;
    int64_t position;
    PyObject *tag;  /* NULL: none */
    char access;    /* the argument */
    char anonymous; /* memory without a file */
    char tracked;   /* it keeps a descriptor */
} Mmap;

/* Arguments */

enum { FILENO, LENGTH, FLAGS, PROT, ACCESS, OFFSET, TRACKFD, TAGNAME, ARGUMENTS };

typedef struct {
    PyObject *name; /* the descriptor, which names it in errors */
    Py_ssize_t length;
    int64_t offset;
    int fd, flags, protection, access, tracked;
    PyObject *tag;
} Request;

static int to_int(PyObject *number, int missing, int *out)
{
    Py_ssize_t value = missing;

    if (number != NULL)
        value = PyNumber_AsSsize_t(number, PyExc_OverflowError);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value != (int)value) {
        PyErr_Format(PyExc_OverflowError, "%R does not fit an int of C", number);
        return -1;
    }
    *out = (int)value;
    return 0;
}

/* Sorts the arguments, which can be in the order of either system. POSIX: fileno, length, flags,
 * prot, access, offset. Windows: fileno, length, tagname, access, offset. A third argument that is
 * a str or None is a tagname. */
static int sort_arguments(PyObject *args, PyObject *named, PyObject **given)
{
    static const char *const known[] = {"fileno", "length", "flags",   "prot",
                                        "access", "offset", "trackfd", "tagname"};
    Py_ssize_t n = PyTuple_Size(args), i, at = 0;
    PyObject *third = n > 2 ? PyTuple_GetItem(args, 2) : NULL, *key, *value;
    int tag = third != NULL && (third == Py_None || PyUnicode_Check(third));

    if (n > (tag ? 5 : 6)) {
        PyErr_Format(PyExc_TypeError, "mmap() takes at most %d positional arguments, not %zd",
                     tag ? 5 : 6, n);
        return -1;
    }
    for (i = 0; i < n; i++)
        given[!tag || i < 2 ? i : i == 2 ? TAGNAME : i + 1] = PyTuple_GetItem(args, i);
    while (named != NULL && PyDict_Next(named, &at, &key, &value)) {
        for (i = 0; i < ARGUMENTS && PyUnicode_CompareWithASCIIString(key, known[i]) != 0; i++)
            ;
        if (i == ARGUMENTS || given[i] != NULL) {
            PyErr_Format(
                PyExc_TypeError,
                i == ARGUMENTS ? "mmap() takes no argument %R" : "mmap() was given %R twice", key);
            return -1;
        }
        given[i] = value;
    }
    if (given[FILENO] == NULL || given[LENGTH] == NULL) {
        PyErr_Format(PyExc_TypeError, "mmap() needs a %s",
                     given[FILENO] == NULL ? "fileno" : "length");
        return -1;
    }
    return 0;
}

static int parse_request(PyObject *args, PyObject *named, Request *out)
{
    PyObject *given[ARGUMENTS] = {NULL}, *index;
    int overflow;

    if (sort_arguments(args, named, given) < 0 || to_int(given[FILENO], 0, &out->fd) < 0)
        return -1;
    out->name = given[FILENO];
    out->length = PyNumber_AsSsize_t(given[LENGTH], PyExc_OverflowError);
    if ((out->length == -1 && PyErr_Occurred()) ||
        to_int(given[FLAGS], MAP_SHARED, &out->flags) < 0 ||
        to_int(given[PROT], PROT_READ | PROT_WRITE, &out->protection) < 0 ||
        to_int(given[ACCESS], ACCESS_DEFAULT, &out->access) < 0)
        return -1;
    out->offset = 0;
    if (given[OFFSET] != NULL) {
        index = PyNumber_Index(given[OFFSET]);
        if (index == NULL)
            return -1;
        out->offset = PyLong_AsLongLongAndOverflow(index, &overflow);
        Py_DECREF(index);
        if (overflow != 0) {
            PyErr_SetString(PyExc_OverflowError, "mmap offset is out of range");
            return -1;
        }
    }
    out->tracked = given[TRACKFD] == NULL ? 1 : PyObject_IsTrue(given[TRACKFD]);
    if (PyErr_Occurred())
        return -1;
    out->tag = given[TAGNAME] == Py_None ? NULL : given[TAGNAME];
    if (out->tag != NULL && !PyUnicode_Check(out->tag)) {
        PyErr_Format(PyExc_TypeError, "tagname must be a str or None, not %R", Py_TYPE(out->tag));
        return -1;
    }
    if (out->length < 0 || out->offset < 0) {
        PyErr_Format(PyExc_OverflowError, "memory mapped %s must be positive",
                     out->length < 0 ? "length" : "offset");
        return -1;
    }
    if (out->access != ACCESS_DEFAULT &&
        (out->flags != MAP_SHARED || out->protection != (PROT_READ | PROT_WRITE))) {
        PyErr_SetString(PyExc_ValueError, "mmap can't specify both access and flags, prot.");
        return -1;
    }
    if (out->access < ACCESS_DEFAULT || out->access > ACCESS_COPY) {
        PyErr_SetString(PyExc_ValueError, "mmap invalid access parameter.");
        return -1;
    }
    return 0;
}

/* The access of the map: MF_READ, MF_WRITE or MF_COPY. */
static int to_access(const Request *asked)
{
    if (asked->access == ACCESS_READ || !(asked->protection & PROT_WRITE))
        return MF_READ;
    if (asked->access == ACCESS_COPY || (asked->flags & (MAP_SHARED | MAP_PRIVATE)) == MAP_PRIVATE)
        return MF_COPY;
    return MF_WRITE;
}

static int audit(const Request *asked)
{
    PyObject *hook = PySys_GetObject("audit"), *done;

    if (hook == NULL)
        return 0;
    done = PyObject_CallFunction(hook, "sOniL", "mmap.__new__", asked->name, asked->length,
                                 asked->access, (long long)asked->offset);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Construction */

/* Opens the descriptor. Returns the system's code, or -1 when an exception is set. */
static int open_file(File *file, const Request *asked)
{
    intptr_t handle = asked->fd;
    int error;

#ifdef _WIN32
    PyObject *msvcrt = PyImport_ImportModule("msvcrt"); /* descriptors belong to its C library */
    PyObject *found = msvcrt == NULL ? NULL
                                     : PyObject_CallMethod(msvcrt, "get_osfhandle", "i", asked->fd);

    Py_XDECREF(msvcrt);
    if (found == NULL)
        return -1;
    handle = (intptr_t)PyLong_AsSsize_t(found);
    Py_DECREF(found);
#endif
    CALL_AGAIN(file->state, error,
               file->state->call.duplicate(handle, file->access, MF_DEVICE, &file->file));
    return error;
}

/* Makes a section, named by tag if it is not NULL. */
static int open_memory(File *file, int64_t size, PyObject *tag, mf_section *out)
{
    const mf_char *text = NULL;
    int error;

#ifdef _WIN32
    wchar_t *wide = tag == NULL ? NULL : PyUnicode_AsWideCharString(tag, NULL);

    if (tag != NULL && wide == NULL)
        return -1;
    text = wide;
#else
    (void)tag;
#endif
    CALL_AGAIN(file->state, error,
               file->state->call.open_memory(&file->file, file->access, size, text, out));
#ifdef _WIN32
    PyMem_Free(wide);
#endif
    return error;
}

static int open_section(File *file, const Request *asked)
{
    if (asked->fd == -1 && asked->offset > PY_SSIZE_T_MAX - asked->length)
        return file->state->call.system.too_large;
    if (asked->fd == -1)
        return open_memory(file, asked->offset + asked->length, asked->tag, &file->section);
    if (asked->tag != NULL && file->state->call.system.has_sections)
        return open_memory(file, 0, asked->tag, &file->section);
    return first_section(file);
}

/* Returns the length of the map; or raises and returns -1. */
static int64_t to_length(const Request *asked, const File *file)
{
    int64_t size = file->section.size;

    if (asked->fd == -1 || file->file.size < 0) /* the size of a device is unknown */
        return asked->length;
    if (asked->length != 0 && (asked->offset > size || size - asked->offset < asked->length)) {
        PyErr_SetString(PyExc_ValueError, "mmap length is greater than file size");
        return -1;
    }
    if (asked->length != 0)
        return asked->length;
    if (asked->offset >= size && (asked->offset != 0 || size != 0)) {
        PyErr_SetString(PyExc_ValueError, "mmap offset is greater than file size");
        return -1;
    }
    if (size - asked->offset > PY_SSIZE_T_MAX) {
        PyErr_SetString(PyExc_ValueError, "mmap length is too large");
        return -1;
    }
    return size - asked->offset;
}

/* Opens and maps the window as asked. Returns the system's code, or -1 if an exception is set. */
static int fill(Mmap *self, File *file, Request *asked)
{
    Window *window = &self->window;
    int error = asked->fd == -1 ? 0 : open_file(file, asked);
    int64_t length;
    Map *map;

    /* With MAP_ANONYMOUS the system ignores the descriptor, so it may be of anything. */
    if (error != 0 && error != EBADF && !PyErr_Occurred() && asked->flags & MAP_ANONYMOUS &&
        !file->state->call.system.has_sections) {
        error = 0;
        asked->fd = -1;
        self->anonymous = 1;
    }
    if (error != 0)
        return error;
    file->users = 1;
    error = open_section(file, asked);
    length = error != 0 ? -1 : to_length(asked, file);
    if (length < 0)
        return error != 0 ? error : -1;
    window->length = length;
    if (length == 0 && asked->fd != -1 && file->file.size == 0)
        return 0;
    error = guard(file->state, 0);
    if (error != 0)
        return error;
    map = map_new(file, &file->section, asked->offset, length, 0, &error);
    if (map == NULL)
        return error != 0 ? error : -1;
    set_map(window, map);
    return 0;
}

static void mmap_dealloc(PyObject *object)
{
    Py_CLEAR(DATA(Mmap, object)->tag);
    window_dealloc(object);
}

/* The state of the module. The type may be a subclass, which has another tp_dealloc. */
static State *state_of(PyTypeObject *type)
{
    while (PyType_GetSlot(type, Py_tp_dealloc) != (void *)mmap_dealloc)
        type = PyType_GetSlot(type, Py_tp_base);
    return PyType_GetModuleState(type);
}

static PyObject *mmap_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    Request asked;
    PyObject *name;
    Mmap *self = NULL;
    State *state;
    File *file;
    int error;

    if (parse_request(args, named, &asked) < 0 || audit(&asked) < 0)
        return NULL;
    self = DATA(Mmap, PyType_GenericAlloc(type, 0));
    if (self == NULL)
        return NULL;
    self->window.mmap = self->window.whole = 1;
    state = state_of(type);
    name = state == NULL ? NULL : PyLong_FromLong(asked.fd);
    file = name == NULL ? NULL : file_new(state, name);
    Py_XDECREF(name);
    if (file == NULL)
        goto failed;
    self->window.file = file;
    file->file.granularity = state->call.system.granularity;
    self->window.offset = asked.offset;
    self->anonymous = asked.fd == -1;
    self->tracked = (char)asked.tracked;
    self->tag = asked.tag == NULL ? NULL : plain(asked.tag);
    if (PyErr_Occurred())
        goto failed;
    self->access = (char)asked.access;
    if (asked.access == ACCESS_DEFAULT &&
        (asked.protection & (PROT_READ | PROT_WRITE)) != (PROT_READ | PROT_WRITE))
        self->access = asked.protection & PROT_WRITE ? ACCESS_WRITE : ACCESS_READ;
    file->access = to_access(&asked);
    file->chosen = asked.flags != MAP_SHARED || asked.protection != (PROT_READ | PROT_WRITE);
    file->flags = asked.flags;
    file->protection = asked.protection;
    file->sparse = 1; /* mmap leaves holes */
    file->mmap = 1;
    if (self->anonymous && self->tag != NULL && !state->call.system.has_sections) {
        raise_unsupported(PyUnicode_FromString(
            "memory without a file cannot have a tagname on this system: map a file that all "
            "processes open"));
        goto failed;
    }
    error = fill(self, file, &asked);
    if (error == 0 && !self->tracked) {
        error = state->call.close_section(&file->section);
        if (file->file.handle != -1 && error == 0)
            error = state->call.close(&file->file);
    }
    if (error == 0) {
        self->window.open = 1;
        return OBJECT(self);
    }
    /* An error that is both: mmap raises OSError for a FIFO, and ValueError for a file of /proc. */
    if (error == ENODEV && !state->call.system.has_sections)
        raise_unsupported(Py_BuildValue("(isO)", ENODEV, "it cannot be mapped", asked.name));
    else
        raise_os_error(file, error, "map");
    if (self->window.owns) {
        self->window.owns = 0;
        map_release(self->window.map);
    }
    if (file->users != 0)
        file_release(file);
failed:
    Py_DECREF(OBJECT(self));
    return NULL;
}

/* Reading and writing at the position */

/* Begins reading or writing. No Python code can run until finish(). Returns the number of bytes
 * from the position to the end; or raises and returns -1. */
static int64_t begin(Mmap *self)
{
    if (acquire(&self->window) < 0)
        return -1;
    return self->position < self->window.length ? self->window.length - self->position : 0;
}

static void leave(Mmap *self)
{
    (void)self;
    UNLOCK(self->window.file);
}

/* Ends reading or writing, and advances the position by count bytes. If bytes are gone, it raises
 * MappingFault and returns -1. */
static int finish(Mmap *self, int failed, int64_t count)
{
    Map *map = self->window.map;
    int64_t before = self->position;

    if (failed == 0 && is_whole(map)) {
        self->position += count;
        leave(self);
        return 0;
    }
    Py_INCREF(OBJECT(map));
    self->position += count;
    leave(self);
    failed = check_fault(map, failed, before, count);
    Py_DECREF(OBJECT(map));
    if (failed)
        self->position = before;
    return failed;
}

/* Reads count bytes, which must be there, and ends. */
static PyObject *take(Mmap *self, int64_t count)
{
    const char *from = self->window.start + self->position;
    PyObject *bytes;
    int failed;

    if (count == 0) {
        leave(self);
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    bytes = map_bytes(self->window.map, from, (Py_ssize_t)count, &failed);
    if (bytes == NULL)
        leave(self);
    else if (finish(self, failed, count) < 0)
        Py_CLEAR(bytes);
    return bytes;
}

static int is_writable(Mmap *self)
{
    if (self->window.file->access != MF_READ)
        return 1;
    PyErr_SetString(PyExc_TypeError, "mmap can't modify a readonly memory map.");
    return 0;
}

static PyObject *mmap_read(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Mmap *self = DATA(Mmap, object);
    Py_ssize_t count = -1;
    int64_t left;

    if (!self->window.open)
        return raise_closed(&self->window);
    if (n > 1)
        return PyErr_Format(PyExc_TypeError, "read() takes at most 1 argument, not %zd", n);
    if (n == 1 && args[0] != Py_None) {
        if (!PyIndex_Check(args[0]))
            return PyErr_Format(PyExc_TypeError, "argument should be integer or None, not %R",
                                Py_TYPE(args[0]));
        count = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
        if (count == -1 && PyErr_Occurred())
            return NULL;
    }
    left = begin(self);
    return left < 0 ? NULL : take(self, count < 0 || count > left ? left : count);
}

static PyObject *mmap_read_byte(PyObject *object, PyObject *unused)
{
    Mmap *self = DATA(Mmap, object);
    int64_t left = begin(self);
    char byte;

    (void)unused;
    if (left < 0)
        return NULL;
    if (left == 0) {
        leave(self);
        PyErr_SetString(PyExc_ValueError, "read byte out of range");
        return NULL;
    }
    if (finish(self, copy(self->window.map, &byte, self->window.start + self->position, 1), 1) < 0)
        return NULL;
    return PyLong_FromLong((unsigned char)byte);
}

static PyObject *mmap_readline(PyObject *object, PyObject *unused)
{
    Mmap *self = DATA(Mmap, object);
    int64_t left = begin(self), count = 0;
    int error = 0;

    (void)unused;
    if (left < 0)
        return NULL;
    if (left > 0)
        error = find_line_end(self->window.map, self->window.start + self->position, left, &count);
    if (error == 0)
        return take(self, count == 0 ? left : count);
    if (finish(self, error, left) < 0)
        return NULL;
    return raise_fault(self->window.file, -1);
}

static PyObject *mmap_write(PyObject *object, PyObject *value)
{
    Mmap *self = DATA(Mmap, object);
    PyObject *result = NULL;
    Py_buffer data;
    int64_t left;

    if (!self->window.open)
        return raise_closed(&self->window);
    if (!is_writable(self) || to_bytes(value, &data) < 0)
        return NULL;
    left = begin(self);
    if (left >= 0 && (data.len > left || self->position > self->window.length)) {
        leave(self);
        PyErr_SetString(PyExc_ValueError, "data out of range");
    } else if (left >= 0 && data.len == 0) {
        leave(self);
        result = PyLong_FromSsize_t(0);
    } else if (left >= 0) {
        if (finish(self,
                   copy(self->window.map, self->window.start + self->position, data.buf, data.len),
                   data.len) == 0)
            result = PyLong_FromSsize_t(data.len);
    }
    PyBuffer_Release(&data);
    return result;
}

static PyObject *mmap_write_byte(PyObject *object, PyObject *value)
{
    Mmap *self = DATA(Mmap, object);
    Py_ssize_t number;
    int64_t left;
    char byte;

    if (!self->window.open)
        return raise_closed(&self->window);
    number = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    if (number < 0 || number > 255)
        return PyErr_Format(PyExc_OverflowError, "a byte must be in range(0, 256), not %R", value);
    byte = (char)number;
    if (!is_writable(self))
        return NULL;
    left = begin(self);
    if (left < 0)
        return NULL;
    if (left == 0) {
        leave(self);
        PyErr_SetString(PyExc_ValueError, "write byte out of range");
        return NULL;
    }
    if (finish(self, copy(self->window.map, self->window.start + self->position, &byte, 1), 1) < 0)
        return NULL;
    return Py_NewRef(Py_None);
}

static PyObject *mmap_seek(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Mmap *self = DATA(Mmap, object);
    Py_ssize_t by;
    int64_t from = 0;
    int whence = 0;

    if (!self->window.open)
        return raise_closed(&self->window);
    if (n < 1 || n > 2)
        return PyErr_Format(PyExc_TypeError, "seek() takes 1 or 2 arguments, not %zd", n);
    by = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if ((by == -1 && PyErr_Occurred()) || (n == 2 && to_int(args[1], 0, &whence) < 0))
        return NULL;
    if (whence < 0 || whence > 2) {
        PyErr_SetString(PyExc_ValueError, "unknown seek type");
        return NULL;
    }
    if (begin(self) < 0)
        return NULL;
    if (whence != 0)
        from = whence == 1 ? self->position : self->window.length;
    if (by < -from || by > self->window.length - from) {
        leave(self);
        PyErr_SetString(PyExc_ValueError, "seek out of range");
        return NULL;
    }
    from = self->position = from + by;
    leave(self);
    return PyLong_FromLongLong(from);
}

static PyObject *mmap_tell(PyObject *object, PyObject *unused)
{
    Mmap *self = DATA(Mmap, object);

    (void)unused;
    if (!self->window.open)
        return raise_closed(&self->window);
    return PyLong_FromLongLong(self->position);
}

static PyObject *mmap_seekable(PyObject *object, PyObject *unused)
{
    (void)object;
    (void)unused;
    return PyBool_FromLong(1);
}

/* Methods that differ from Window's in their arguments */

static PyObject *find(Mmap *self, Search kind, const char *name, PyObject *const *args,
                      Py_ssize_t n)
{
    int64_t first = self->position;

    if (!self->window.open)
        return raise_closed(&self->window);
    if (n > 0 && !PyObject_CheckBuffer(args[0]))
        return PyErr_Format(PyExc_TypeError, "a bytes-like object is required, not %R",
                            Py_TYPE(args[0]));
    return search(&self->window, kind, name, first, args, n);
}

static PyObject *mmap_find(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return find(DATA(Mmap, self), FIND, "find", args, n);
}

static PyObject *mmap_rfind(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return find(DATA(Mmap, self), RFIND, "rfind", args, n);
}

/* The items of iteration: bytes of length 1. An index gives an int. */
static PyObject *mmap_item(PyObject *object, Py_ssize_t place)
{
    Window *self = DATA(Window, object);
    Map *map;
    int failed;
    char byte;

    if (acquire(self) < 0)
        return NULL;
    if (place < 0 || place >= self->length) {
        UNLOCK(self->file);
        PyErr_SetString(PyExc_IndexError, "mmap index out of range");
        return NULL;
    }
    map = NEW_REF(Map, self->map);
    failed = copy(map, &byte, self->start + place, 1);
    UNLOCK(self->file);
    failed = check_fault(map, failed, place, 1);
    Py_DECREF(OBJECT(map));
    return failed ? NULL : PyBytes_FromStringAndSize(&byte, 1);
}

static PyObject *mmap_move(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Mmap *self = DATA(Mmap, object);
    Window *window = &self->window;
    Py_ssize_t number[3];
    int failed, i;
    Map *map;

    if (!window->open)
        return raise_closed(window);
    if (n != 3)
        return PyErr_Format(PyExc_TypeError,
                            "move() takes dest, src and count: 3 arguments, not %zd", n);
    for (i = 0; i < 3; i++) {
        number[i] = PyNumber_AsSsize_t(args[i], PyExc_OverflowError);
        if (number[i] == -1 && PyErr_Occurred())
            return NULL;
    }
    if (!is_writable(self) || acquire(window) < 0)
        return NULL;
    if (number[0] < 0 || number[1] < 0 || number[2] < 0 || window->length - number[0] < number[2] ||
        window->length - number[1] < number[2]) {
        UNLOCK(window->file);
        PyErr_SetString(PyExc_ValueError, "source, destination, or count out of range");
        return NULL;
    }
    if (number[2] == 0) {
        UNLOCK(window->file);
        return Py_NewRef(Py_None);
    }
    map = NEW_REF(Map, window->map);
    failed = copy(map, window->start + number[0], window->start + number[1], number[2]);
    UNLOCK(window->file);
    if (check_fault(map, failed, number[0], number[2]) < 0 ||
        check_fault(map, 0, number[1], number[2]) < 0)
        failed = -1;
    Py_DECREF(OBJECT(map));
    return failed ? NULL : Py_NewRef(Py_None);
}

/* Flushes a range; a count of -1 is to the end. The caller has the turn. */
static PyObject *flush(Mmap *self, Py_ssize_t first, Py_ssize_t count, int flags)
{
    Window *window = &self->window;

    if (!window->open) /* another thread has closed it */
        return raise_closed(window);
    if (count < 0)
        count = (Py_ssize_t)window->length - first;
    if (first < 0 || count < 0 || window->length - first < count) {
        PyErr_SetString(PyExc_ValueError, "flush values out of range");
        return NULL;
    }
    if ((flags & ~(MS_SYNC | MS_ASYNC | MS_INVALIDATE)) ||
        ((flags & MS_SYNC) && (flags & MS_ASYNC)))
        return raise_os_error(window->file, window->file->state->call.system.invalid, "flush");
    if (count == 0 || window->file->access != MF_WRITE)
        return Py_NewRef(Py_None);
    return flush_range(window, first, count, !(flags & MS_ASYNC));
}

static PyObject *mmap_flush(PyObject *object, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    static const char *const known[] = {"offset", "size", "flags"};
    PyObject *given[3] = {NULL, NULL, NULL}, *done;
    Mmap *self = DATA(Mmap, object);
    Py_ssize_t first = 0, count = -1;
    int flags, begun;

    if (!self->window.open)
        return raise_closed(&self->window);
    if (to_arguments("flush", known, 3, 2, given, args, n, names) < 0 ||
        to_int(given[2], MS_SYNC, &flags) < 0)
        return NULL;
    if (given[0] != NULL)
        first = PyNumber_AsSsize_t(given[0], PyExc_OverflowError);
    if (given[1] != NULL && !PyErr_Occurred())
        count = PyNumber_AsSsize_t(given[1], PyExc_OverflowError);
    if (PyErr_Occurred())
        return NULL;
    if (!self->window.open)
        return raise_closed(&self->window);
    if (given[1] != NULL && count < 0) {
        PyErr_SetString(PyExc_ValueError, "flush values out of range");
        return NULL;
    }
    begun = begin_call(&self->window);
    if (begun < 0)
        return NULL;
    done = flush(self, first, count, flags);
    end_call(&self->window, begun);
    if (PyErr_Occurred())
        Py_CLEAR(done);
    return done;
}

/* Rounds a range to pages. Hints are rounded outwards, as the system rounds their end. Advice that
 * may discard bytes is rounded inwards. */
static char *round_to_pages(const Map *map, int advice, Py_ssize_t first, Py_ssize_t *count)
{
    size_t page = map->file->state->call.system.page_size;
    size_t start = map->padding + (size_t)first, stop = start + (size_t)*count;

    if (start % page == 0)
        return map->map.base + start;
    if (advice == MADV_NORMAL || advice == MADV_RANDOM || advice == MADV_SEQUENTIAL ||
        advice == MADV_WILLNEED) {
        start -= start % page;
    } else {
        start += page - start % page;
        stop -= stop % page;
    }
    *count = stop > start ? (Py_ssize_t)(stop - start) : 0;
    return map->map.base + start;
}

static PyObject *mmap_madvise(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Mmap *self = DATA(Mmap, object);
    Window *window = &self->window;
    Py_ssize_t first = 0, count = PY_SSIZE_T_MAX;
    int advice, begun, error = 0;
    int64_t length;
    Map *map;

    if (!window->open)
        return raise_closed(window);
    if (n < 1 || n > 3)
        return PyErr_Format(PyExc_TypeError, "madvise() takes 1 to 3 arguments, not %zd", n);
    if (to_int(args[0], 0, &advice) < 0)
        return NULL;
    if (n > 1)
        first = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (n > 2 && !PyErr_Occurred())
        count = PyNumber_AsSsize_t(args[2], PyExc_OverflowError);
    if (PyErr_Occurred())
        return NULL;
    begun = begin_call(window);
    if (begun < 0)
        return NULL;
    map = window_use(window, &length);
    if (map == NULL && PyErr_Occurred()) {
        end_call(window, begun);
        return NULL;
    }
    if (first < 0 || (first >= length && (first > 0 || length > 0)))
        PyErr_SetString(PyExc_ValueError, "madvise start out of bounds");
    else if (count < 0)
        PyErr_SetString(PyExc_ValueError, "madvise length invalid");
    else if (n > 2 && PY_SSIZE_T_MAX - first < count)
        PyErr_SetString(PyExc_OverflowError, "madvise length too large");
    if (!PyErr_Occurred() && map != NULL) {
        char *start;

        if (count > length - first)
            count = (Py_ssize_t)(length - first);
        start = round_to_pages(map, advice, first, &count);
        if (count > 0)
            WITHOUT_GIL(error = window->file->state->call.madvise(start, (size_t)count, advice));
        if (error != 0)
            raise_os_error(window->file, error, "advise");
    }
    if (map != NULL)
        window_release(window, map);
    end_call(window, begun);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *mmap_set_name(PyObject *object, PyObject *value)
{
    Mmap *self = DATA(Mmap, object);
    Window *window = &self->window;
    char full[80] = "cpython:mmap:";
    const char *name;
    Py_ssize_t size;
    int64_t length;
    int error;
    Map *map;

    if (!window->open)
        return raise_closed(window);
    if (!PyUnicode_Check(value))
        return PyErr_Format(PyExc_TypeError, "a name must be a str, not %R", Py_TYPE(value));
    name = PyUnicode_AsUTF8AndSize(value, &size);
    if (name == NULL)
        return NULL;
    if (!self->anonymous || size > LONGEST_NAME || strlen(name) != (size_t)size) {
        PyErr_SetString(PyExc_ValueError,
                        !self->anonymous      ? "only memory without a file can have a name"
                        : size > LONGEST_NAME ? "name is too long: it can have 66 bytes"
                                              : "embedded null character");
        return NULL;
    }
    map = window_use(window, &length);
    if (map == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    memcpy(full + strlen(full), name, (size_t)size + 1);
    error = window->file->state->call.set_name(map->map.base, map->map.length, full);
    if (error != 0 && error != window->file->state->call.system.not_supported)
        raise_os_error(window->file, error, "name");
    window_release(window, map);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* Size */

/* Whether it is a character device, which has no size. */
static int is_endless(const File *file)
{
    return file->file.device && file->file.size < 0;
}

static PyObject *mmap_size(PyObject *object, PyObject *unused)
{
    Mmap *self = DATA(Mmap, object);
    File *file = self->window.file;
    int64_t size;
    int begun, error = 0;

    (void)unused;
    if (!self->window.open)
        return raise_closed(&self->window);
    begun = begin_call(&self->window);
    if (begun < 0)
        return NULL;
    size = self->window.length;
    if (!self->tracked) /* both an OSError, as mmap raises before Python 3.15, and a ValueError, as
                           it raises since */
        raise_unsupported(Py_BuildValue("(is)", EBADF, "mmap can't get size with trackfd=False."));
    else if (is_endless(file))
        size = 0;
    else if (!self->anonymous)
        WITHOUT_GIL(error = file->state->call.get_size(&file->file, &size));
    if (error != 0)
        raise_os_error(file, error, "read the size of");
    end_call(&self->window, begun);
    return PyErr_Occurred() ? NULL : PyLong_FromLongLong(size);
}

/* Whether nothing but the object uses its memory, and it is open. Called with the lock. */
static int is_alone(const Window *window)
{
    return window->open && window->map->users == 1;
}

static void raise_taken(Window *window)
{
    if (!window->open)
        raise_closed(window);
    else
        PyErr_SetString(PyExc_BufferError,
                        "mmap can't resize memory without a file while buffers or calls use it.");
}

/* Gives memory without a file another size: copies it to a new map. Returns the system's code, or
 * -1 if an exception is set. */
static int copy_memory(Mmap *self, int64_t size)
{
    Window *window = &self->window;
    File *file = window->file;
    const mf_table *call = &file->state->call;
    mf_section section = {-1, 0}, old = file->section;
    Map *map, *present = window->map;
    size_t count = (size_t)(size < window->length ? size : window->length);
    int error = 0, taken;

    if (self->tag != NULL)
        error = call->close_section(
            &file->section); /* otherwise the tag would still be in use, by this object */
    if (error == 0)
        error = open_memory(file, window->offset + size, self->tag, &section);
    if (error == 0 && self->tag != NULL &&
        section.size < 0) { /* others use it: its size is unchanged */
        file->section = section;
        return USER_MAPPED_FILE;
    }
    if (error != 0)
        return error;
    map = map_new(file, &section, window->offset, size, 0, &error);
    if (map == NULL) {
        call->close_section(&section);
        if (self->tag != NULL && !PyErr_Occurred())
            open_memory(file, window->offset + window->length, self->tag, &file->section);
        return error != 0 ? error : -1;
    }
    LOCK(file);
    taken = !is_alone(window); /* another thread may have closed or exported it meanwhile */
    if (!taken) {
        error = call->copy(&map->map, map->map.base + map->padding, 1, window->start, 1, count);
        Py_INCREF(OBJECT(present));
        set_map(window, map);
        window->length = size;
        file->section = section;
    } else if (self->tag != NULL) {
        file->section = section; /* the memory of this tag; the map has fewer bytes or as many */
    }
    UNLOCK(file);
    if (taken) {
        raise_taken(window);
        map_release(map);
        Py_DECREF(OBJECT(map));
        if (self->tag == NULL)
            call->close_section(&section);
        return -1;
    }
    if (self->tag == NULL && error == 0)
        error = call->close_section(&old);
    map_release(present);
    Py_DECREF(OBJECT(present));
    return error;
}

static void resize_memory(Mmap *self, int64_t size)
{
    Window *window = &self->window;
    File *file = window->file;
    const mf_system *system = &file->state->call.system;
    int shared = file->access == MF_WRITE &&
                 !system->has_sections; /* POSIX cannot make it longer */
    int error = 0, moved = 0;

    if (begin_change(window) < 0)
        return;
    LOCK(file);
    if (!is_alone(window)) {
        UNLOCK(file);
        raise_taken(window);
        end_change(window);
        return;
    }
    if (size == 0) {
        error = system->invalid;
    } else if (shared && size > window->length) {
        PyErr_SetString(PyExc_ValueError,
                        "mmap: can't expand a shared anonymous mapping on this system");
        error = -1;
    } else if (size != window->length) {
        moved = remap_window(window, window->map, size);
        if (moved)
            window->length = size;
        else if (shared)
            error = system->not_supported;
    } else {
        moved = 1;
    }
    UNLOCK(file);
    if (error == 0 && !moved)
        error = copy_memory(self, size);
    if (error != 0)
        raise_os_error(file, error, "resize");
    end_change(window);
}

static PyObject *mmap_resize(PyObject *object, PyObject *value)
{
    Mmap *self = DATA(Mmap, object);
    Window *window = &self->window;
    Py_ssize_t size;

    if (!window->open)
        return raise_closed(window);
    size = PyNumber_AsSsize_t(value, PyExc_OverflowError);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    if (!window->open)
        return raise_closed(window);
    if (!self->tracked) {
        PyErr_SetString(PyExc_ValueError, "mmap can't resize with trackfd=False.");
    } else if (self->access == ACCESS_READ || self->access == ACCESS_COPY ||
               (!self->anonymous && window->file->access == MF_COPY)) {
        PyErr_SetString(PyExc_TypeError,
                        "mmap can't resize a readonly or copy-on-write memory map.");
    } else if (size < 0 || PY_SSIZE_T_MAX - size < window->offset) {
        PyErr_SetString(PyExc_ValueError, "new size out of range");
    } else if (is_endless(window->file)) {
        raise_os_error(window->file, window->file->state->call.system.invalid, "resize");
    } else if (self->anonymous) {
        resize_memory(self, size);
    } else {
        window_set_size(window, window->offset + size);
    }
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* Other methods */

static PyObject *mmap_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    return window_close(object, Py_False);
}

static PyObject *mmap_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    return DATA(Window, object)->open ? Py_NewRef(object) : raise_closed(DATA(Window, object));
}

static PyObject *mmap_exit(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    (void)args;
    (void)n;
    return window_close(object, Py_False);
}

static PyObject *mmap_sizeof(PyObject *object, PyObject *unused)
{
    Mmap *self = DATA(Mmap, object);
    Py_ssize_t size = (Py_ssize_t)(sizeof(Mmap) + sizeof(File) + sizeof(Map) + 3 * head_size);

    (void)unused;
    if (self->tag != NULL)
        size += 2 * (PyUnicode_GetLength(self->tag) + 1);
    return PyLong_FromSsize_t(size);
}

static PyObject *mmap_repr(PyObject *object)
{
    static const char *const names[] = {"ACCESS_DEFAULT", "ACCESS_READ", "ACCESS_WRITE",
                                        "ACCESS_COPY"};
    Mmap *self = DATA(Mmap, object);
    PyObject *name, *text;

    if (self->window.file != NULL && Py_TYPE(object) == self->window.file->state->mmap_type)
        name = PyUnicode_FromString("mmap.mmap");
    else
        name = PyType_GetName(Py_TYPE(object));
    if (name == NULL)
        return NULL;
    if (!self->window.open)
        text = PyUnicode_FromFormat("<%U closed=True>", name);
    else
        text = PyUnicode_FromFormat(
            "<%U closed=False, access=%s, length=%lld, pos=%lld, offset=%lld>", name,
            names[(int)self->access], (long long)self->window.length, (long long)self->position,
            (long long)self->window.offset);
    Py_DECREF(name);
    return text;
}

static PyMethodDef methods[] = {
    {"close", mmap_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "Unmap the memory and close the file. Buffers keep their memory until the last of them is "
     "gone. Closing twice is silent."},
    {"find", FAST(mmap_find), METH_FASTCALL,
     "find($self, sub, start=None, end=None, /)\n--\n\n"
     "Return the lowest index where *sub* begins, or -1. The search begins at the position unless "
     "*start* is given."},
    {"rfind", FAST(mmap_rfind), METH_FASTCALL,
     "rfind($self, sub, start=None, end=None, /)\n--\n\n"
     "Return the highest index where *sub* begins, or -1. The search begins at the position unless "
     "*start* is given."},
    {"flush", FAST(mmap_flush), METH_FASTCALL | METH_KEYWORDS,
     "flush($self, offset=0, size=None, *, flags=MS_SYNC)\n--\n\n"
     "Write changed pages back to the file, and wait until they are on stable storage, unless "
     "*flags* has ``MS_ASYNC``.\n\n"
     "The range is rounded outwards to pages."},
    {"madvise", FAST(mmap_madvise), METH_FASTCALL,
     "madvise($self, option, start=0, length=None, /)\n--\n\n"
     "Tell the system how the memory will be used: one of ``MADV_*``. A start within a page is "
     "rounded."},
    {"move", FAST(mmap_move), METH_FASTCALL,
     "move($self, dest, src, count, /)\n--\n\nCopy *count* bytes from *src* to *dest*, which may "
     "overlap."},
    {"read", FAST(mmap_read), METH_FASTCALL,
     "read($self, n=None, /)\n--\n\n"
     "Return up to *n* bytes from the position on, and advance it; without *n* all bytes up to "
     "the end."},
    {"read_byte", mmap_read_byte, METH_NOARGS,
     "read_byte($self, /)\n--\n\nReturn the byte at the position, as an int, and advance it."},
    {"readline", mmap_readline, METH_NOARGS,
     "readline($self, /)\n--\n\nReturn the bytes from the position to the end of the line, and "
     "move it."},
    {"resize", mmap_resize, METH_O,
     "resize($self, newsize, /)\n--\n\n"
     "Set the size of the map, and of the file to where the map ends. Growing works while buffers "
     "are alive."},
    {"seek", FAST(mmap_seek), METH_FASTCALL,
     "seek($self, pos, whence=0, /)\n--\n\n"
     "Set the position, from the start (0), the position (1) or the end (2), and return it."},
    {"seekable", mmap_seekable, METH_NOARGS, "seekable($self, /)\n--\n\nReturn True."},
    {"set_name", mmap_set_name, METH_O,
     "set_name($self, name, /)\n--\n\n"
     "Name memory without a file. Linux shows the name in /proc/self/maps."},
    {"size", mmap_size, METH_NOARGS,
     "size($self, /)\n--\n\n"
     "Return the size of the file, in bytes, which may be larger than the map. Memory without a "
     "file has the size of the map."},
    {"tell", mmap_tell, METH_NOARGS, "tell($self, /)\n--\n\nReturn the position."},
    {"write", mmap_write, METH_O,
     "write($self, bytes, /)\n--\n\n"
     "Write bytes at the position, advance it, and return their number. ``ValueError`` if they do "
     "not fit."},
    {"write_byte", mmap_write_byte, METH_O,
     "write_byte($self, byte, /)\n--\n\nWrite a byte, an int, at the position, and advance it."},
    {"__enter__", mmap_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(mmap_exit), METH_FASTCALL, NULL},
    {"__sizeof__", mmap_sizeof, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"closed", window_get_closed, NULL, "Whether ``close()`` was called.", NULL},
    {"faulted", window_get_faulted, NULL,
     "Whether bytes of the map are gone: buffers read zeros there. mmap has no such thing.", NULL},
    {"_mapped", window_get_mapped, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Mmap, window.weakrefs), READONLY | RELATIVE, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, mmap_new},
    {Py_tp_dealloc, mmap_dealloc},
    {Py_tp_repr, mmap_repr},
    {Py_sq_item, mmap_item},
    {Py_mp_subscript, window_subscript}, /* otherwise __getitem__ would call mmap_item */
    {Py_mp_ass_subscript, window_assign},
    {Py_sq_length, window_length},
    {Py_sq_contains, window_contains},
    {Py_bf_getbuffer, window_get_buffer},
    {Py_bf_releasebuffer, window_release_buffer},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {Py_tp_doc,
     "mmap(fileno, length, flags=MAP_SHARED, prot=PROT_READ | PROT_WRITE, access=ACCESS_DEFAULT, "
     "offset=0, *, trackfd=True,"
     " tagname=None)\n"
     "--\n\n"
     "Map *length* bytes of a file from *offset* on; 0 is all bytes to the end. A *fileno* of -1 "
     "maps memory without a file.\n\n"
     "Positional arguments can have the order of Windows too: mmap(fileno, length, tagname, "
     "access, offset)."},
    {0, NULL},
};

PyType_Spec mmap_spec = {
    "mappedfile.mmap.mmap", SIZE(Mmap), 0, TYPE_FLAGS | Py_TPFLAGS_BASETYPE, slots,
};
