/* Handle: a log that threads are calling into, and which is freed once they are out of it.
 *
 * The GIL is the lock: each method is one step.  A log is taken once, by whoever closes it; from then on nobody enters,
 * and whoever took it is told when the last call has returned.
 *
 * append, flush and wait_for_few are calls into the engine in one piece, without the GIL.  They are what a record that
 * is waited for costs: a thread that has slept, for the disk or for another process, finds the processor's caches cold,
 * and each frame of Python on the way is paid several times over. */
#include <stddef.h>

#include "objects.h"

typedef plog_status (*append_function)(plog_log *log, uint8_t *batch, int64_t batch_bytes, plog_appended *out,
                                       plog_error *error);
typedef plog_status (*flush_function)(plog_log *log, int64_t *flushed_offset_out, plog_error *error);
typedef int32_t (*await_function)(plog_log *log, uint32_t seen, int64_t timeout_us, int64_t offset, int64_t bytes_max,
                                  int32_t flags, plog_cursor *cursor, plog_small *small);

typedef struct handle_object {
    PyObject_HEAD
    plog_log *log; /* NULL: taken */
    Py_ssize_t calls;
    PyObject *left;   /* to call when there are no calls any more; or NULL */
    PyObject *failed; /* raises what the bytes of a plog_error say */
    append_function append, append_ahead;
    flush_function flush;
    await_function await;
    uint32_t forks; /* of the process that made it: in another, the log is not to be called */
} handle_object;

static PyObject *handle_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"address", "engine", "failed", NULL};
    unsigned long long address, append, append_ahead, flush, await;
    PyObject *failed;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "K(KKKK)O:Handle", names, &address, &append, &append_ahead, &flush,
                                     &await, &failed))
        return NULL;
    handle_object *handle = (handle_object *)type->tp_alloc(type, 0);
    if (handle == NULL) return NULL;
    handle->log = (plog_log *)(uintptr_t)address;
    handle->append = (append_function)(uintptr_t)append;
    handle->append_ahead = (append_function)(uintptr_t)append_ahead;
    handle->flush = (flush_function)(uintptr_t)flush;
    handle->await = (await_function)(uintptr_t)await;
    handle->failed = Py_NewRef(failed);
    handle->forks = forks_count();
    return (PyObject *)handle;
}

static void handle_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((handle_object *)self)->left);
    Py_XDECREF(((handle_object *)self)->failed);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Not taken, and of this process. */
static bool handle_may_be_called(const handle_object *handle) {
    return handle->log != NULL && handle->forks == forks_count();
}

PyDoc_STRVAR(enter_doc, "__enter__($self, /)\n--\n\n"
                        "Whether the log is there to be called, and not the parent's; it stays so until __exit__.");

/* `with` calls these two without a moment between them and its block in which a signal could be handled. */

static PyObject *handle_enter(PyObject *self, PyObject *nothing) {
    (void)nothing;
    handle_object *handle = (handle_object *)self;
    handle->calls++;
    return PyBool_FromLong(handle_may_be_called(handle));
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

PyDoc_STRVAR(exit_doc, "__exit__($self, /, *error)\n--\n\nThe call has returned.");

static PyObject *handle_exit(PyObject *self, PyObject *const *error, Py_ssize_t arg_count) {
    (void)error;
    (void)arg_count;
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

/* The log, entered; NULL without an exception where that is refused. */
static plog_log *handle_begin(handle_object *handle) {
    if (!handle_may_be_called(handle)) return NULL;
    handle->calls++;
    return handle->log;
}

/* After a call that returned `status`: 0, 1 if it is to be made again, or -1 with an exception. */
static int handle_judge(const handle_object *handle, plog_status status, const plog_error *error) {
    if (status == PLOG_OK) return 0;
    if (status == PLOG_BUSY) return PyErr_CheckSignals() < 0 ? -1 : 1;
    PyObject *result = PyObject_CallFunction(handle->failed, "y#", (const char *)error, (Py_ssize_t)sizeof *error);
    if (result != NULL) PyErr_SetString(PyExc_SystemError, "failed() must raise");
    Py_XDECREF(result);
    return -1;
}

/* The call is over, well or with an exception, which stays; -1 if there is one. */
static int handle_end(handle_object *handle, int result) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (handle_left(handle) < 0 && result < 0) PyErr_Clear();
    if (result < 0) PyErr_Restore(type, value, traceback);
    return PyErr_Occurred() ? -1 : 0;
}

PyDoc_STRVAR(
    append_doc,
    "append($self, batch, ahead, place, /)\n--\n\n"
    "Append a finished batch, into which its offset, epoch and CRC are written; ahead: a flush follows at once.\n\n"
    "(base offset, timestamp or -1, whether it rolled), or None: the log was taken, or is the parent's.\n"
    "The first two are also set in place, unless that is None: a signal may take the answer away.");

static int place_tell(PyObject *place, const plog_appended *appended) {
    PyObject *timestamp = PyLong_FromLongLong(appended->timestamp);
    PyObject *base_offset = PyLong_FromLongLong(appended->base_offset);
    int failed = timestamp == NULL || base_offset == NULL ||
                 PyObject_SetAttrString(place, "timestamp", timestamp) < 0 ||
                 PyObject_SetAttrString(place, "base_offset", base_offset) < 0;
    Py_XDECREF(timestamp);
    Py_XDECREF(base_offset);
    return failed ? -1 : 0;
}

static PyObject *handle_append(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count != 3) return PyErr_Format(PyExc_TypeError, "append() takes batch, ahead and place");
    handle_object *handle = (handle_object *)self;
    int is_ahead = PyObject_IsTrue(args[1]);
    Py_buffer batch;
    if (is_ahead < 0 || PyObject_GetBuffer(args[0], &batch, PyBUF_WRITABLE) < 0) return NULL;
    append_function append = is_ahead ? handle->append_ahead : handle->append;
    plog_log *log = handle_begin(handle);
    plog_appended appended = {.rolled = 0};
    plog_error error;
    int result = 1;
    while (log != NULL && result > 0) {
        plog_status status;
        Py_BEGIN_ALLOW_THREADS;
        status = append(log, batch.buf, batch.len, &appended, &error);
        Py_END_ALLOW_THREADS;
        result = handle_judge(handle, status, &error);
    }
    PyBuffer_Release(&batch);
    if (log == NULL) Py_RETURN_NONE;
    if (handle_end(handle, result) < 0) return NULL;
    if (args[2] != Py_None && place_tell(args[2], &appended) < 0) return NULL;
    return Py_BuildValue("(LLO)", (long long)appended.base_offset, (long long)appended.timestamp,
                         appended.rolled ? Py_True : Py_False);
}

PyDoc_STRVAR(flush_doc,
             "flush($self, /)\n--\n\n"
             "Return, once all that was appended is on the disk, the offset up to which it is; None as append.");

static PyObject *handle_flush(PyObject *self, PyObject *nothing) {
    (void)nothing;
    handle_object *handle = (handle_object *)self;
    plog_log *log = handle_begin(handle);
    if (log == NULL) Py_RETURN_NONE;
    int64_t flushed_offset = -1;
    plog_error error;
    int result = 1;
    while (result > 0) {
        plog_status status;
        Py_BEGIN_ALLOW_THREADS;
        status = handle->flush(log, &flushed_offset, &error);
        Py_END_ALLOW_THREADS;
        result = handle_judge(handle, status, &error);
    }
    return handle_end(handle, result) < 0 ? NULL : PyLong_FromLongLong(flushed_offset);
}

static int object_set_number(PyObject *object, PyObject *name, int64_t number) {
    PyObject *value = PyLong_FromLongLong(number);
    int result = value == NULL ? -1 : PyObject_SetAttr(object, name, value);
    Py_XDECREF(value);
    return result;
}

PyDoc_STRVAR(
    wait_doc,
    "wait_for_few($self, seen, timeout_us, reader, bytes_max, flags, cursor, small, tp, limit, key_deserializer,\n"
    "             value_deserializer, /)\n--\n\n"
    "Wait in plog_log_await without the GIL.\n\n"
    "{tp: list of Record}, or None: there are none, or more than `limit`, or another fetch will say why.\n"
    "They begin at reader.position, which is moved behind them.  cursor and small are addresses.");

static PyObject *handle_wait(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    handle_object *handle = (handle_object *)self;
    if (arg_count != 11) return PyErr_Format(PyExc_TypeError, "wait_for_few() takes 11 arguments, not %zd", arg_count);
    module_state *state = PyType_GetModuleState(Py_TYPE(self));
    PyObject *reader = args[2], *position = PyObject_GetAttr(reader, state->position);
    if (position == NULL) return NULL;
    int64_t numbers[9];
    for (int i = 0; i < 9; i++) {
        if (i == 7) continue;
        numbers[i] = PyLong_AsLongLong(i == 2 ? position : args[i]);
        if (numbers[i] == -1 && PyErr_Occurred()) break;
    }
    Py_DECREF(position);
    if (PyErr_Occurred()) return NULL;
    PyObject *tp = args[7];
    if (!PyTuple_Check(tp) || PyTuple_GET_SIZE(tp) != 2) {
        PyErr_SetString(PyExc_TypeError, "tp must be a TopicPartition");
        return NULL;
    }
    plog_cursor *cursor = (plog_cursor *)(uintptr_t)numbers[5];
    plog_small *small = (plog_small *)(uintptr_t)numbers[6];
    plog_log *log = handle_begin(handle);
    if (log == NULL) Py_RETURN_NONE;
    int32_t found;
    Py_BEGIN_ALLOW_THREADS;
    found = handle->await(log, (uint32_t)numbers[0], numbers[1], numbers[2], numbers[3], (int32_t)numbers[4], cursor,
                          small);
    Py_END_ALLOW_THREADS;
    if (handle_left(handle) < 0) return NULL;
    if (found == 0 || found > numbers[8]) Py_RETURN_NONE;
    PyObject *list = small_list(state, small, PyTuple_GET_ITEM(tp, 0), PyTuple_GET_ITEM(tp, 1), args[9], args[10]);
    if (list == NULL) return NULL;
    PyObject *dict = PyDict_New();
    if (dict != NULL &&
        (PyDict_SetItem(dict, tp, list) < 0 || object_set_number(reader, state->position, small->next_offset) < 0))
        Py_CLEAR(dict);
    Py_DECREF(list);
    return dict;
}

static PyMethodDef handle_methods[] = {
    {"__enter__", handle_enter, METH_NOARGS, enter_doc},
    {"__exit__", (PyCFunction)(void (*)(void))handle_exit, METH_FASTCALL, exit_doc},
    {"take", (PyCFunction)(void (*)(void))handle_take, METH_FASTCALL, take_doc},
    {"append", (PyCFunction)(void (*)(void))handle_append, METH_FASTCALL, append_doc},
    {"flush", handle_flush, METH_NOARGS, flush_doc},
    {"wait_for_few", (PyCFunction)(void (*)(void))handle_wait, METH_FASTCALL, wait_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef handle_members[] = {
    {"calls", T_PYSSIZET, offsetof(handle_object, calls), READONLY, "Calls that have not returned."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(handle_doc, "Handle(address, engine, failed)\n--\n\n"
                         "A log of the engine, by its address, and who is calling into it.\n\n"
                         "engine: the addresses of plog_log_append, plog_log_append_ahead, plog_log_flush and\n"
                         "plog_log_await; failed(bytes of a plog_error) raises what they say.");

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
