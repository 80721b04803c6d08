/* ByteLock and OneThread: what a `with` takes as it begins and gives back as it ends.
 *
 * They are written in C for the sake of Ctrl-C.  Python handles signals as a function of its own begins, and after each
 * call in it: an __exit__ in Python may end there, with everything still taken, and whoever waits for that waits for
 * ever.  `with` calls these two methods, and the block, without such a moment in between. */
#include <stddef.h>

#include "objects.h"

/* Calls a function without arguments for what it raises; 0, or -1 with an exception. */
static int call_for_error(PyObject *function) {
    PyObject *result = PyObject_CallNoArgs(function);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* In a forked child, where nothing may be waited for: what `check` raises, or else a RuntimeError. */
static PyObject *refuse_in_child(PyObject *check) {
    if (call_for_error(check) == 0) PyErr_SetString(PyExc_RuntimeError, "it belongs to the parent process");
    return NULL;
}

/* ---- ByteLock */

typedef struct byte_lock_object {
    PyObject_HEAD
    PyObject *threads; /* a threading.Lock or RLock: threads that share an open file share its locks */
    PyObject *file;    /* .fd: the open file; -1 once it is closed */
    PyObject *unlock;  /* a C function and what it is called with after the open file */
    PyObject *begin, *end;
    Py_ssize_t depth;     /* written by the thread that has `threads` */
    unsigned long holder; /* that thread */
    uint32_t forks;
    int waits;
} byte_lock_object;

static PyObject *byte_lock_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"threads", "file", "unlock", "begin", "end", "waits", NULL};
    PyObject *threads, *file, *unlock, *begin, *end = Py_None;
    int waits = 1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OOO!O|O$p:ByteLock", names, &threads, &file, &PyTuple_Type,
                                     &unlock, &begin, &end, &waits))
        return NULL;
    if (PyTuple_GET_SIZE(unlock) != 3)
        return PyErr_Format(PyExc_ValueError, "unlock must have 3 items, not %zd", PyTuple_GET_SIZE(unlock));
    byte_lock_object *lock = (byte_lock_object *)type->tp_alloc(type, 0);
    if (lock == NULL) return NULL;
    lock->threads = Py_NewRef(threads);
    lock->file = Py_NewRef(file);
    lock->begin = Py_NewRef(begin);
    lock->end = Py_NewRef(end);
    lock->unlock = Py_NewRef(unlock);
    lock->forks = forks_count();
    lock->waits = waits;
    return (PyObject *)lock;
}

static int byte_lock_traverse(PyObject *self, visitproc visit, void *arg) {
    byte_lock_object *lock = (byte_lock_object *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(lock->threads);
    Py_VISIT(lock->file);
    Py_VISIT(lock->unlock);
    Py_VISIT(lock->begin);
    Py_VISIT(lock->end);
    return 0;
}

static int byte_lock_clear(PyObject *self) {
    byte_lock_object *lock = (byte_lock_object *)self;
    Py_CLEAR(lock->threads);
    Py_CLEAR(lock->file);
    Py_CLEAR(lock->unlock);
    Py_CLEAR(lock->begin);
    Py_CLEAR(lock->end);
    return 0;
}

static void byte_lock_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)byte_lock_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static int byte_lock_give_back(const byte_lock_object *lock) {
    PyObject *fd = PyObject_GetAttrString(lock->file, "fd");
    if (fd == NULL) return -1;
    long number = PyLong_AsLong(fd);
    /* In a forked child the file is closed, and its number may be another's. */
    if (number >= 0 && lock->forks == forks_count()) {
        PyObject *result =
            PyObject_CallFunctionObjArgs(PyTuple_GET_ITEM(lock->unlock, 0), fd, PyTuple_GET_ITEM(lock->unlock, 1),
                                         PyTuple_GET_ITEM(lock->unlock, 2), NULL);
        Py_XDECREF(result);
    }
    Py_DECREF(fd);
    return PyErr_Occurred() ? -1 : 0;
}

/* Out of the block, with what was raised, which stays; -1 if anything was. */
static int byte_lock_leave(byte_lock_object *lock, bool has_byte) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int failed = --lock->depth == 0 && has_byte ? byte_lock_give_back(lock) : 0;
    if (failed < 0 && type != NULL) PyErr_Clear();
    PyObject *later_type, *later_value, *later_traceback;
    PyErr_Fetch(&later_type, &later_value, &later_traceback);
    PyObject *released = PyObject_CallMethod(lock->threads, "release", NULL);
    if (released == NULL && (type != NULL || later_type != NULL)) PyErr_Clear();
    Py_XDECREF(released);
    if (type != NULL)
        PyErr_Restore(type, value, traceback);
    else if (later_type != NULL)
        PyErr_Restore(later_type, later_value, later_traceback);
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(byte_lock_enter_doc, "__enter__($self, /)\n--\n\n"
                                  "What begin() returns; None where this thread is in it already.");

static PyObject *byte_lock_enter(PyObject *self, PyObject *nothing) {
    (void)nothing;
    byte_lock_object *lock = (byte_lock_object *)self;
    if (lock->forks != forks_count()) return refuse_in_child(lock->begin);
    PyObject *taken = PyObject_CallMethod(lock->threads, "acquire", "O", lock->waits ? Py_True : Py_False);
    if (taken == NULL) return NULL;
    bool is_taken = taken == Py_True;
    Py_DECREF(taken);
    if (!is_taken) Py_RETURN_FALSE;
    lock->holder = PyThread_get_thread_ident();
    if (lock->depth++ > 0) Py_RETURN_NONE;
    PyObject *result = PyObject_CallNoArgs(lock->begin);
    bool is_free = lock->waits || result != Py_False;
    if ((result == NULL || !is_free) && byte_lock_leave(lock, is_free) < 0) Py_CLEAR(result);
    return result;
}

PyDoc_STRVAR(byte_lock_exit_doc, "__exit__($self, /, *error)\n--\n\nGives both locks back.");

static PyObject *byte_lock_exit(PyObject *self, PyObject *const *error, Py_ssize_t arg_count) {
    byte_lock_object *lock = (byte_lock_object *)self;
    if (lock->depth == 0 || lock->holder != PyThread_get_thread_ident()) Py_RETURN_NONE; /* it was not free */
    bool is_well = arg_count > 0 && error[0] == Py_None;
    PyObject *ended = is_well && lock->depth == 1 && lock->end != Py_None ? PyObject_CallNoArgs(lock->end) : NULL;
    bool has_byte = ended != Py_True;
    Py_XDECREF(ended);
    if (byte_lock_leave(lock, has_byte) < 0) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef byte_lock_methods[] = {
    {"__enter__", byte_lock_enter, METH_NOARGS, byte_lock_enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))byte_lock_exit, METH_FASTCALL, byte_lock_exit_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef byte_lock_members[] = {
    {"depth", T_PYSSIZET, offsetof(byte_lock_object, depth), READONLY, "How often its thread has entered it."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    byte_lock_doc,
    "ByteLock(threads, file, unlock, begin, end=None, *, waits=True)\n--\n\n"
    "The lock of a byte of a file, behind one (`threads`) of the threads that share the file.\n\n"
    "begin() takes the byte's lock, in whichever way, and may raise; end() is called where no exception\n"
    "leaves the block.  The locks are given back in any case: the byte's by unlock[0](file.fd, *unlock[1:]), a\n"
    "function written in C, unless file.fd is negative, or end() has said True: it has seen to that.  Where\n"
    "`threads` is reentrant, so is this: only the outermost block does all of that.\n"
    "waits=False: `with` gives False, and nothing is taken, where another thread is in it or begin() says\n"
    "False.  In a forked child nothing is taken: begin() is to raise.");

static PyType_Slot byte_lock_slots[] = {
    {Py_tp_new, (void *)byte_lock_new},           {Py_tp_dealloc, (void *)byte_lock_dealloc},
    {Py_tp_traverse, (void *)byte_lock_traverse}, {Py_tp_clear, (void *)byte_lock_clear},
    {Py_tp_methods, byte_lock_methods},           {Py_tp_members, byte_lock_members},
    {Py_tp_doc, (void *)byte_lock_doc},           {0, NULL},
};

PyType_Spec byte_lock_type_spec = {
    .name = "pylog._objects.ByteLock",
    .basicsize = sizeof(byte_lock_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = byte_lock_slots,
};

/* ---- OneThread */

typedef struct one_thread_object {
    PyObject_HEAD
    PyObject *check, *refuse;
    Py_ssize_t depth;
    unsigned long user;
    uint32_t forks;
} one_thread_object;

static PyObject *one_thread_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"check", "refuse", NULL};
    PyObject *check, *refuse;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:OneThread", names, &check, &refuse)) return NULL;
    one_thread_object *one = (one_thread_object *)type->tp_alloc(type, 0);
    if (one == NULL) return NULL;
    one->check = Py_NewRef(check);
    one->refuse = Py_NewRef(refuse);
    one->forks = forks_count();
    return (PyObject *)one;
}

static int one_thread_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((one_thread_object *)self)->check);
    Py_VISIT(((one_thread_object *)self)->refuse);
    return 0;
}

static int one_thread_clear(PyObject *self) {
    Py_CLEAR(((one_thread_object *)self)->check);
    Py_CLEAR(((one_thread_object *)self)->refuse);
    return 0;
}

static void one_thread_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)one_thread_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *one_thread_enter(PyObject *self, PyObject *nothing) {
    (void)nothing;
    one_thread_object *one = (one_thread_object *)self;
    if (one->forks != forks_count()) return refuse_in_child(one->check);
    unsigned long me = PyThread_get_thread_ident();
    if (one->depth > 0 && one->user != me) {
        if (call_for_error(one->refuse) == 0) PyErr_SetString(PyExc_SystemError, "refuse() must raise");
        return NULL;
    }
    one->user = me;
    one->depth++;
    if (call_for_error(one->check) < 0) {
        one->depth--;
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *one_thread_exit(PyObject *self, PyObject *const *error, Py_ssize_t arg_count) {
    (void)error;
    (void)arg_count;
    ((one_thread_object *)self)->depth--;
    Py_RETURN_NONE;
}

static PyMethodDef one_thread_methods[] = {
    {"__enter__", one_thread_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))one_thread_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef one_thread_members[] = {
    {"depth", T_PYSSIZET, offsetof(one_thread_object, depth), READONLY, "How often its thread has entered it."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(one_thread_doc,
             "OneThread(check, refuse)\n--\n\n"
             "For one thread at a time, and for the one that is in it again; nobody waits.\n\n"
             "`with` calls check() inside, and refuse() where another thread is in it; both raise to keep it out.");

static PyType_Slot one_thread_slots[] = {
    {Py_tp_new, (void *)one_thread_new},           {Py_tp_dealloc, (void *)one_thread_dealloc},
    {Py_tp_traverse, (void *)one_thread_traverse}, {Py_tp_clear, (void *)one_thread_clear},
    {Py_tp_methods, one_thread_methods},           {Py_tp_members, one_thread_members},
    {Py_tp_doc, (void *)one_thread_doc},           {0, NULL},
};

PyType_Spec one_thread_type_spec = {
    .name = "pylog._objects.OneThread",
    .basicsize = sizeof(one_thread_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = one_thread_slots,
};
