/* FutureBase: which record of which batch; what Python's Future is made of, so that making one costs little.
 *
 * Not tracked by the garbage collector, as it is made once a record: whatever a batch keeps that refers to its futures
 * (callbacks) must be dropped when the batch is done. */
#include <stddef.h>

#include "objects.h"

future_object *future_make(PyTypeObject *type, PyObject *batch, Py_ssize_t index, int64_t timestamp) {
    bool is_plain = !PyType_IS_GC(type) && type->tp_basicsize == sizeof(future_object);
    future_object *future = is_plain ? PyObject_New(future_object, type) : (future_object *)type->tp_alloc(type, 0);
    if (future == NULL) return NULL;
    future->batch = Py_XNewRef(batch);
    future->index = index;
    future->timestamp = timestamp;
    return future;
}

static PyObject *future_from_args(PyTypeObject *type, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count != 2 && arg_count != 3)
        return PyErr_Format(PyExc_TypeError, "%.200s() takes a batch, an index and a timestamp, not %zd arguments",
                            type->tp_name, arg_count);
    Py_ssize_t index = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (index == -1 && PyErr_Occurred()) return NULL;
    long long timestamp = arg_count == 3 ? PyLong_AsLongLong(args[2]) : -1;
    if (timestamp == -1 && PyErr_Occurred()) return NULL;
    return (PyObject *)future_make(type, args[0], index, timestamp);
}

static PyObject *future_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    if (keywords != NULL && PyDict_GET_SIZE(keywords) != 0)
        return PyErr_Format(PyExc_TypeError, "%.200s() takes no keyword arguments", type->tp_name);
    return future_from_args(type, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args));
}

static void future_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((future_object *)self)->batch);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(make_doc, "make($type, batch, index, timestamp=-1, /)\n--\n\n"
                       "An instance without a call of __new__ and __init__: the fastest way to one.");

static PyObject *future_make_method(PyObject *type, PyObject *const *args, Py_ssize_t arg_count) {
    return future_from_args((PyTypeObject *)type, args, arg_count);
}

static PyMethodDef future_methods[] = {
    {"make", (PyCFunction)(void (*)(void))future_make_method, METH_FASTCALL | METH_CLASS, make_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef future_members[] = {
    {"batch", T_OBJECT_EX, offsetof(future_object, batch), READONLY, "What the record was sent in."},
    {"index", T_PYSSIZET, offsetof(future_object, index), READONLY, "The record's place in the batch."},
    {"timestamp", T_LONGLONG, offsetof(future_object, timestamp), READONLY, "The record's timestamp in ms; -1: none."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(future_doc, "FutureBase(batch, index, timestamp=-1, /)\n--\n\n"
                         "Which record of which batch: the base of Future.  Give subclasses __slots__ = ().");

static PyType_Slot future_slots[] = {
    {Py_tp_new, (void *)future_new}, {Py_tp_dealloc, (void *)future_dealloc}, {Py_tp_methods, future_methods},
    {Py_tp_members, future_members}, {Py_tp_doc, (void *)future_doc},         {0, NULL},
};

PyType_Spec future_type_spec = {
    .name = "pylog._objects.FutureBase",
    .basicsize = sizeof(future_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};
