/* The size of a file, and the map of the whole file: open, view, grow, shrink, refresh, lock,
 * close.
 *
 * One thread at a time changes the size. It prepares a longer file, a section and a map, and puts
 * them in place in one step, with the lock. Until then every other thread sees the old state, and a
 * failure leaves the old state. Of Python code, only signal handlers run in between, and they see
 * the old state too. */
#include "memory.h"

#define MUCH_ROOM (64 << 20) /* bytes */

/* The length of the window when the file has this size. */
static int64_t length_at(const Window *self, int64_t size)
{
    return size > self->offset ? size - self->offset : 0;
}

/* Raises if the window is a view: MappedFile.resize(view, 0) ends here. */
static int is_no_file(Window *self)
{
    if (self->whole || self->file == NULL)
        return 0;
    PyErr_Format(PyExc_TypeError, "%R is a view: only a mapped file has a size to change",
                 OBJECT(self));
    return 1;
}

/* Taking turns */

/* Whether it is this thread's turn: a signal handler interrupts its own thread. */
static int has_turn(const File *file)
{
    return file->changer == PyThread_get_thread_ident();
}

/* Wakes a thread that waits for its turn. If there is none, it returns what they wait for, which
 * the caller frees without the lock. Called with the lock. */
static PyThread_type_lock wake_next(File *file)
{
    PyThread_type_lock unused = file->turn;

    if (file->waiting > 0) {
        /* It may be unlocked already, for a thread that has not run yet. One unlocking is enough.
         */
        PyThread_acquire_lock(file->turn, NOWAIT_LOCK);
        PyThread_release_lock(file->turn);
        return NULL;
    }
    file->turn = NULL;
    return unused;
}

void end_change(Window *self)
{
    File *file = self->file;
    PyThread_type_lock unused;
    int error;

    LOCK(file);
    file->changer = 0;
    unused = wake_next(file);
    UNLOCK(file);
    if (unused != NULL)
        PyThread_free_lock(unused);
    error = file_release(file);
    if (error != 0)
        raise_os_error(file, error, "close");
}

static PyThread_type_lock new_turn(void)
{
    PyThread_type_lock turn = PyThread_allocate_lock();

    if (turn != NULL)
        PyThread_acquire_lock(turn, NOWAIT_LOCK);
    return turn;
}

/* A forked child has only one thread of its parent. It ends the turn of any other thread, and the
 * uses of the file by that thread and by those that waited: nobody else would end them. A call of
 * an Mmap also uses the map. */
static void end_turn_of_parent(Window *self)
{
    File *file = self->file;
    const mf_table *call = &file->state->call;
    int process = call->process(), gone;

    LOCK(file);
    if (file->changing_process != process) {
        gone = file->changer != 0 && file->changer != call->forker();
        if (gone && self->mmap && self->open) {
            file->users = 1;
            if (self->owns)
                self->map->users = 1 + self->map->buffers;
        } else {
            tally(&file->users, -(intptr_t)(file->waiting + gone));
        }
        if (gone)
            file->changer = 0;
        file->waiting = 0;
        file->turn = NULL;
        file->changing_process = process;
    }
    UNLOCK(file);
}

int begin_change(Window *self)
{
    File *file = self->file;
    int waited = 0;

again:
    if (file != NULL)
        end_turn_of_parent(self);
    if (file == NULL || !self->open || !file_use(file)) {
        raise_closed(self);
        return -1;
    }
    for (;;) {
        PyThread_type_lock turn;
        PyLockStatus status;

        LOCK(file);
        if (!self->open) { /* it was closed while this thread waited */
            turn = file->changer == 0 ? wake_next(file) : NULL;
            UNLOCK(file);
            if (turn != NULL)
                PyThread_free_lock(turn);
            raise_closed(self);
            break;
        }
        if (file->changer == 0 && (waited || file->waiting == 0)) {
            file->changer = PyThread_get_thread_ident();
            UNLOCK(file);
            return 0;
        }
        if (has_turn(file)) {
            UNLOCK(file);
            PyErr_Format(PyExc_BufferError,
                         self->mmap ? "this signal handler interrupts a call that uses %R: use the "
                                      "map after the handler has returned"
                                    : "the size of %R is being changed, and this signal handler "
                                      "interrupts the change: use the file after the handler has "
                                      "returned",
                         file->name);
            break;
        }
        if (file->turn == NULL)
            file->turn = new_turn();
        turn = file->turn;
        if (turn == NULL) {
            UNLOCK(file);
            PyErr_NoMemory();
            break;
        }
        file->waiting++;
        UNLOCK(file);
        WITHOUT_GIL(status = PyThread_acquire_lock_timed(turn, -1, 1));
        LOCK(file);
        file->waiting--;
        UNLOCK(file);
        waited = status == PY_LOCK_ACQUIRED;
        if (status == PY_LOCK_INTR) {
            /* A signal handler may fork, so this thread uses nothing meanwhile. */
            int closing = file_release(file);

            if (closing != 0)
                raise_os_error(file, closing, "close");
            if (PyErr_Occurred() || PyErr_CheckSignals() < 0)
                return -1;
            goto again;
        }
    }
    file_release(file);
    return -1;
}

int begin_call(Window *self)
{
    File *file = self->file;

    end_turn_of_parent(self);
    if (has_turn(file))
        return 0;
    for (;;) {
        if (window_map(self) < 0 || begin_change(self) < 0)
            return -1;
        if (self->start != NULL || self->length == 0 || !self->open)
            return 1;
        end_change(self); /* a change of the size has failed, and the map is gone */
    }
}

void end_call(Window *self, int begun)
{
    if (begun)
        end_change(self);
}

/* Whether another thread may be changing the size. */
static int is_changing(File *file)
{
    return file->changer != 0;
}

/* Paths */

/* Converts a path to the system's form. The caller drops *keep after use. NULL: an exception is
 * set. */
static const mf_char *native_path(PyObject *path, PyObject **keep)
{
#ifdef _WIN32
    wchar_t *wide = NULL;
    PyObject *text = NULL;

    *keep = NULL;
    if (PyUnicode_FSDecoder(path, &text)) {
        wide = PyUnicode_AsWideCharString(text, NULL);
        Py_DECREF(text);
        if (wide != NULL) {
            *keep = PyBytes_FromStringAndSize((char *)wide,
                                              (Py_ssize_t)((wcslen(wide) + 1) * sizeof(wchar_t)));
            PyMem_Free(wide);
        }
    }
    return *keep == NULL ? NULL : (const wchar_t *)(void *)PyBytes_AsString(*keep);
#else
    *keep = NULL;
    return PyUnicode_FSConverter(path, keep) ? PyBytes_AsString(*keep) : NULL;
#endif
}

static void remove_path(State *state, PyObject *path)
{
    PyObject *kind, *value, *trace, *keep = NULL;
    const mf_char *native;

    PyErr_Fetch(&kind, &value, &trace);
    native = native_path(path, &keep);
    if (native != NULL)
        state->call.remove(native); /* an error here is ignored: the first error is reported */
    Py_XDECREF(keep);
    PyErr_Clear();
    PyErr_Restore(kind, value, trace);
}

/* Growing the file */

/* Extends the file. Returns the system's code, or -1 if an exception is set. After an error the
 * file has its old size. */
static int grow_file(File *file, int64_t size, int64_t grown, mf_section *out)
{
    const mf_table *call = &file->state->call;
    mf_growth growth = {size, grown, size, 0, !file->sparse};
    int error;

    CALL_AGAIN(file->state, error, call->grow(&file->file, &growth, out));
    if (error != call->system.interrupted || !PyErr_Occurred())
        return error;
    call->set_size(&file->file, size);
    return -1;
}

/* Makes a section for the current size of the file. */
static int open_section(File *file, mf_section *out)
{
    int error;

    CALL_AGAIN(file->state, error, file->state->call.open_section(&file->file, file->access, out));
    return error;
}

int first_section(File *file)
{
    if (file->state->call.system.has_sections)
        return open_section(file, &file->section);
    file->section.size = file->file.size; /* without another system call */
    return 0;
}

/* Locking */

/* Locks the first length bytes of a map in memory. After an error nothing is locked. Returns the
 * system's code. The caller uses the map. */
static int mlock_pages(Map *map, int64_t length)
{
    State *state = map->file->state;
    size_t size;
    char *base = pages_around(map, 0, length, &size);
    int error;

    CALL_AGAIN(state, error, state->call.lock(base, size));
    if (error == state->call.system.over_quota && state->call.allow_locked(size) == 0)
        CALL_AGAIN(state, error, state->call.lock(base, size));
    if (error != 0) /* pages before the one that failed may be locked */
        state->call.unlock(base, size);
    return error;
}

static int munlock_pages(Map *map, int64_t length)
{
    size_t size;
    char *base = pages_around(map, 0, length, &size);
    int error;

    CALL_AGAIN(map->file->state, error, map->file->state->call.unlock(base, size));
    return error;
}

/* Raises the error for a failed lock of length bytes of a map. */
static void raise_lock_error(Map *map, int64_t length, int code)
{
    State *state = map->file->state;
    PyObject *error;
    size_t size;
    char *base = pages_around(map, 0, length, &size);

    if (PyErr_Occurred())
        return;
    error = PyObject_CallFunction(state->lock_error, "iOn", code, map->file->name,
                                  (Py_ssize_t)size);
    if (error == Py_None) { /* no limit was exceeded, so perhaps a page cannot be read */
        Py_DECREF(error);
        WITHOUT_GIL(size = (size_t)state->call.advise(base, size, MF_POPULATE_READ));
        if ((int)size == state->call.system.bad_address)
            raise_fault(map->file, -1);
        else
            raise_os_error(map->file, code, "lock");
    } else if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
}

static int is_mlocked(File *file)
{
    return file->mlocked != 0 && file->mlocked == file->state->call.process();
}

/* The map of the whole file */

/* Takes the map from a window, with the lock. Returns it for drop_map, which is called without the
 * lock; or NULL. */
static Map *take_map(Window *self)
{
    Map *map = self->owns ? NEW_REF(Map, self->map) : NULL;

    self->owns = 0;
    self->start = NULL;
    return map;
}

/* Ends a window's use of a map. Returns the system's code. */
static int drop_map(Map *map)
{
    int error;

    if (map == NULL)
        return 0;
    error = map_release(map);
    Py_DECREF(OBJECT(map));
    return error;
}

void set_map(Window *self, Map *map)
{
    Map *before = self->map;

    self->map = map;
    self->owns = 1;
    self->start = map->map.base + map->padding;
    Py_XDECREF(OBJECT(before));
}

/* Whether the system has sections and this file has none now. Called with the lock. */
static int has_no_section(const File *file)
{
    return file->state->call.system.has_sections && file->section.handle == -1;
}

static int needs_section(File *file)
{
    int needed;

    LOCK(file);
    needed = has_no_section(file);
    UNLOCK(file);
    return needed;
}

/* Makes a section again after a shrink, or for a file that was empty. */
static int remake_section(Window *self)
{
    File *file = self->file;
    mf_section section = {-1, 0};
    int error = 0;

    if (begin_change(self) < 0)
        return -1;
    if (needs_section(file)) {
        error = open_section(file, &section);
        if (error == 0) {
            LOCK(file);
            file->section = section;
            /* Bytes that others cut off are gone at once; refresh() shows the growth by others. */
            if (length_at(self, section.size) < self->length)
                self->length = length_at(self, section.size);
            UNLOCK(file);
        }
    }
    if (error != 0)
        raise_os_error(file, error, "map");
    end_change(self);
    return PyErr_Occurred() ? -1 : 0;
}

/* Maps the whole file. If lock() was called, it also locks the map in memory; the caller must have
 * the turn to change the size then (changing). Does nothing if another thread has changed the state
 * meanwhile. */
static int map_whole(Window *self, int changing)
{
    File *file = self->file;
    int error = guard(file->state, 1), mlocked = 0, placed = 0;
    Map *map = NULL;

    if (error == 0) {
        LOCK(file);
        if (self->open && self->start == NULL && self->length > 0 && !has_no_section(file) &&
            (changing || (file->changer == 0 && !file->mlocked))) {
            map = map_new(file, &file->section, self->offset, self->length, file->reserve, &error);
            mlocked = file->mlocked;
            if (map != NULL && !mlocked)
                set_map(self, map);
        }
        UNLOCK(file);
    }
    if (error != 0) {
        raise_os_error(file, error, "map");
        return -1;
    }
    if (map == NULL || !mlocked)
        return PyErr_Occurred() ? -1 : 0;
    if (is_mlocked(file)) {
        error = mlock_pages(map, map_length(map));
        if (error != 0)
            raise_lock_error(map, map_length(map), error);
    }
    LOCK(file);
    if (error == 0 && self->open) {
        set_map(self, map);
        placed = 1;
    }
    UNLOCK(file);
    if (placed)
        return 0;
    drop_map(map);
    if (error == 0)
        raise_closed(self);
    return -1;
}

int window_map(Window *self)
{
    File *file = self->file;
    int failed = 0;

    for (;;) {
        if (file == NULL || !self->open) {
            raise_closed(self);
            return -1;
        }
        if (self->start != NULL || self->length == 0)
            return 0;
        if (needs_section(file)) {
            failed = remake_section(self);
        } else if (is_changing(file) || file->mlocked) {
            failed = begin_change(self);
            if (failed == 0) {
                failed = map_whole(self, 1);
                end_change(self);
            }
        } else {
            failed = map_whole(self, 0);
        }
        if (failed || PyErr_Occurred())
            return -1;
    }
}

int acquire(Window *self)
{
    for (;;) {
        if (self->file != NULL) {
            LOCK(self->file);
            if (self->start != NULL || (self->open && self->length == 0))
                return 0;
            UNLOCK(self->file);
        }
        if (window_map(self) < 0)
            return -1;
    }
}

/* Begins a use of the map that a window has now; or returns NULL. *length is the window's. */
static Map *use_present(Window *self, int64_t *length)
{
    Map *map = NULL;

    LOCK(self->file);
    if (self->start != NULL) {
        map = NEW_REF(Map, self->map);
        tally(&map->users, 1);
        *length = self->length;
    }
    UNLOCK(self->file);
    return map;
}

Map *window_use(Window *self, int64_t *length)
{
    Map *map = NULL;

    *length = 0;
    while (map == NULL) {
        if (window_map(self) < 0)
            return NULL;
        map = use_present(self, length);
        if (map == NULL && self->open && self->length == 0)
            break;
    }
    return map;
}

int window_release(Window *self, Map *map)
{
    int error = map_release(map);

    if (error != 0)
        raise_os_error(self->file, error, "unmap");
    Py_DECREF(OBJECT(map));
    return error;
}

/* Opening and closing */

void raise_unsupported(PyObject *why)
{
    PyObject *io = why == NULL ? NULL : PyImport_ImportModule("io");
    PyObject *kind = io == NULL ? NULL : PyObject_GetAttrString(io, "UnsupportedOperation");

    if (kind != NULL)
        PyErr_SetObject(kind, why);
    Py_XDECREF(kind);
    Py_XDECREF(io);
    Py_XDECREF(why);
}

/* Opens a path or duplicates a handle, and gives a created file its size. Returns the system's
 * code, or -1 if an exception is set. After an error nothing is open, and a new file is removed. */
static int open_file(File *file, const mf_char *native, intptr_t handle, int access,
                     int disposition, int64_t size)
{
    const mf_table *call = &file->state->call;
    int error;

    if (native != NULL)
        CALL_AGAIN(file->state, error, call->open(native, access, disposition, &file->file));
    else
        CALL_AGAIN(file->state, error, call->duplicate(handle, access, disposition, &file->file));
    if (error != 0)
        return error;
    file->users = 1;
    error = size > 0 ? grow_file(file, 0, size, &file->section) : first_section(file);
    if (error != 0) {
        file_release(file); /* of two errors, the first is reported */
        if (disposition == MF_NEW && native != NULL)
            call->remove(native);
    }
    return error;
}

/* Creates a file that appears to others with its size, or not at all. */
static int create(File *file, const mf_char *native, int64_t size)
{
    const mf_table *call = &file->state->call;
    mf_char temporary[4096];
    int error;

    CALL_AGAIN(
        file->state, error,
        call->create(native, &file->file, temporary, sizeof temporary / sizeof temporary[0]));
    if (error == call->system.not_supported)
        return open_file(file, native, -1, MF_WRITE, MF_NEW, size);
    if (error != 0)
        return error;
    file->users = 1;
    error = grow_file(file, 0, size, &file->section);
    if (error == 0)
        WITHOUT_GIL(error = call->publish(&file->file, temporary, native));
    if (error == 0)
        return 0;
    file_release(file);
    if (temporary[0] != 0)
        call->remove(temporary);
    if (error == call->system.not_supported)
        return open_file(file, native, -1, MF_WRITE, MF_NEW, size);
    return error;
}

PyObject *window_open(PyObject *object, PyTypeObject *type, PyObject *const *args, Py_ssize_t n,
                      PyObject *names)
{
    Window *self = DATA(Window, object);
    State *state = PyType_GetModuleState(type);
    const mf_table *call = &state->call;
    PyObject *path, *name, *mode, *kept_mode = NULL, *keep = NULL;
    const mf_char *native = NULL;
    int64_t size = 0, reserve;
    intptr_t handle;
    int error, access, disposition, sparse;
    File *file;

    if (n != 9 || names != NULL) {
        PyErr_SetString(
            PyExc_TypeError,
            "_open takes path, handle, name, mode, access, disposition, size, sparse, reserve");
        return NULL;
    }
    path = args[0];
    handle = (intptr_t)PyLong_AsSsize_t(args[1]);
    name = args[2];
    mode = args[3];
    access = (int)PyLong_AsLong(args[4]);
    disposition = (int)PyLong_AsLong(args[5]);
    sparse = PyObject_IsTrue(args[7]);
    if (PyErr_Occurred() || (args[6] != Py_None && to_size(args[6], "size", &size) < 0) ||
        to_size(args[8], "reserve", &reserve) < 0)
        return NULL;
    if (reserve != 0 && !call->system.can_reserve) {
        raise_unsupported(PyUnicode_FromString(
            "this system cannot reserve address space: capabilities().reserve is false"));
        return NULL;
    }
    if (self->file != NULL) {
        PyErr_Format(PyExc_ValueError, "this object has opened %R already: make another MappedFile",
                     self->file->name);
        return NULL;
    }
    file = file_new(state, name);
    if (file == NULL)
        return NULL;
    kept_mode = plain(mode);
    if (kept_mode == NULL)
        goto failed;
    file->access = access;
    file->sparse = sparse;
    file->reserve = (uint64_t)reserve > PTRDIFF_MAX ? PTRDIFF_MAX : (size_t)reserve;
    if (path != Py_None) {
        native = native_path(path, &keep);
        if (native == NULL)
            goto failed;
    }
    if (native != NULL && disposition == MF_NEW && size > 0)
        error = create(file, native, size);
    else
        error = open_file(file, native, handle, access, disposition, size);
    if (error != 0) {
        raise_os_error(file, error, "open");
        goto failed;
    }
    LOCK(state);
    if (self->file == NULL) {
        self->mode = kept_mode;
        self->whole = 1;
        self->length = file->section.size;
        self->file = file;
        self->open = 1;
    }
    UNLOCK(state);
    if (self->file == file) {
        Py_XDECREF(keep);
        return Py_NewRef(Py_None);
    }
    PyErr_SetString(PyExc_ValueError, "another thread has opened this object");
    file_release(file);
    if (disposition == MF_NEW && path != Py_None)
        remove_path(state, path);
failed:
    Py_XDECREF(kept_mode);
    Py_XDECREF(keep);
    Py_DECREF(OBJECT(file));
    return NULL;
}

/* _descriptor(make): returns the descriptor of the file. On Windows the first call makes it with
 * make(handle, readonly). */
PyObject *window_descriptor(PyObject *object, PyObject *make)
{
    Window *self = DATA(Window, object);
    File *file = self->file;
    PyObject *made = NULL;
    int descriptor = -1, unused = -1;

    if (file == NULL || !self->open || !file_use(file))
        return raise_closed(self);
    if (file->descriptor == -1) {
        made = PyObject_CallFunction(make, "nO", (Py_ssize_t)file->file.handle,
                                     file->access == MF_WRITE ? Py_False : Py_True);
        if (made != NULL)
            descriptor = (int)PyLong_AsLong(made);
        Py_XDECREF(made);
    }
    LOCK(file);
    if (descriptor != -1 && file->descriptor == -1)
        file->descriptor = descriptor;
    else
        unused = descriptor; /* another thread has made one */
    descriptor = file->descriptor;
    UNLOCK(file);
    if (unused != -1)
        Py_XDECREF(PyObject_CallFunction(file->state->close_descriptor, "i", unused));
    if (file_release(file) != 0 && !PyErr_Occurred())
        return raise_closed(self);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(descriptor);
}

PyObject *window_view(PyObject *object, PyObject *const *args, Py_ssize_t n)
{
    Window *self = DATA(Window, object), *view;
    File *file = self->file;
    int64_t offset, wanted = -1, length = 0;
    int error, used;
    Map *map = NULL;

    if (n != 3 || !PyType_Check(args[0]) || file == NULL ||
        !PyType_IsSubtype((PyTypeObject *)args[0], file->state->window_type)) {
        if (file == NULL)
            return raise_closed(self);
        PyErr_SetString(PyExc_TypeError, "_view takes a type, an offset and a length");
        return NULL;
    }
    if (to_size(args[1], "offset", &offset) < 0 ||
        (args[2] != Py_None && to_size(args[2], "length", &wanted) < 0))
        return NULL;
    /* The allocation may run finalizers, so it comes before the state is read. */
    view = DATA(Window, PyType_GenericAlloc((PyTypeObject *)args[0], 0));
    if (view == NULL)
        return NULL;
    if (!self->open) {
        Py_DECREF(OBJECT(view));
        return raise_closed(self);
    }
    used = file_use(file);
    if (!used && self->open) {
        PyErr_Format(
            PyExc_ValueError,
            "the file %R is closed, and a view of a view needs it: make the view before closing "
            "it, or take a slice of data",
            file->name);
        goto end;
    }
    error = guard(file->state, 0);
    if (error != 0) {
        raise_os_error(file, error, "map");
        goto end;
    }
    for (;;) {
        length = wanted;
        LOCK(file);
        if (!self->open) {
            UNLOCK(file);
            raise_closed(self);
            goto end;
        }
        if (to_range(self, offset, self->length, &length) < 0) {
            UNLOCK(file);
            goto end;
        }
        if (length == 0 || !self->whole || !has_no_section(file))
            break;
        UNLOCK(file);
        if (remake_section(self) < 0)
            goto end;
    }
    if (length > 0)
        map = map_new(file, &file->section, self->offset + offset, length, 0, &error);
    if (map != NULL || length == 0) {
        view->file = NEW_REF(File, file);
        view->offset = self->offset + offset;
        view->length = length;
        view->open = 1;
        tally(&file->views, 1);
        if (map != NULL)
            set_map(view, map);
    }
    UNLOCK(file);
    if (!view->open)
        raise_os_error(file, error, "map");
end:
    error = used ? file_release(file) : 0;
    if (error != 0 && view->open)
        raise_os_error(file, error, "close");
    if (!PyErr_Occurred())
        return OBJECT(view);
    if (view->open)
        window_drop(view);
    Py_DECREF(OBJECT(view));
    return NULL;
}

/* How many views and buffers of a window are alive. */
typedef struct {
    uintptr_t views, buffers;
} Alive;

/* Counts them, with the lock. Returns whether there are any. */
static int is_alive(Window *self, Alive *out)
{
    Map *map = self->map;

    out->views = self->whole ? self->file->views : 0;
    out->buffers = self->whole ? file_buffers(self->file) : map != NULL ? map->buffers : 0;
    return out->views != 0 || out->buffers != 0;
}

/* Raises BufferError about them. Steals what, the refused operation; NULL if an exception is set.
 */
static PyObject *refuse(Window *self, const Alive *alive, PyObject *what)
{
    if (what != NULL) {
        raise_alive(self->file, alive->views, alive->buffers, what);
        Py_DECREF(what);
    }
    return NULL;
}

/* Closes an open window. If alive is not NULL, it closes only if no view or buffer is alive.
 * Returns the system's code. */
static int close_window(Window *self, Alive *alive)
{
    File *file = self->file;
    int error, closing = 0;
    Map *map;

    if (self->whole)
        end_turn_of_parent(self);
    LOCK(file);
    if (!self->open || (alive != NULL && is_alive(self, alive))) {
        UNLOCK(file);
        return 0;
    }
    self->open = 0;
    if (!self->whole)
        tally(&file->views, -1);
    map = take_map(self);
    UNLOCK(file);
    error = drop_map(map);
    if (self->whole)
        closing = file_release(file);
    return error != 0 ? error : closing;
}

PyObject *window_close(PyObject *object, PyObject *strict)
{
    Window *self = DATA(Window, object);
    int error, is_strict = PyObject_IsTrue(strict);
    Alive alive = {0, 0};

    if (is_strict < 0)
        return NULL;
    if (self->file == NULL || !self->open)
        return Py_NewRef(Py_None);
    error = close_window(self, is_strict ? &alive : NULL);
    if (alive.views != 0 || alive.buffers != 0)
        return refuse(self, &alive, PyUnicode_FromFormat("close %R", OBJECT(self)));
    if (error != 0)
        return raise_os_error(self->file, error, "close");
    return Py_NewRef(Py_None);
}

void window_drop(Window *self)
{
    int error = self->file == NULL ? 0 : close_window(self, NULL);

    if (error != 0)
        report(self->file, error, "close", (PyObject *)Py_TYPE(OBJECT(self)));
}

PyObject *window_abandon(PyObject *object, PyObject *created)
{
    Window *self = DATA(Window, object);

    if (self->file != NULL && self->open) {
        close_window(self, NULL); /* an error here is ignored: the first error is reported */
        if (PyObject_IsTrue(created) == 1)
            remove_path(self->file->state, self->file->name);
    }
    return Py_NewRef(Py_None);
}

/* Changes of the size */

/* Copies the bytes that differ. A private page without writes stays a page of the file. Does
 * nothing if a page of either map is gone. */
static void copy_changed(Map *from, int64_t first, Map *to, int64_t place, size_t count, char *room)
{
    const mf_table *call = &from->file->state->call;
    char *source = from->map.base + from->padding + first,
         *target = to->map.base + to->padding + place;
    int64_t at;

    if (call->copy(&from->map, room, 1, source, 1, count) != 0 ||
        is_lost(from, first, (int64_t)count, &at) ||
        call->copy(&to->map, room + count, 1, target, 1, count) != 0 ||
        is_lost(to, place, (int64_t)count, &at))
        return;
    if (memcmp(room, room + count, count) != 0)
        call->copy(&to->map, target, 1, room, 1, count);
}

/* Keeps the content of a private map right. If next is a new map, this copies the bytes that were
 * written to the present map. If the map stays, this copies the bytes that others appended to the
 * last page of the file, since the map may have its own copy of that page. Called with the lock. */
static int keep_private(Window *self, Map *present, Map *next, const mf_section *section)
{
    int64_t page = (int64_t)self->file->state->call.system.page_size, size = self->length, at,
            count;
    char *room = PyMem_Malloc(2 * (size_t)page);
    int error = 0;

    if (room == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (next == present) {
        count = (page - size % page) % page;
        if (count > section->size - size)
            count = section->size - size;
        if (count > 0) {
            Map *tail = map_new(self->file, section, size, count, 0, &error);

            if (tail != NULL) {
                copy_changed(tail, 0, present, size, (size_t)count, room);
                error = map_discard(tail);
            } else if (error == 0) {
                error = -1;
            }
        }
    } else {
        if (size > section->size)
            size = section->size;
        for (at = 0; at < size; at += page)
            copy_changed(present, at, next, at, (size_t)(size - at < page ? size - at : page),
                         room);
    }
    PyMem_Free(room);
    return error;
}

/* Locks a map in memory as it was before. Of two errors, the first is reported. */
static void mlock_again(Window *self, Map *map)
{
    PyObject *kind, *value, *trace;

    PyErr_Fetch(&kind, &value, &trace);
    mlock_pages(map, self->length < map_length(map) ? self->length : map_length(map));
    PyErr_Clear();
    PyErr_Restore(kind, value, trace);
}

/* Moves a lock on memory from the present map to the next. They may be the same map: then more of
 * it is locked. After an error the present map is locked as before. The caller uses both. */
static int mlock_next(Window *self, Map *present, Map *next, int64_t length)
{
    int error;

    if (present != NULL)
        munlock_pages(present, self->length); /* the limit may not allow two locked maps */
    error = mlock_pages(next, length);
    if (error != 0) {
        if (present != NULL)
            mlock_again(self, present);
        raise_lock_error(next, length, error);
    }
    return error == 0 ? 0 : -1;
}

int remap_window(Window *self, Map *map, int64_t length)
{
    if (map->users != 1 ||
        self->file->state->call.remap(&map->map, map->padding + (size_t)length) != 0)
        return 0;
    self->start = map->map.base + map->padding;
    return 1;
}

/* Returns the map for a new section: prepared if there is one, else the present map if it fits or
 * can grow, else a new map. Returns NULL if no map is needed, or on an error. Called with the lock.
 */
static Map *next_map(Window *self, Map *present, const mf_section *section, Map *prepared,
                     int *error)
{
    File *file = self->file;
    int64_t length = length_at(self, section->size);
    Map *next;

    *error = 0;
    if (length == 0 || (present == NULL && !is_mlocked(file)))
        return NULL;
    if (prepared != NULL)
        next = NEW_REF(Map, prepared);
    else if (present != NULL && present->map.lost_to == 0 &&
             (length <= map_room(present) || remap_window(self, present, length)))
        next = NEW_REF(Map, present);
    else
        next = map_new(file, section, self->offset, length, file->reserve, error);
    if (next == NULL) {
        *error = *error != 0 ? *error : -1;
        return NULL;
    }
    if (next == present || next == prepared)
        tally(&next->users, 1);
    if (length > map_length(next))
        *error = file->state->call.extend(&next->map, section, next->offset,
                                          next->padding + (size_t)length);
    return next;
}

/* Puts a section in place, and a map of its bytes if the file is mapped now. After an error nothing
 * has changed. Returns the system's code, or -1 if an exception is set. */
static int commit_change(Window *self, const mf_section *section, Map *prepared)
{
    File *file = self->file;
    Map *present, *next;
    mf_section old = {-1, 0};
    int error, closing, closed, unkept = 0, unmapping = 0;

    LOCK(file);
    present = self->owns ? NEW_REF(Map, self->map) : NULL;
    next = next_map(self, present, section, prepared, &error);
    if (present != NULL)
        tally(&present->users, 1); /* another thread may close the file meanwhile */
    UNLOCK(file);
    if (error == 0 && next != NULL && is_mlocked(file))
        error = mlock_next(self, present, next, length_at(self, section->size));
    LOCK(file);
    closed = !self->open;
    if (error == 0 && !closed && next != NULL && present != NULL && file->access == MF_COPY) {
        error = keep_private(self, present, next, section);
        unkept = error != 0;
    }
    if (error == 0 && !closed) {
        old = file->section;
        file->section = *section;
        self->length = length_at(self, section->size);
        if (next != NULL && next != present) {
            set_map(self, NEW_REF(Map, next));
            tally(&next->users, 1);
        } else if (next == NULL) {
            self->owns = 0;
            self->start = NULL;
        }
    }
    UNLOCK(file);
    if (unkept && next != present && is_mlocked(file)) {
        munlock_pages(next, map_length(next));
        mlock_again(self, present);
    }
    if (error == 0 && closed) {
        raise_closed(self);
        error = -1;
    }
    if (next != NULL) {
        closing = map_release(next); /* the use of this function */
        if (error == 0)
            error = closing;
    }
    if (present != NULL)
        unmapping = map_release(
            present); /* the same. If the file was closed, this was the last use */
    /* The change is done. Errors of releasing the old section and map are raised, and undo nothing.
     */
    if (error == 0) {
        error = file->state->call.close_section(&old);
        if (present != NULL && next != present) {
            closing = map_release(present);
            unmapping = unmapping != 0 ? unmapping : closing;
        }
        error = error != 0 ? error : unmapping;
        if (error != 0)
            raise_os_error(file, error, "unmap");
        error = 0;
    }
    Py_XDECREF(OBJECT(next));
    Py_XDECREF(OBJECT(present));
    return error;
}

static void close_section(File *file, mf_section *section)
{
    file->state->call.close_section(section); /* of two errors, the first is reported */
}

static int grow(Window *self, int64_t old, int64_t wanted)
{
    File *file = self->file;
    const mf_system *system = &file->state->call.system;
    mf_section section = {-1, 0};
    Map *prepared = NULL;
    int error = 0;

    /* Windows does not truncate a mapped file, so growth cannot be undone there. The address space
     * is reserved first. */
    if (system->has_sections && system->can_reserve) {
        LOCK(file);
        if (self->owns && length_at(self, wanted) > map_room(self->map) && !has_no_section(file) &&
            (uint64_t)wanted <= PTRDIFF_MAX) {
            size_t room = (size_t)wanted > file->reserve ? (size_t)wanted : file->reserve;

            prepared = map_new(file, &file->section, self->offset, self->length, room, &error);
            error = prepared == NULL && error == 0 ? -1 : error;
        }
        UNLOCK(file);
    }
    if (error == 0)
        error = grow_file(file, old, wanted, &section);
    if (error == 0) {
        error = commit_change(self, &section, prepared);
        if (error != 0 && (file->state->call.set_size(&file->file, old) == 0 || !self->open)) {
            close_section(file, &section);
        } else if (error != 0) {
            /* The growth could not be undone. The next use maps the whole file. */
            mf_section before;
            Map *present;

            LOCK(file);
            before = file->section;
            file->section = section;
            self->length = length_at(self, section.size);
            present = take_map(self);
            UNLOCK(file);
            drop_map(present);
            close_section(file, &before);
            error = PyErr_Occurred() ? -1 : 0;
        }
    }
    if (prepared != NULL) {
        map_release(prepared);
        Py_DECREF(OBJECT(prepared));
    }
    return error;
}

static int shrink(Window *self, int64_t wanted)
{
    File *file = self->file;
    int64_t before = self->length;
    mf_section section = {-1, 0};
    int error, closing, busy;
    Map *map = NULL;
    Alive alive;

    LOCK(file);
    if (!self->open) {
        UNLOCK(file);
        raise_closed(self);
        return -1;
    }
    busy = is_alive(self, &alive);
    if (!busy) {
        /* A call in progress uses the map of the whole file, or of a closed view. */
        map = self->owns ? self->map : NULL;
        busy = map != NULL ? map->users != 1 || file->file.map_count != 1
                           : file->file.map_count != 0;
    }
    if (!busy) {
        if (length_at(self, wanted) < before)
            self->length = length_at(self, wanted); /* no new view has bytes that will be cut off */
        map = take_map(self);
        section = file->section;
        file->section.handle = -1; /* Windows does not truncate a file that has a section */
    }
    UNLOCK(file);
    if (alive.views != 0 || alive.buffers != 0) {
        refuse(self, &alive,
               PyUnicode_FromFormat("shrink %R to %lld bytes", OBJECT(self), (long long)wanted));
        return -1;
    }
    if (busy) {
        PyErr_Format(PyExc_BufferError,
                     "cannot shrink %R to %lld bytes: a call in another thread is using its memory",
                     file->name, (long long)wanted);
        return -1;
    }
    error = drop_map(map);
    closing = file->state->call.close_section(&section);
    error = error != 0 ? error : closing;
    if (error == 0)
        CALL_AGAIN(file->state, error, file->state->call.set_size(&file->file, wanted));
    LOCK(file);
    if (error == 0)
        file->section.size = wanted;
    self->length = error == 0 ? length_at(self, wanted) : before;
    UNLOCK(file);
    return error;
}

/* Reads the current size of the file. */
static int size_now(File *file, int64_t *size)
{
    int error;

    CALL_AGAIN(file->state, error, file->state->call.get_size(&file->file, size));
    return error;
}

/* Gives the window the current size of the file. */
static int update_size(Window *self)
{
    mf_section section = {-1, 0};
    int error = open_section(self->file, &section);

    if (error == 0) {
        error = commit_change(self, &section, NULL);
        if (error != 0)
            close_section(self->file, &section);
    }
    return error;
}

/* Whether the file can grow without a look at its size and last page: it ends at a page boundary,
 * and the map covers all of it. */
static int can_just_grow(Window *self, int64_t wanted)
{
    const mf_system *system = &self->file->state->call.system;
    int64_t old = self->file->section.size;

    return !system->has_sections && self->owns && self->length == length_at(self, old) &&
           wanted > old && old % (int64_t)system->page_size == 0;
}

static int just_grow(Window *self, int64_t wanted)
{
    File *file = self->file;
    mf_section section = {-1, wanted};
    int64_t old = file->section.size;
    int error;

    CALL_AGAIN(file->state, error, file->state->call.set_size(&file->file, wanted));
    if (error == 0) {
        error = commit_change(self, &section, NULL);
        if (error != 0)
            file->state->call.set_size(&file->file, old);
    }
    return error;
}

PyObject *window_resize(PyObject *object, PyObject *number)
{
    Window *self = DATA(Window, object);
    int64_t wanted;

    if (is_no_file(self) || to_size(number, "size", &wanted) < 0)
        return NULL;
    if (self->open && self->file->access != MF_WRITE) {
        raise_unsupported(PyUnicode_FromFormat(
            "a file opened in mode %R cannot be resized: open it in mode 'r+', 'w+' or 'x+'",
            self->mode));
        return NULL;
    }
    if (self->open && self->file->file.device) {
        raise_unsupported(
            PyUnicode_FromFormat("%R is a disk, whose size cannot be changed", self->file->name));
        return NULL;
    }
    return window_set_size(self, wanted) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Maps the window after a change of size, or after a failed one. Of two errors, the first is
 * reported. */
static void map_again(Window *self)
{
    PyObject *kind, *value, *trace;

    PyErr_Fetch(&kind, &value, &trace);
    window_map(self);
    if (kind != NULL) {
        PyErr_Clear();
        PyErr_Restore(kind, value, trace);
    }
}

int window_set_size(Window *self, int64_t wanted)
{
    File *file = self->file;
    int64_t now;
    int error;

    if (begin_change(self) < 0)
        return -1;
    if (file->file.faults == 0 && self->mmap && can_just_grow(self, wanted)) {
        error = just_grow(self, wanted);
    } else if (file->file.faults != 0) {
        raise_faulted(self);
        error = -1;
    } else {
        error = size_now(file, &now);
        if (error == 0 && wanted < now && now > self->length && !self->mmap) {
            PyErr_Format(
                PyExc_ValueError,
                "cannot resize %R to %lld bytes: others have made it longer, from %lld bytes to "
                "%lld, and their bytes would be cut off: call refresh() first",
                file->name, (long long)wanted, (long long)self->length, (long long)now);
            error = -1;
        } else if (error == 0 && wanted < now) {
            error = shrink(self, wanted);
        } else if (error == 0 && wanted > now) {
            error = grow(self, now, wanted);
        } else if (error == 0 && length_at(self, wanted) != self->length) {
            error = update_size(self);
        }
    }
    if (error != 0)
        raise_os_error(file, error, "resize");
    end_change(self);
    if (error == 0 && !PyErr_Occurred() && is_mlocked(file))
        window_map(self); /* this also locks it */
    if (self->mmap && self->open)
        map_again(self);
    return PyErr_Occurred() ? -1 : 0;
}

static void set_reserve(File *file, size_t reserve)
{
    LOCK(file);
    file->reserve = reserve;
    UNLOCK(file);
}

/* Grows the file, and reserves address space behind its map, so that the next growth needs no new
 * map. */
static int grow_with_room(Window *self, int64_t old, int64_t wanted)
{
    File *file = self->file;
    size_t before = file->reserve;
    int error, fits;

    LOCK(file);
    fits = self->owns && wanted <= map_room(self->map);
    UNLOCK(file);
    if (!fits && file->state->call.system.can_reserve && wanted < PTRDIFF_MAX / 2 &&
        before < (size_t)wanted) {
        set_reserve(file, wanted < MUCH_ROOM / 2 ? MUCH_ROOM : 2 * (size_t)wanted);
        error = grow(self, old, wanted);
        if (error == 0)
            return 0;
        set_reserve(file, before); /* there may not be that much address space */
        if (PyErr_Occurred())
            return error;
    }
    return grow(self, old, wanted);
}

int window_grow_to(Window *self, int64_t size)
{
    File *file = self->file;
    int64_t now;
    int error;

    if (begin_change(self) < 0)
        return -1;
    if (file->file.faults != 0) {
        raise_faulted(self);
        error = -1;
    } else {
        error = size_now(file, &now);
        if (error == 0 && now < size)
            error = grow_with_room(self, now, size);
        else if (error == 0 && now != self->length)
            error = update_size(self);
    }
    if (error != 0)
        raise_os_error(file, error, "resize");
    end_change(self);
    return PyErr_Occurred() ? -1 : 0;
}

PyObject *window_refresh(PyObject *object, PyObject *unused)
{
    Window *self = DATA(Window, object);
    File *file = self->file;
    uintptr_t faults;
    int64_t now;
    int error, differs = 0;

    (void)unused;
    if (is_no_file(self) || begin_change(self) < 0)
        return NULL;
    faults = file->file.faults;
    mf_add(&file->file.faults, -(intptr_t)faults);
    error = size_now(file, &now);
    if (error == 0) {
        LOCK(file);
        differs = length_at(self, now) != self->length ||
                  (self->owns && self->map->map.lost_to != 0);
        UNLOCK(file);
        if (differs)
            error = update_size(self);
    }
    if (error != 0) {
        mf_add(&file->file.faults, (intptr_t)faults);
        raise_os_error(file, error, "refresh");
    }
    end_change(self);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(differs || faults != 0);
}

/* Locks the map that a window has, or unlocks it. Returns -1 when an exception is set. */
static int set_mlocked(Window *self, int mlocked)
{
    int64_t length;
    Map *map = use_present(self, &length);
    int error;

    if (map == NULL)
        return 0;
    error = mlocked ? mlock_pages(map, length) : munlock_pages(map, length);
    if (error != 0 && mlocked)
        raise_lock_error(map, length, error);
    else if (error != 0)
        raise_os_error(self->file, error, "unlock");
    window_release(self, map);
    return PyErr_Occurred() ? -1 : 0;
}

/* Locks or unlocks the memory of a window. A resize replaces the map of a whole file, so this takes
 * the turn. map_whole locks a map that is made later. */
static PyObject *change_mlock(Window *self, int mlocked)
{
    int failed;

    if (self->file == NULL || !self->open)
        return raise_closed(self);
    if (mlocked && window_map(self) < 0)
        return NULL;
    if (!self->whole)
        return set_mlocked(self, mlocked) < 0 ? NULL : Py_NewRef(Py_None);
    if (begin_change(self) < 0)
        return NULL;
    failed = set_mlocked(self, mlocked) < 0;
    self->file->mlocked = mlocked && !failed ? self->file->state->call.process() : 0;
    end_change(self);
    return failed || PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

PyObject *window_lock(PyObject *object, PyObject *unused)
{
    (void)unused;
    return change_mlock(DATA(Window, object), 1);
}

PyObject *window_unlock(PyObject *object, PyObject *unused)
{
    (void)unused;
    return change_mlock(DATA(Window, object), 0);
}
