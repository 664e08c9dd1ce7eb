/* mappedfile._access: the bytes of a map, straight from memory. No backend, and the one file that knows Python.
 *
 * Access is the base of Window. It does what is asked for most: w[i], w[a:b] and their assignments, with plain ints and bytes, on a
 * window that is mapped, and whole. Everything else it hands to Window's _get and _set, which alone say what indexing means;
 * without this module they do it all (free-threaded Pythons, PyPy: they have no limited API, or no use for it). It also is the
 * finalizer, which has nothing to do for a window that was closed.
 *
 * It is here because no Python is quick enough: a __getitem__ that only returns a constant takes 1.7 times as long as mmap's. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include "native.h"

typedef struct {
    PyObject_HEAD
    PyObject *held;  /* what keeps the map: Window's affair */
    mf_mapping *map; /* NULL: go to _get and _set */
    char *start;     /* of the window, inside the map */
    Py_ssize_t length;
    int writable;
    char open; /* Window's affair too, but for the end: what is open then was forgotten */
} Access;

static PyObject *name_get, *name_set, *name_drop;

/* Whether a page of the map is gone. It tells of the copy just made: who was given zeros raised the mark first. */
static int is_lost(const Access *self)
{
#ifndef _WIN32
    atomic_thread_fence(memory_order_acquire); /* the copy is done, also if another thread's handler put the zeros there */
#endif
    return !WITHOUT_GUARD && self->map->lost_to != 0;
}

static int copy(const Access *self, char *to, const char *from, Py_ssize_t count)
{
#ifdef _WIN32
    return self->map->copier(self->map, to, 1, from, 1, (size_t)count);
#else
    (void)self; /* not even a look at copier: it would cost a tenth of w[i] */
    memcpy(to, from, (size_t)count);
    return 0;
#endif
}

/* The place of an index, or -1. */
static Py_ssize_t place(const Access *self, PyObject *key)
{
    Py_ssize_t number = PyLong_AsSsize_t(key);

    if (number == -1 && PyErr_Occurred()) { /* an int that is no Py_ssize_t: _get says so */
        PyErr_Clear();
        return -1;
    }
    if (number < 0)
        number += self->length;
    return number < self->length ? number : -1;
}

/* Resolves a slice of step 1 into where it begins and how long it is; or returns 0. The slice may run Python, so self->map is to be
 * looked at again. */
static int range(const Access *self, PyObject *key, Py_ssize_t *start, Py_ssize_t *count)
{
    Py_ssize_t stop, step;

    if (PySlice_Unpack(key, start, &stop, &step) < 0) {
        PyErr_Clear(); /* it comes again */
        return 0;
    }
    *count = PySlice_AdjustIndices(self->length, start, &stop, step);
    return self->map != NULL && step == 1;
}

static PyObject *subscript(PyObject *object, PyObject *key)
{
    Access *self = (Access *)object;
    Py_ssize_t start, count;
    PyObject *bytes;
    char byte;

    if (self->map != NULL && PyLong_CheckExact(key)) {
        start = place(self, key);
        if (start >= 0 && copy(self, &byte, self->start + start, 1) == 0 && !is_lost(self))
            return PyLong_FromLong((unsigned char)byte);
    } else if (self->map != NULL && Py_IS_TYPE(key, &PySlice_Type) && range(self, key, &start, &count)) {
        bytes = PyBytes_FromStringAndSize(NULL, count);
        if (bytes == NULL)
            return NULL;
        if (copy(self, PyBytes_AsString(bytes), self->start + start, count) == 0 && !is_lost(self))
            return bytes;
        Py_DECREF(bytes);
    }
    return PyObject_CallMethodObjArgs(object, name_get, key, NULL);
}

/* What makes it a sequence, for reversed(). Subclasses are given a slot of Python's instead, which calls __getitem__. */
static PyObject *item(PyObject *object, Py_ssize_t index)
{
    PyObject *key = PyLong_FromSsize_t(index);
    PyObject *found = key == NULL ? NULL : subscript(object, key);

    Py_XDECREF(key);
    return found;
}

static int assign(PyObject *object, PyObject *key, PyObject *value)
{
    Access *self = (Access *)object;
    Py_ssize_t start, count;
    PyObject *none;
    long number;
    char byte;

    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "the bytes of a file cannot be deleted: set them, or resize() the file");
        return -1;
    }
    if (self->map != NULL && self->writable) {
        if (PyLong_CheckExact(key) && PyLong_CheckExact(value)) {
            start = place(self, key);
            number = PyLong_AsLong(value);
            if (number == -1)
                PyErr_Clear(); /* likewise */
            byte = (char)number;
            if (start >= 0 && number >= 0 && number <= 255 && copy(self, self->start + start, &byte, 1) == 0 &&
                !is_lost(self))
                return 0;
        } else if (Py_IS_TYPE(key, &PySlice_Type) && PyBytes_CheckExact(value) && range(self, key, &start, &count)) {
            if (count == PyBytes_Size(value) && copy(self, self->start + start, PyBytes_AsString(value), count) == 0 &&
                !is_lost(self))
                return 0;
        }
    }
    none = PyObject_CallMethodObjArgs(object, name_set, key, value, NULL);
    Py_XDECREF(none);
    return none == NULL ? -1 : 0;
}

/* _point_at(held, address of the mf_mapping, offset in the map, length, writable): to be at this map, and keep held, in one step;
 * with address 0 at nothing. */
static PyObject *point_at(PyObject *object, PyObject *const *arguments, Py_ssize_t number)
{
    Access *self = (Access *)object;
    PyObject *before = self->held;
    mf_mapping *map;
    size_t offset;
    Py_ssize_t length;
    long writable;

    if (number != 5) {
        PyErr_SetString(PyExc_TypeError, "_point_at takes 5 arguments");
        return NULL;
    }
    map = PyLong_AsVoidPtr(arguments[1]);
    offset = PyLong_AsSize_t(arguments[2]);
    length = PyLong_AsSsize_t(arguments[3]);
    writable = PyLong_AsLong(arguments[4]);
    if (PyErr_Occurred())
        return NULL;
    Py_INCREF(arguments[0]);
    self->held = arguments[0];
    self->map = map;
    self->start = map == NULL ? NULL : map->base + offset;
    self->length = length;
    self->writable = writable != 0;
    Py_XDECREF(before); /* last: it may unmap, and others run meanwhile */
    Py_INCREF(Py_None); /* Py_RETURN_NONE of headers since 3.12 counts nothing, and older Pythons load this too */
    return Py_None;
}

static int traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Access *)object)->held);
    return 0;
}

static int clear(PyObject *object)
{
    Access *self = (Access *)object;

    self->map = NULL;
    Py_CLEAR(self->held);
    return 0;
}

static void finalize(PyObject *object)
{
    PyObject *kind, *value, *trace, *none;

    if (!((Access *)object)->open)
        return;
    PyErr_Fetch(&kind, &value, &trace);
    none = PyObject_CallMethodObjArgs(object, name_drop, NULL);
    if (none == NULL)
        PyErr_WriteUnraisable(object);
    Py_XDECREF(none);
    PyErr_Restore(kind, value, trace);
}

static void dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    PyObject_GC_UnTrack(object);
    clear(object);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"_point_at", (PyCFunction)(void (*)(void))point_at, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_held", T_OBJECT, offsetof(Access, held), READONLY, NULL},
    {"_open", T_BOOL, offsetof(Access, open), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_mp_subscript, subscript}, {Py_mp_ass_subscript, assign}, {Py_sq_item, item},       {Py_tp_methods, methods},
    {Py_tp_members, members},     {Py_tp_traverse, traverse},    {Py_tp_clear, clear},     {Py_tp_finalize, finalize},
    {Py_tp_dealloc, dealloc},     {0, NULL},
};

static PyType_Spec spec = {
    "mappedfile._access.Access", sizeof(Access), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, slots,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "mappedfile._access", NULL, -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__access(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = PyType_FromSpec(&spec);

    name_get = PyUnicode_InternFromString("_get");
    name_set = PyUnicode_InternFromString("_set");
    name_drop = PyUnicode_InternFromString("_drop");
    if (module == NULL || type == NULL || name_get == NULL || name_set == NULL || name_drop == NULL ||
        PyModule_AddObjectRef(module, "Access", type) < 0) {
        Py_XDECREF(module);
        return NULL;
    }
    Py_DECREF(type);
    return module;
}
