/* Handle: a log that threads are calling into, and which is freed once they are out of it.
 *
 * The GIL is the lock: each method is one step.  A log is taken once, by whoever closes it; from then on nobody enters,
 * and whoever took it is told when the last call has returned.
 *
 * wait_for_few is the way from another process's append to a consumer's poll, in one piece: what runs between the
 * wake-up and the records, or after them, would otherwise be frames of Python, which a processor that has slept finds
 * cold. */
#include <stddef.h>

#include "objects.h"

typedef int32_t (*await_function)(plog_log *log, uint32_t seen, int64_t timeout_us, int64_t offset, int64_t bytes_max,
                                  int32_t flags, plog_cursor *cursor, plog_small *small);

typedef struct handle_object {
    PyObject_HEAD
    plog_log *log; /* NULL: taken */
    Py_ssize_t calls;
    PyObject *left; /* to call when there are no calls any more; or NULL */
} handle_object;

static PyObject *handle_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"address", NULL};
    PyObject *address;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:Handle", names, &address)) return NULL;
    plog_log *log = PyLong_AsVoidPtr(address);
    if (log == NULL && PyErr_Occurred()) return NULL;
    handle_object *handle = (handle_object *)type->tp_alloc(type, 0);
    if (handle != NULL) handle->log = log;
    return (PyObject *)handle;
}

static void handle_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((handle_object *)self)->left);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(enter_doc, "enter($self, /)\n--\n\nWhether the log is there to be called; leave() must follow then.");

static PyObject *handle_enter(PyObject *self, PyObject *nothing) {
    (void)nothing;
    handle_object *handle = (handle_object *)self;
    if (handle->log == NULL) Py_RETURN_FALSE;
    handle->calls++;
    Py_RETURN_TRUE;
}

/* A call has returned; -1 with an exception. */
static int handle_left(handle_object *handle) {
    if (--handle->calls > 0 || handle->left == NULL) return 0;
    PyObject *left = handle->left;
    handle->left = NULL;
    PyObject *result = PyObject_CallNoArgs(left);
    Py_DECREF(left);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyDoc_STRVAR(leave_doc, "leave($self, /)\n--\n\nThe call has returned.");

static PyObject *handle_leave(PyObject *self, PyObject *nothing) {
    (void)nothing;
    if (handle_left((handle_object *)self) < 0) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    take_doc,
    "take($self, left=None, /)\n--\n\n"
    "Whether the caller is the first to take it, who frees it once calls is 0: if it is not yet, left() says so.");

static PyObject *handle_take(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count > 1) return PyErr_Format(PyExc_TypeError, "take() takes one argument, not %zd", arg_count);
    handle_object *handle = (handle_object *)self;
    bool is_first = handle->log != NULL;
    handle->log = NULL;
    if (is_first && handle->calls > 0 && arg_count == 1) handle->left = Py_NewRef(args[0]);
    return PyBool_FromLong(is_first);
}

static int object_set_number(PyObject *object, PyObject *name, int64_t number) {
    PyObject *value = PyLong_FromLongLong(number);
    int result = value == NULL ? -1 : PyObject_SetAttr(object, name, value);
    Py_XDECREF(value);
    return result;
}

PyDoc_STRVAR(wait_doc,
             "wait_for_few($self, function, seen, timeout_us, reader, bytes_max, flags, cursor, small, tp, limit,\n"
             "             key_deserializer, value_deserializer, /)\n--\n\n"
             "Wait in plog_log_await (whose address `function` is) without the GIL.\n\n"
             "{tp: list of Record}, or the list alone where it has more than `limit` of them, or None: another\n"
             "fetch will say why.  They begin at reader.position, which is moved behind them.  cursor and small are\n"
             "addresses.");

static PyObject *handle_wait(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    handle_object *handle = (handle_object *)self;
    if (arg_count != 12) return PyErr_Format(PyExc_TypeError, "wait_for_few() takes 12 arguments, not %zd", arg_count);
    module_state *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *reader = args[3], *position = PyObject_GetAttr(reader, state->position);
    if (position == NULL) return NULL;
    int64_t numbers[10];
    for (int i = 0; i < 10; i++) {
        if (i == 8) continue;
        numbers[i] = PyLong_AsLongLong(i == 3 ? position : args[i]);
        if (numbers[i] == -1 && PyErr_Occurred()) break;
    }
    Py_DECREF(position);
    if (PyErr_Occurred()) return NULL;
    PyObject *tp = args[8];
    if (!PyTuple_Check(tp) || PyTuple_GET_SIZE(tp) != 2) {
        PyErr_SetString(PyExc_TypeError, "tp must be a TopicPartition");
        return NULL;
    }
    await_function await = (await_function)(uintptr_t)numbers[0];
    plog_cursor *cursor = (plog_cursor *)(uintptr_t)numbers[6];
    plog_small *small = (plog_small *)(uintptr_t)numbers[7];
    plog_log *log = handle->log;
    if (log == NULL) Py_RETURN_NONE;
    int32_t found;
    handle->calls++;
    Py_BEGIN_ALLOW_THREADS;
    found = await(log, (uint32_t)numbers[1], numbers[2], numbers[3], numbers[4], (int32_t)numbers[5], cursor, small);
    Py_END_ALLOW_THREADS;
    if (handle_left(handle) < 0) return NULL;
    if (found == 0) Py_RETURN_NONE;
    PyObject *list = small_list(state, small, PyTuple_GET_ITEM(tp, 0), PyTuple_GET_ITEM(tp, 1), args[10], args[11]);
    if (list == NULL) return NULL;
    if (object_set_number(reader, state->position, small->next_offset) < 0) Py_CLEAR(list);
    if (list == NULL || found > numbers[9]) return list;
    PyObject *dict = PyDict_New();
    if (dict != NULL && PyDict_SetItem(dict, tp, list) < 0) Py_CLEAR(dict);
    Py_DECREF(list);
    return dict;
}

static PyMethodDef handle_methods[] = {
    {"enter", handle_enter, METH_NOARGS, enter_doc},
    {"leave", handle_leave, METH_NOARGS, leave_doc},
    {"take", (PyCFunction)(void (*)(void))handle_take, METH_FASTCALL, take_doc},
    {"wait_for_few", (PyCFunction)(void (*)(void))handle_wait, METH_FASTCALL, wait_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef handle_members[] = {
    {"calls", T_PYSSIZET, offsetof(handle_object, calls), READONLY, "Calls that have not returned."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(handle_doc, "Handle(address)\n--\n\nA log of the engine, by its address, and who is calling into it.");

static PyType_Slot handle_slots[] = {
    {Py_tp_new, (void *)handle_new}, {Py_tp_dealloc, (void *)handle_dealloc}, {Py_tp_methods, handle_methods},
    {Py_tp_members, handle_members}, {Py_tp_doc, (void *)handle_doc},         {0, NULL},
};

PyType_Spec handle_type_spec = {
    .name = "pylog._objects.Handle",
    .basicsize = sizeof(handle_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = handle_slots,
};
