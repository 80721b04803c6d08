/* The partition of a key. */
#include "../murmur2.h"
#include "objects.h"

PyObject *py_murmur2(PyObject *module, PyObject *key) {
    (void)module;
    if (key == Py_None) {
        PyErr_SetString(PyExc_TypeError, "key must be bytes-like, not None");
        return NULL;
    }
    field_view view;
    if (field_open(key, "key", -1, &view) < 0) return NULL;
    int32_t hash = murmur2(view.field.data, (size_t)view.field.length);
    field_close(&view);
    return PyLong_FromLong(hash);
}

static int partition_store(PyObject *key, Py_ssize_t index, int32_t partitions, uint8_t *out) {
    field_view view;
    Py_INCREF(key); /* exporting a buffer may run code that changes the list */
    int status = field_open(key, "key", index, &view);
    if (status == 0) {
        int32_t partition =
            view.field.length < 0 ? -1 : murmur2_partition(view.field.data, (size_t)view.field.length, partitions);
        memcpy(out, &partition, sizeof partition);
        field_close(&view);
    }
    Py_DECREF(key);
    return status;
}

PyObject *murmur2_partitions(PyObject *module, PyObject *const *args, Py_ssize_t arg_count) {
    (void)module;
    if (arg_count != 2)
        return PyErr_Format(PyExc_TypeError, "murmur2_partitions() takes keys and partitions, not %zd arguments",
                            arg_count);
    if (!is_list_or_tuple(args[0], "keys")) return NULL;
    Py_ssize_t partitions = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (partitions == -1 && PyErr_Occurred()) return NULL;
    if (partitions < 1 || partitions > INT32_MAX)
        return PyErr_Format(PyExc_ValueError, "partitions must be 1 to %d, not %zd", INT32_MAX, partitions);
    Py_ssize_t count = PySequence_Fast_GET_SIZE(args[0]);
    PyObject *result = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int32_t));
    if (result == NULL) return NULL;
    uint8_t *out = (uint8_t *)PyBytes_AS_STRING(result);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PySequence_Fast_GET_SIZE(args[0]) != count) {
            PyErr_SetString(PyExc_RuntimeError, "keys changed size while they were read");
            Py_CLEAR(result);
            break;
        }
        PyObject *key = PySequence_Fast_GET_ITEM(args[0], i);
        if (partition_store(key, i, (int32_t)partitions, out + i * (Py_ssize_t)sizeof(int32_t)) < 0) {
            Py_CLEAR(result);
            break;
        }
    }
    return result;
}
