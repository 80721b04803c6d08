/* TopicSender: the quick way of Producer.send, from a record's fields to a future in one call.
 *
 * It chooses the partition and appends to that partition's builder where nothing stands in the way.  Everything else
 * (no batch begun yet, a full batch, headers, a field that is not plain bytes, a partition that does not exist) is
 * answered with None, and the producer takes the slow way, under its lock.  No code of others runs in here, so the GIL
 * makes each call one step: a batch that another thread finishes has this record and its future, or neither. */
#include <stddef.h>

#include "../murmur2.h"
#include "objects.h"

typedef struct sender_object {
    PyObject_HEAD
    PyTypeObject *future_type;
    PyObject *builders;   /* tuple of BatchBuilder, by partition */
    Py_ssize_t next;      /* the partition whose turn it is */
    bool by_key;          /* a record with a key goes where its murmur2 hash says */
    bool rotates_unkeyed; /* others take turns; else they take the slow way */
    uint32_t forks;       /* of the process that made it: in another, the slow way says what is wrong */
} sender_object;

static int builders_check(PyObject *builders, PyTypeObject *builder_type) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(builders); i++) {
        if (Py_IS_TYPE(PyTuple_GET_ITEM(builders, i), builder_type)) continue;
        PyErr_SetString(PyExc_TypeError, "builders must be a tuple of BatchBuilder");
        return -1;
    }
    return 0;
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"future_type", "builders", "by_key", "rotates_unkeyed", NULL};
    PyObject *future_type, *builders;
    int by_key, rotates_unkeyed;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!O!pp:TopicSender", names, &PyType_Type, &future_type,
                                     &PyTuple_Type, &builders, &by_key, &rotates_unkeyed))
        return NULL;
    module_state *state = PyType_GetModuleState(type);
    if (!PyType_IsSubtype((PyTypeObject *)future_type, state->future_type))
        return PyErr_Format(PyExc_TypeError, "future_type must be a subclass of FutureBase, not %R", future_type);
    if (PyTuple_GET_SIZE(builders) == 0)
        return PyErr_Format(PyExc_ValueError, "builders must have an item for each partition");
    if (builders_check(builders, state->builder_type) < 0) return NULL;
    sender_object *sender = (sender_object *)type->tp_alloc(type, 0);
    if (sender == NULL) return NULL;
    sender->future_type = (PyTypeObject *)Py_NewRef(future_type);
    sender->builders = Py_NewRef(builders);
    sender->by_key = by_key != 0;
    sender->rotates_unkeyed = rotates_unkeyed != 0;
    sender->forks = forks_count();
    return (PyObject *)sender;
}

static void sender_dealloc(PyObject *self) {
    sender_object *sender = (sender_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(sender->future_type);
    Py_XDECREF(sender->builders);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The record's partition, or -1 for the slow way. */
static Py_ssize_t choose(const sender_object *sender, PyObject *key, PyObject *partition, bool *by_turn_out) {
    Py_ssize_t count = PyTuple_GET_SIZE(sender->builders);
    *by_turn_out = false;
    if (key == Py_None && !sender->rotates_unkeyed) return -1; /* a compacted topic may take no such record at all */
    if (partition != Py_None) {
        if (!PyLong_CheckExact(partition)) return -1;
        Py_ssize_t given = PyLong_AsSsize_t(partition);
        if (given == -1 && PyErr_Occurred()) PyErr_Clear(); /* the slow way says what is wrong with it */
        return given < count ? given : -1;
    }
    if (sender->by_key && key != Py_None) {
        if (!PyBytes_CheckExact(key)) return -1;
        if (count == 1) return 0;
        uint32_t hash = (uint32_t)murmur2((const uint8_t *)PyBytes_AS_STRING(key), (size_t)PyBytes_GET_SIZE(key));
        return (Py_ssize_t)(hash & 0x7fffffff) % count;
    }
    if (!sender->rotates_unkeyed) return -1;
    *by_turn_out = true;
    return sender->next;
}

PyDoc_STRVAR(send_doc, "send($self, value, key, headers, partition, timestamp, /)\n--\n\n"
                       "Append the record; return its future, or None where that needs the slow way.");

static PyObject *sender_send(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count != 5)
        return PyErr_Format(PyExc_TypeError, "send() takes value, key, headers, partition and timestamp");
    sender_object *sender = (sender_object *)self;
    if (args[2] != Py_None || sender->forks != forks_count()) Py_RETURN_NONE;
    bool by_turn;
    Py_ssize_t at = choose(sender, args[1], args[3], &by_turn);
    if (at < 0) Py_RETURN_NONE;
    builder_object *builder = (builder_object *)PyTuple_GET_ITEM(sender->builders, at);
    PyObject *future = builder_append_plain(builder, sender->future_type, args[0], args[1], args[4]);
    if (future == NULL) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    if (by_turn) sender->next = at + 1 < PyTuple_GET_SIZE(sender->builders) ? at + 1 : 0;
    return future;
}

PyDoc_STRVAR(turn_doc, "turn($self, count=1, /)\n--\n\nReturn the partition whose turn it is, and step on by count.");

static PyObject *sender_turn(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    sender_object *sender = (sender_object *)self;
    Py_ssize_t count = arg_count > 0 ? PyNumber_AsSsize_t(args[0], PyExc_OverflowError) : 1;
    if (count == -1 && PyErr_Occurred()) return NULL;
    Py_ssize_t turn = sender->next, partitions = PyTuple_GET_SIZE(sender->builders);
    if (count < 0) return PyErr_Format(PyExc_ValueError, "count must not be negative");
    sender->next = (turn + count % partitions) % partitions;
    return PyLong_FromSsize_t(turn);
}

static PyMethodDef sender_methods[] = {
    {"send", (PyCFunction)(void (*)(void))sender_send, METH_FASTCALL, send_doc},
    {"turn", (PyCFunction)(void (*)(void))sender_turn, METH_FASTCALL, turn_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(sender_doc, "TopicSender(future_type, builders, by_key, rotates_unkeyed)\n--\n\n"
                         "Sends records of one topic to its partitions' builders.");

static PyType_Slot sender_slots[] = {
    {Py_tp_new, (void *)sender_new},
    {Py_tp_dealloc, (void *)sender_dealloc},
    {Py_tp_methods, sender_methods},
    {Py_tp_doc, (void *)sender_doc},
    {0, NULL},
};

/* Final: its constructor finds the module by its own type. */
PyType_Spec sender_type_spec = {
    .name = "pylog._objects.TopicSender",
    .basicsize = sizeof(sender_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = sender_slots,
};
