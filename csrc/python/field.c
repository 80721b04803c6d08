/* Keys, values and timestamps as they come from Python. */
#include <time.h>

#include "objects.h"

/* "value", or "values[3]" where it is one of many; a new str, or NULL with an exception. */
static PyObject *field_name(const char *what, Py_ssize_t index) {
    if (index < 0) return PyUnicode_FromString(what);
    return PyUnicode_FromFormat("%ss[%zd]", what, index);
}

static void field_type_error(PyObject *object, const char *what, Py_ssize_t index) {
    PyObject *name = field_name(what, index);
    if (name == NULL) return;
    if (strcmp(what, "value") == 0 || strcmp(what, "key") == 0)
        PyErr_Format(PyExc_TypeError, "%U must be bytes-like or None, not %.200s; set %s_serializer", name,
                     Py_TYPE(object)->tp_name, what);
    else
        PyErr_Format(PyExc_TypeError, "%U must be bytes-like or None, not %.200s", name, Py_TYPE(object)->tp_name);
    Py_DECREF(name);
}

static void field_size_error(Py_ssize_t bytes, const char *what, Py_ssize_t index) {
    PyObject *name = field_name(what, index);
    if (name == NULL) return;
    PyErr_Format(PyExc_OverflowError, "%U has %zd bytes, a record batch at most %d", name, bytes, BATCH_BYTES_MAX);
    Py_DECREF(name);
}

int field_open_buffer(PyObject *object, const char *what, Py_ssize_t index, field_view *out) {
    if (!PyObject_CheckBuffer(object)) {
        field_type_error(object, what, index);
        return -1;
    }
    if (PyObject_GetBuffer(object, &out->buffer, PyBUF_SIMPLE) < 0) return -1;
    if (out->buffer.len > BATCH_BYTES_MAX) {
        field_size_error(out->buffer.len, what, index);
        PyBuffer_Release(&out->buffer);
        return -1;
    }
    out->field = (record_field){out->buffer.buf, (int32_t)out->buffer.len};
    out->is_exported = true;
    return 0;
}

int64_t timestamp_now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void timestamp_error(PyObject *error, const char *problem, PyObject *culprit, Py_ssize_t index) {
    PyObject *name = field_name("timestamp", index);
    if (name == NULL) return;
    PyErr_Format(error, "%U must be %s, not %R", name, problem, culprit);
    Py_DECREF(name);
}

int timestamp_load(PyObject *object, Py_ssize_t index, int64_t *out) {
    if (!PyIndex_Check(object)) {
        timestamp_error(PyExc_TypeError, "an int of milliseconds", (PyObject *)Py_TYPE(object), index);
        return -1;
    }
    _Static_assert(sizeof(long) == sizeof(int64_t), "PyLong_AsLongLong would do, but takes 15 ns more");
    long timestamp = PyLong_AsLong(object);
    if (timestamp == -1 && PyErr_Occurred()) return -1;
    if (timestamp < 0) {
        timestamp_error(PyExc_ValueError, "0 or more milliseconds since 1970", object, index);
        return -1;
    }
    *out = timestamp;
    return 0;
}

bool is_list_or_tuple(PyObject *object, const char *what) {
    if (PyList_Check(object) || PyTuple_Check(object)) return true;
    PyErr_Format(PyExc_TypeError, "%s must be a list or tuple, not %.200s", what, Py_TYPE(object)->tp_name);
    return false;
}

PyObject *check_values(PyObject *module, PyObject *const *args, Py_ssize_t arg_count) {
    (void)module;
    if (arg_count != 2)
        return PyErr_Format(PyExc_TypeError, "check_values() takes values and what, not %zd arguments", arg_count);
    const char *what = PyUnicode_Check(args[1]) ? PyUnicode_AsUTF8(args[1]) : NULL;
    if (what == NULL) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "what must be a str");
        return NULL;
    }
    if (!is_list_or_tuple(args[0], "values")) return NULL;
    int32_t largest_bytes = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(args[0]); i++) {
        PyObject *object = PySequence_Fast_GET_ITEM(args[0], i);
        record_field field;
        if (field_is_plain(object, &field)) {
            if (field.length > largest_bytes) largest_bytes = field.length;
            continue;
        }
        field_view view;
        Py_INCREF(object); /* exporting a buffer may run code that changes the list */
        int status = field_open(object, what, i, &view);
        if (status == 0) {
            if (view.field.length > largest_bytes) largest_bytes = view.field.length;
            field_close(&view);
        }
        Py_DECREF(object);
        if (status < 0) return NULL;
    }
    return PyLong_FromLong(largest_bytes);
}
