/* A record's headers: sequences of (str, bytes-like or None) pairs to their encoded section, and back. */
#include "objects.h"

static int section_reserve(header_section *section, int64_t more_bytes) {
    int64_t size_bytes = section->field.length + more_bytes;
    if (size_bytes <= section->capacity_bytes) return 0;
    if (size_bytes > BATCH_BYTES_MAX) {
        PyErr_Format(PyExc_OverflowError, "headers have more than the %d bytes of a record batch", BATCH_BYTES_MAX);
        return -1;
    }
    int64_t capacity_bytes = section->capacity_bytes * 2 > size_bytes ? section->capacity_bytes * 2 : size_bytes;
    uint8_t *grown = PyMem_RawRealloc(section->allocated, (size_t)capacity_bytes);
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (section->allocated == NULL) memcpy(grown, section->local, (size_t)section->field.length);
    section->allocated = grown;
    section->field.data = grown;
    section->capacity_bytes = capacity_bytes;
    return 0;
}

/* field.data as what it is while the section is written: our own memory. */
static uint8_t *section_end(header_section *section) {
    return (section->allocated != NULL ? section->allocated : section->local) + section->field.length;
}

static int section_add(header_section *section, record_field field) {
    if (section_reserve(section, (int64_t)VARINT_BYTES_MAX + (field.length > 0 ? field.length : 0)) < 0) return -1;
    uint8_t *end = section_end(section);
    section->field.length += (int32_t)(record_field_store(end, field) - end);
    return 0;
}

/* A key as UTF-8; escaped bytes that decoding kept become what they were. */
static int section_add_key(header_section *section, PyObject *key) {
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(key, &size);
    PyObject *encoded = NULL;
    if (text == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) return -1;
        PyErr_Clear();
        encoded = PyUnicode_AsEncodedString(key, "utf-8", "surrogateescape");
        if (encoded == NULL) return -1;
        text = PyBytes_AS_STRING(encoded);
        size = PyBytes_GET_SIZE(encoded);
    }
    int status = -1;
    if (size > BATCH_BYTES_MAX)
        PyErr_Format(PyExc_OverflowError, "a header's key has %zd bytes", size);
    else
        status = section_add(section, (record_field){(const uint8_t *)text, (int32_t)size});
    Py_XDECREF(encoded);
    return status;
}

static int section_add_header(header_section *section, PyObject *pair, Py_ssize_t index) {
    if (!(PyTuple_Check(pair) || PyList_Check(pair)) || PySequence_Fast_GET_SIZE(pair) != 2) {
        PyErr_Format(PyExc_TypeError, "headers[%zd] must be a (str, bytes-like or None) pair, not %R", index, pair);
        return -1;
    }
    PyObject *key = PySequence_Fast_GET_ITEM(pair, 0), *value = PySequence_Fast_GET_ITEM(pair, 1);
    if (!PyUnicode_Check(key)) {
        PyErr_Format(PyExc_TypeError, "headers[%zd]: key must be str, not %.200s", index, Py_TYPE(key)->tp_name);
        return -1;
    }
    char what[64];
    (void)PyOS_snprintf(what, sizeof what, "headers[%zd]: value", index);
    int status = -1;
    field_view view;
    Py_INCREF(value); /* a list's item, while other code may run */
    if (section_add_key(section, key) == 0 && field_open(value, what, -1, &view) == 0) {
        status = section_add(section, view.field);
        field_close(&view);
    }
    Py_DECREF(value);
    return status;
}

int headers_open(PyObject *headers, header_section *out) {
    out->allocated = NULL;
    if (headers == Py_None) {
        out->field = RECORD_NO_HEADERS;
        return 0;
    }
    if (!PySequence_Check(headers) || PyUnicode_Check(headers) || PyObject_CheckBuffer(headers)) {
        PyErr_Format(PyExc_TypeError,
                     "headers must be None or a sequence of (str, bytes-like or None) pairs, not %.200s",
                     Py_TYPE(headers)->tp_name);
        return -1;
    }
    PyObject *pairs = PySequence_Tuple(headers); /* a list may change under our hands */
    if (pairs == NULL) return -1;
    int status = 0;
    out->field = (record_field){out->local, 0};
    out->capacity_bytes = sizeof out->local;
    if (PyTuple_GET_SIZE(pairs) > BATCH_BYTES_MAX / 2) {
        PyErr_Format(PyExc_OverflowError, "%zd headers do not fit a record batch", PyTuple_GET_SIZE(pairs));
        status = -1;
    } else {
        out->field.length = (int32_t)(store_varint(out->local, (int32_t)PyTuple_GET_SIZE(pairs)) - out->local);
    }
    for (Py_ssize_t i = 0; status == 0 && i < PyTuple_GET_SIZE(pairs); i++)
        status = section_add_header(out, PyTuple_GET_ITEM(pairs, i), i);
    Py_DECREF(pairs);
    if (status < 0) headers_close(out);
    return status;
}

void headers_close(header_section *section) {
    PyMem_RawFree(section->allocated);
}

PyObject *encode_headers(PyObject *module, PyObject *headers) {
    (void)module;
    header_section section;
    if (headers_open(headers, &section) < 0) return NULL;
    PyObject *encoded = PyBytes_FromStringAndSize((const char *)section.field.data, section.field.length);
    headers_close(&section);
    return encoded;
}

/* One header at *position, which record_headers_skip has found whole. */
static PyObject *header_decode(const uint8_t **position, const uint8_t *end) {
    int32_t key_bytes = 0, value_bytes = 0;
    const uint8_t *key = load_varint(*position, end, &key_bytes);
    assert(key != NULL && key_bytes >= 0 && key_bytes <= end - key);
    const uint8_t *value = load_varint(key + key_bytes, end, &value_bytes);
    assert(value != NULL && value_bytes >= -1 && value_bytes <= end - value);
    *position = value_bytes > 0 ? value + value_bytes : value;
    PyObject *header = PyTuple_New(2);
    if (header == NULL) return NULL;
    PyTuple_SET_ITEM(header, 0, PyUnicode_DecodeUTF8((const char *)key, key_bytes, "surrogateescape"));
    PyTuple_SET_ITEM(
        header, 1, value_bytes < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((const char *)value, value_bytes));
    if (PyTuple_GET_ITEM(header, 0) == NULL || PyTuple_GET_ITEM(header, 1) == NULL) Py_CLEAR(header);
    return header;
}

PyObject *headers_decode(module_state *state, const uint8_t *data, int64_t data_bytes, int64_t at, Py_ssize_t index) {
    if (at < 0 || at >= data_bytes)
        return PyErr_Format(PyExc_ValueError, "headers_at[%zd] is %lld, outside data of %lld bytes", index,
                            (long long)at, (long long)data_bytes);
    if (data[at] == 0) return Py_NewRef(state->no_headers);
    const uint8_t *position = data + at, *end = record_headers_skip(position, data + data_bytes);
    int32_t count = 0;
    if (end == NULL)
        return PyErr_Format(PyExc_ValueError, "headers_at[%zd]: no valid headers at %lld of data", index,
                            (long long)at);
    position = load_varint(position, end, &count);
    PyObject *headers = PyTuple_New(count);
    for (Py_ssize_t i = 0; headers != NULL && i < count; i++) {
        PyObject *header = header_decode(&position, end);
        if (header == NULL)
            Py_CLEAR(headers);
        else
            PyTuple_SET_ITEM(headers, i, header);
    }
    return headers;
}
