/* Record: one record read from a log, immutable.
 *
 * Not tracked by the garbage collector: with bytes for fields it can be in no cycle, and tracking would cost every
 * record 16 bytes and a share of each collection.  The price: a deserialized value that is made to refer to its own
 * record is never freed.  Subclasses with slots or a __dict__ of their own are tracked as usual. */
#include <stddef.h>

#include "objects.h"

enum { REPR_LENGTH_MAX = 64, REPR_LENGTH_KEPT = 48 };

static const char *const field_names[] = {
    "topic", "value", "key", "headers", "partition", "offset", "timestamp", "timestamp_type",
};
enum { FIELD_COUNT = sizeof field_names / sizeof field_names[0] };

record_object *record_alloc(module_state *state, PyTypeObject *type) {
    if (type == state->record_type) return PyObject_New(record_object, type);
    return (record_object *)type->tp_alloc(type, 0);
}

static PyObject *record_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"topic",     "value",          "key", "headers", "partition", "offset",
                            "timestamp", "timestamp_type", NULL};
    PyObject *topic = NULL, *value = Py_None, *key = Py_None, *headers = NULL;
    int partition = 0, timestamp_type = 0;
    long long offset = 0, timestamp = -1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|UOOOiLLi:Record", names, &topic, &value, &key, &headers,
                                     &partition, &offset, &timestamp, &timestamp_type))
        return NULL;
    if (timestamp_type != 0 && timestamp_type != 1)
        return PyErr_Format(PyExc_ValueError, "timestamp_type must be 0 (create) or 1 (append), not %d",
                            timestamp_type);
    topic = topic != NULL ? Py_NewRef(topic) : PyUnicode_New(0, 0);
    headers = headers != NULL ? Py_NewRef(headers) : PyTuple_New(0);
    record_object *record = topic != NULL && headers != NULL ? (record_object *)type->tp_alloc(type, 0) : NULL;
    if (record == NULL) {
        Py_XDECREF(topic);
        Py_XDECREF(headers);
        return NULL;
    }
    record->topic = topic;
    record->value = Py_NewRef(value);
    record->key = Py_NewRef(key);
    record->headers = headers;
    record->partition = partition;
    record->offset = offset;
    record->timestamp = timestamp;
    record->timestamp_type = (int8_t)timestamp_type;
    return (PyObject *)record;
}

static void record_dealloc(PyObject *self) {
    record_object *record = (record_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(record->topic);
    Py_XDECREF(record->value);
    Py_XDECREF(record->key);
    Py_XDECREF(record->headers);
    type->tp_free(self);
    Py_DECREF(type);
}

/* The constructor's arguments: everything that a Record is. */
static PyObject *record_fields(const record_object *record) {
    return Py_BuildValue("OOOOiLLi", record->topic, record->value, record->key, record->headers, (int)record->partition,
                         (long long)record->offset, (long long)record->timestamp, (int)record->timestamp_type);
}

static PyObject *record_richcompare(PyObject *self, PyObject *other, int op) {
    if ((op != Py_EQ && op != Py_NE) || Py_TYPE(self) != Py_TYPE(other)) Py_RETURN_NOTIMPLEMENTED;
    const record_object *a = (record_object *)self, *b = (record_object *)other;
    int is_equal = a->offset == b->offset && a->timestamp == b->timestamp && a->partition == b->partition &&
                   a->timestamp_type == b->timestamp_type;
    PyObject *const pairs[][2] = {
        {a->topic, b->topic}, {a->value, b->value}, {a->key, b->key}, {a->headers, b->headers}};
    if (Py_EnterRecursiveCall(" while comparing records")) return NULL;
    for (size_t i = 0; is_equal == 1 && i < sizeof pairs / sizeof pairs[0]; i++)
        is_equal = PyObject_RichCompareBool(pairs[i][0], pairs[i][1], Py_EQ);
    Py_LeaveRecursiveCall();
    if (is_equal < 0) return NULL;
    return PyBool_FromLong(is_equal == (op == Py_EQ));
}

static Py_hash_t record_hash(PyObject *self) {
    PyObject *fields = record_fields((record_object *)self);
    if (fields == NULL) return -1;
    Py_hash_t hash = -1;
    if (Py_EnterRecursiveCall(" while hashing a record") == 0) {
        hash = PyObject_Hash(fields);
        Py_LeaveRecursiveCall();
    }
    Py_DECREF(fields);
    return hash;
}

/* repr(object), but only the start and the length of long bytes and strings. */
static PyObject *short_repr(PyObject *object) {
    bool is_bytes = PyBytes_CheckExact(object);
    if (!is_bytes && !PyUnicode_CheckExact(object)) return PyObject_Repr(object);
    Py_ssize_t length = is_bytes ? PyBytes_GET_SIZE(object) : PyUnicode_GET_LENGTH(object);
    if (length <= REPR_LENGTH_MAX) return PyObject_Repr(object);
    PyObject *start = PySequence_GetSlice(object, 0, REPR_LENGTH_KEPT);
    if (start == NULL) return NULL;
    PyObject *text = PyUnicode_FromFormat("%R... (%zd %s)", start, length, is_bytes ? "bytes" : "characters");
    Py_DECREF(start);
    return text;
}

static PyObject *record_repr(PyObject *self) {
    const record_object *record = (record_object *)self;
    int is_inside = Py_ReprEnter(self);
    if (is_inside != 0) return is_inside > 0 ? PyUnicode_FromString("Record(...)") : NULL;
    PyObject *name = NULL, *key = NULL, *value = NULL, *text = NULL;
    if ((name = PyType_GetName(Py_TYPE(self))) != NULL && (key = short_repr(record->key)) != NULL &&
        (value = short_repr(record->value)) != NULL)
        text = PyUnicode_FromFormat("%U(topic=%R, partition=%d, offset=%lld, timestamp=%lld, timestamp_type=%d, "
                                    "key=%U, value=%U, headers=%R)",
                                    name, record->topic, (int)record->partition, (long long)record->offset,
                                    (long long)record->timestamp, (int)record->timestamp_type, key, value,
                                    record->headers);
    Py_XDECREF(name);
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_ReprLeave(self);
    return text;
}

PyDoc_STRVAR(reduce_doc, "For pickle and copy: the type, the constructor's arguments and a subclass's own state.");

static PyObject *record_reduce(PyObject *self, PyObject *unused) {
    (void)unused;
    PyObject *fields = record_fields((record_object *)self);
    if (fields == NULL) return NULL;
    /* A subclass that adds slots or a __dict__ is always one that the collector tracks. */
    if (!PyType_IS_GC(Py_TYPE(self))) return Py_BuildValue("ON", Py_TYPE(self), fields);
    PyObject *own_state = PyObject_CallMethod(self, "__getstate__", NULL);
    if (own_state == NULL) {
        Py_DECREF(fields);
        return NULL;
    }
    return Py_BuildValue("ONN", Py_TYPE(self), fields, own_state);
}

PyDoc_STRVAR(replace_doc, "replace($self, /, **changes)\n--\n\n"
                          "A copy with the named fields changed.  Attributes that a subclass adds are not copied.");

static PyObject *record_replace(PyObject *self, PyObject *args, PyObject *changes) {
    if (PyTuple_GET_SIZE(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "replace() takes keyword arguments only");
        return NULL;
    }
    PyObject *fields = record_fields((record_object *)self);
    if (fields == NULL) return NULL;
    Py_ssize_t position = 0;
    PyObject *name, *field, *copy = NULL;
    while (changes != NULL && PyDict_Next(changes, &position, &name, &field)) {
        Py_ssize_t i = 0;
        while (i < FIELD_COUNT && PyUnicode_CompareWithASCIIString(name, field_names[i]) != 0) i++;
        if (i == FIELD_COUNT) {
            PyErr_Format(PyExc_TypeError, "replace(): a record has no field %R", name);
            goto done;
        }
        PyObject *old = PyTuple_GET_ITEM(fields, i);
        PyTuple_SET_ITEM(fields, i, Py_NewRef(field));
        Py_DECREF(old);
    }
    copy = PyObject_CallObject((PyObject *)Py_TYPE(self), fields);
done:
    Py_DECREF(fields);
    return copy;
}

static PyMethodDef record_methods[] = {
    {"__reduce__", record_reduce, METH_NOARGS, reduce_doc},
    {"replace", (PyCFunction)(void (*)(void))record_replace, METH_VARARGS | METH_KEYWORDS, replace_doc},
    {"__replace__", (PyCFunction)(void (*)(void))record_replace, METH_VARARGS | METH_KEYWORDS, replace_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef record_members[] = {
    {"topic", T_OBJECT_EX, offsetof(record_object, topic), READONLY, "The topic's name."},
    {"partition", T_INT, offsetof(record_object, partition), READONLY, "The partition's number."},
    {"offset", T_LONGLONG, offsetof(record_object, offset), READONLY, "The record's number in its partition."},
    {"timestamp", T_LONGLONG, offsetof(record_object, timestamp), READONLY, "Milliseconds since 1970; -1: none."},
    {"timestamp_type", T_BYTE, offsetof(record_object, timestamp_type), READONLY,
     "0: the producer's time, 1: the time of the append."},
    {"key", T_OBJECT_EX, offsetof(record_object, key), READONLY, "The key: bytes, None, or what was deserialized."},
    {"value", T_OBJECT_EX, offsetof(record_object, value), READONLY,
     "The value: bytes, None, or what was deserialized."},
    {"headers", T_OBJECT_EX, offsetof(record_object, headers), READONLY,
     "The headers: a sequence of (str, bytes or None) tuples."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(record_doc, "Record(topic='', value=None, key=None, headers=(), partition=0, offset=0, timestamp=-1,\n"
                         "       timestamp_type=0)\n--\n\n"
                         "One record of a log: immutable, compared and hashed by all its fields.");

static PyType_Slot record_slots[] = {
    {Py_tp_new, (void *)record_new},
    {Py_tp_dealloc, (void *)record_dealloc},
    {Py_tp_repr, (void *)record_repr},
    {Py_tp_hash, (void *)record_hash},
    {Py_tp_richcompare, (void *)record_richcompare},
    {Py_tp_methods, record_methods},
    {Py_tp_members, record_members},
    {Py_tp_doc, (void *)record_doc},
    {0, NULL},
};

PyType_Spec record_type_spec = {
    .name = "pylog._objects.Record",
    .basicsize = sizeof(record_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = record_slots,
};

int record_type_finish(PyTypeObject *type) {
    PyObject *names = PyTuple_New(FIELD_COUNT);
    if (names == NULL) return -1;
    for (Py_ssize_t i = 0; i < FIELD_COUNT; i++) {
        PyObject *name = PyUnicode_InternFromString(field_names[i]);
        if (name == NULL) {
            Py_DECREF(names);
            return -1;
        }
        PyTuple_SET_ITEM(names, i, name);
    }
    int status = PyDict_SetItemString(type->tp_dict, "__match_args__", names);
    Py_DECREF(names);
    PyType_Modified(type);
    return status;
}
