/* Conversions and checks of arguments, and the errors of a window. */
#include "memory.h"

const char *kind_of(const Window *self)
{
    if (self->mmap)
        return "mmap";
    return self->whole || self->file == NULL ? "mapped file" : "view";
}

PyObject *raise_faulted(Window *self)
{
    int64_t at = -1;

    LOCK(self->file);
    if (self->owns && self->map->map.lost_to != 0)
        at = (int64_t)self->map->map.lost_from;
    UNLOCK(self->file);
    return raise_fault(self->file, at);
}

PyObject *raise_closed(Window *self)
{
    if (self->mmap)
        PyErr_SetString(PyExc_ValueError, "mmap closed or invalid");
    else if (self->file == NULL)
        PyErr_Format(PyExc_ValueError, "the %s was never opened", kind_of(self));
    else
        PyErr_Format(PyExc_ValueError, "the %s on %R is closed", kind_of(self), self->file->name);
    return NULL;
}

PyObject *raise_readonly(Window *self, PyObject *kind)
{
    if (self->mmap)
        PyErr_SetString(kind, "mmap can't modify a readonly memory map.");
    else
        PyErr_Format(kind, "the %s on %R is read-only: open the file in mode 'r+' or 'c'",
                     kind_of(self), self->file->name);
    return NULL;
}

/* Numbers and bytes of the caller */

int to_size(PyObject *number, const char *what, int64_t *out)
{
    PyObject *index = PyNumber_Index(number);
    int overflow;

    if (index == NULL)
        return -1;
    *out = PyLong_AsLongLongAndOverflow(index, &overflow);
    if (overflow > 0)
        PyErr_Format(PyExc_OverflowError, "%s must be at most 9223372036854775807 bytes, not %R",
                     what, index);
    else if (overflow < 0 || (*out < 0 && !PyErr_Occurred()))
        PyErr_Format(PyExc_ValueError, "%s must be 0 or more bytes, not %R", what, index);
    Py_DECREF(index);
    return PyErr_Occurred() ? -1 : 0;
}

int to_range(Window *self, int64_t first, int64_t size, int64_t *count)
{
    if (first > size) {
        PyErr_Format(PyExc_ValueError,
                     "offset %lld is past the end of the %s, which has %lld bytes",
                     (long long)first, kind_of(self), (long long)size);
        return -1;
    }
    if (*count < 0)
        *count = size - first;
    if (*count > size - first) {
        PyErr_Format(
            PyExc_ValueError,
            "offset %lld and length %lld reach past the end of the %s, which has %lld bytes",
            (long long)first, (long long)*count, kind_of(self), (long long)size);
        return -1;
    }
    return 0;
}

/* Converts the offset and length of a range. A length of None is -1: to the end. */
int to_numbers(PyObject *offset, PyObject *length, int64_t *first, int64_t *count)
{
    *count = -1;
    if (to_size(offset, "offset", first) < 0)
        return -1;
    return length == Py_None ? 0 : to_size(length, "length", count);
}

int to_arguments(const char *function, const char *const *known, int number, Py_ssize_t by_place,
                 PyObject **out, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    Py_ssize_t i, named = names == NULL ? 0 : PyTuple_Size(names);
    int at;

    if (n > by_place) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd positional arguments, not %zd",
                     function, by_place, n);
        return -1;
    }
    for (i = 0; i < n; i++)
        out[i] = args[i];
    for (i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i);

        for (at = 0; at < number && PyUnicode_CompareWithASCIIString(name, known[at]) != 0; at++)
            ;
        if (at == number || out[at] != NULL) {
            PyErr_Format(PyExc_TypeError,
                         at == number ? "%s() takes no argument %R" : "%s() was given %R twice",
                         function, name);
            return -1;
        }
        out[at] = args[n + i];
    }
    return 0;
}

int to_bytes(PyObject *value, Py_buffer *out)
{
    PyObject *view, *bytes;
    int failed;

    if (PyObject_GetBuffer(value, out, PyBUF_FULL_RO) < 0)
        return -1;
    if (PyBuffer_IsContiguous(out, 'C'))
        return 0;
    PyBuffer_Release(out);
    view = PyMemoryView_FromObject(value);
    bytes = view == NULL ? NULL : PyObject_CallMethod(view, "tobytes", NULL);
    failed = bytes == NULL ? -1 : PyObject_GetBuffer(bytes, out, PyBUF_SIMPLE);
    Py_XDECREF(view);
    Py_XDECREF(bytes);
    return failed;
}

int to_byte(PyObject *value, PyObject *kind, char *out)
{
    Py_ssize_t number = PyNumber_AsSsize_t(value, kind);

    if (number == -1 && PyErr_Occurred())
        return -1;
    if (number < 0 || number > 255) {
        PyErr_Format(PyExc_ValueError, "a byte must be in range(0, 256), not %R", value);
        return -1;
    }
    *out = (char)number;
    return 0;
}

int check_fault(const Map *map, int failed, int64_t first, int64_t count)
{
    int64_t at = map->offset + (int64_t)map->padding + first;

    if (failed == 0 && map->map.lost_to == 0)
        return 0;
    if (!is_lost(map, first, count, &at) && failed == 0)
        return 0;
    raise_fault(map->file, at);
    return -1;
}
