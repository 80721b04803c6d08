/* Columns of decoded records to lists of Python objects.
 *
 * Positions and lengths come from outside and are checked against `data` one by one, each read once: a deserializer
 * may change a column while its own records are made.  Lists under construction are hidden from the garbage
 * collector, so that no code finds one with holes. */
#include "objects.h"

/* A contiguous buffer of int32 or int64 items; `items` need not be aligned. */
typedef struct column {
    Py_buffer buffer;
    const uint8_t *items;
    Py_ssize_t count;
} column;

static inline int64_t column_int64(const column *c, Py_ssize_t i) {
    int64_t x;
    memcpy(&x, c->items + i * (Py_ssize_t)sizeof x, sizeof x);
    return x;
}

static inline int32_t column_int32(const column *c, Py_ssize_t i) {
    int32_t x;
    memcpy(&x, c->items + i * (Py_ssize_t)sizeof x, sizeof x);
    return x;
}

static bool is_native_int(const char *format) {
    if (format == NULL) return false;
    if (*format == '@' || *format == '=' || *format == (PY_LITTLE_ENDIAN ? '<' : '>')) format++;
    return *format != '\0' && strchr("ilqn", *format) != NULL && format[1] == '\0';
}

/* A zeroed column is closed: column_close does nothing to it. */
static int column_open(PyObject *object, const char *name, Py_ssize_t item_bytes, column *out) {
    if (PyObject_GetBuffer(object, &out->buffer, PyBUF_ND | PyBUF_FORMAT) < 0) return -1;
    const Py_buffer *buffer = &out->buffer;
    if (buffer->ndim != 1 || buffer->itemsize != item_bytes || !is_native_int(buffer->format)) {
        PyErr_Format(PyExc_TypeError,
                     "%s must be a one-dimensional buffer of int%zd, not of format %s with %d dimensions", name,
                     item_bytes * 8, buffer->format != NULL ? buffer->format : "B", buffer->ndim);
        PyBuffer_Release(&out->buffer);
        return -1;
    }
    out->items = buffer->buf;
    out->count = buffer->len / item_bytes;
    return 0;
}

static inline void column_close(column *c) {
    PyBuffer_Release(&c->buffer);
}

static bool is_count(const column *c, Py_ssize_t count, const char *name, const char *first_name) {
    if (c->count == count) return true;
    PyErr_Format(PyExc_ValueError, "%s has %zd items, %s has %zd", name, c->count, first_name, count);
    return false;
}

/* The bytes of entry `i`, or None where it is null. */
static inline PyObject *field_bytes(const Py_buffer *data, int64_t at, int32_t length, const char *what, Py_ssize_t i) {
    if (length == -1) return Py_NewRef(Py_None);
    if (length < 0 || at < 0 || length > data->len - at)
        return PyErr_Format(PyExc_ValueError, "%s %zd: %d bytes at %lld lie outside data of %zd bytes", what, i,
                            (int)length, (long long)at, data->len);
    return PyBytes_FromStringAndSize((const char *)data->buf + at, length);
}

static PyObject *list_hidden(Py_ssize_t count) {
    PyObject *list = PyList_New(count);
    if (list != NULL) PyObject_GC_UnTrack(list);
    return list;
}

static PyObject *list_shown(PyObject *list) {
    if (list != NULL) PyObject_GC_Track(list);
    return list;
}

PyObject *bytes_list(PyObject *module, PyObject *const *args, Py_ssize_t arg_count) {
    (void)module;
    if (arg_count != 3)
        return PyErr_Format(PyExc_TypeError, "bytes_list() takes data, starts and lengths, not %zd arguments",
                            arg_count);
    Py_buffer data;
    column starts = {0}, lengths = {0};
    PyObject *list = NULL;
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) return NULL;
    if (column_open(args[1], "starts", sizeof(int64_t), &starts) < 0 ||
        column_open(args[2], "lengths", sizeof(int32_t), &lengths) < 0 ||
        !is_count(&lengths, starts.count, "lengths", "starts"))
        goto done;
    list = list_hidden(starts.count);
    for (Py_ssize_t i = 0; list != NULL && i < starts.count; i++) {
        PyObject *item = field_bytes(&data, column_int64(&starts, i), column_int32(&lengths, i), "index", i);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, item);
    }
done:
    column_close(&lengths);
    column_close(&starts);
    PyBuffer_Release(&data);
    return list_shown(list);
}

PyObject *headers_list(PyObject *module, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count != 2)
        return PyErr_Format(PyExc_TypeError, "headers_list() takes data and headers_at, not %zd arguments", arg_count);
    module_state *state = PyModule_GetState(module);
    Py_buffer data;
    column headers_at = {0};
    PyObject *list = NULL;
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) return NULL;
    if (column_open(args[1], "headers_at", sizeof(int64_t), &headers_at) == 0) list = list_hidden(headers_at.count);
    for (Py_ssize_t i = 0; list != NULL && i < headers_at.count; i++) {
        PyObject *item = headers_decode(state, data.buf, data.len, column_int64(&headers_at, i), i);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, item);
    }
    column_close(&headers_at);
    PyBuffer_Release(&data);
    return list_shown(list);
}

enum { OFFSETS, TIMESTAMPS, KEY_AT, KEY_BYTES, VALUE_AT, VALUE_BYTES, HEADERS_AT, COLUMN_COUNT };

static const struct {
    const char *name;
    Py_ssize_t item_bytes;
} record_column_kinds[COLUMN_COUNT] = {
    [OFFSETS] = {"offsets", 8},       [TIMESTAMPS] = {"timestamps", 8}, [KEY_AT] = {"key_at", 8},
    [KEY_BYTES] = {"key_bytes", 4},   [VALUE_AT] = {"value_at", 8},     [VALUE_BYTES] = {"value_bytes", 4},
    [HEADERS_AT] = {"headers_at", 8},
};

/* What records() was given, as the loop needs it. */
typedef struct records_input {
    module_state *state;
    PyTypeObject *type;
    PyObject *topic;
    PyObject *key_deserializer; /* None: bytes */
    PyObject *value_deserializer;
    int partition;
    int timestamp_type;
    Py_buffer data;
    column columns[COLUMN_COUNT];
} records_input;

static inline PyObject *field_deserialized(PyObject *field, PyObject *deserializer) {
    if (deserializer == Py_None || field == Py_None || field == NULL) return field;
    PyObject *result = PyObject_CallOneArg(deserializer, field);
    Py_DECREF(field);
    return result;
}

/* Every field is made before the record is, so that a deserializer can find no unfinished one. */
static inline PyObject *record_at(const records_input *in, Py_ssize_t i) {
    const column *c = in->columns;
    record_object *record = NULL;
    PyObject *key = NULL, *value = NULL, *headers = NULL;
    key = field_bytes(&in->data, column_int64(&c[KEY_AT], i), column_int32(&c[KEY_BYTES], i), "key", i);
    key = field_deserialized(key, in->key_deserializer);
    if (key == NULL) goto failed;
    value = field_bytes(&in->data, column_int64(&c[VALUE_AT], i), column_int32(&c[VALUE_BYTES], i), "value", i);
    value = field_deserialized(value, in->value_deserializer);
    if (value == NULL) goto failed;
    headers = headers_decode(in->state, in->data.buf, in->data.len, column_int64(&c[HEADERS_AT], i), i);
    if (headers == NULL) goto failed;
    record = record_alloc(in->state, in->type);
    if (record == NULL) goto failed;
    record->offset = column_int64(&c[OFFSETS], i);
    record->timestamp = column_int64(&c[TIMESTAMPS], i);
    record->partition = in->partition;
    record->timestamp_type = (int8_t)in->timestamp_type;
    record->topic = Py_NewRef(in->topic);
    record->key = key;
    record->value = value;
    record->headers = headers;
    return (PyObject *)record;
failed:
    Py_XDECREF(key);
    Py_XDECREF(value);
    Py_XDECREF(headers);
    return NULL;
}

static PyObject *records_list(const records_input *in, Py_ssize_t count) {
    PyObject *list = list_hidden(count);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *record = record_at(in, i);
        if (record == NULL)
            Py_CLEAR(list);
        else
            PyList_SET_ITEM(list, i, record);
    }
    return list;
}

static bool is_records_input_valid(const records_input *in) {
    if (in->timestamp_type != 0 && in->timestamp_type != 1) {
        PyErr_Format(PyExc_ValueError, "timestamp_type must be 0 (create) or 1 (append), not %d", in->timestamp_type);
        return false;
    }
    if (!PyType_IsSubtype(in->type, in->state->record_type)) {
        PyErr_Format(PyExc_TypeError, "record_type must be a subclass of Record, not %.200s", in->type->tp_name);
        return false;
    }
    return true;
}

PyObject *records(PyObject *module, PyObject *args, PyObject *keywords) {
    static char *names[] = {"topic",      "partition",        "timestamp_type",     "data",        "offsets",
                            "timestamps", "key_at",           "key_bytes",          "value_at",    "value_bytes",
                            "headers_at", "key_deserializer", "value_deserializer", "record_type", NULL};
    records_input in = {.state = PyModule_GetState(module), .key_deserializer = Py_None, .value_deserializer = Py_None};
    in.type = in.state->record_type;
    PyObject *data, *objects[COLUMN_COUNT];
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "UiiOOOOOOOO|$OOO!:records", names, &in.topic, &in.partition,
                                     &in.timestamp_type, &data, &objects[OFFSETS], &objects[TIMESTAMPS],
                                     &objects[KEY_AT], &objects[KEY_BYTES], &objects[VALUE_AT], &objects[VALUE_BYTES],
                                     &objects[HEADERS_AT], &in.key_deserializer, &in.value_deserializer, &PyType_Type,
                                     &in.type) ||
        !is_records_input_valid(&in))
        return NULL;
    if (PyObject_GetBuffer(data, &in.data, PyBUF_SIMPLE) < 0) return NULL;
    PyObject *list = NULL;
    for (int i = 0; i < COLUMN_COUNT; i++) {
        const char *name = record_column_kinds[i].name;
        if (column_open(objects[i], name, record_column_kinds[i].item_bytes, &in.columns[i]) < 0 ||
            !is_count(&in.columns[i], in.columns[OFFSETS].count, name, "offsets"))
            goto done;
    }
    list = records_list(&in, in.columns[OFFSETS].count);
done:
    for (int i = 0; i < COLUMN_COUNT; i++) column_close(&in.columns[i]);
    PyBuffer_Release(&in.data);
    return list_shown(list);
}

PyObject *small_list(module_state *state, const plog_small *small, PyObject *topic, PyObject *partition,
                     PyObject *key_deserializer, PyObject *value_deserializer) {
    records_input in = {.state = state,
                        .type = state->record_type,
                        .topic = topic,
                        .key_deserializer = key_deserializer,
                        .value_deserializer = value_deserializer,
                        .timestamp_type = small->log_append_time};
    in.partition = (int)PyLong_AsLong(partition);
    if (in.partition == -1 && PyErr_Occurred()) return NULL;
    in.data.buf = (void *)(uintptr_t)small->data;
    in.data.len = small->bytes;
    const void *items[COLUMN_COUNT] = {
        [OFFSETS] = small->offset,        [TIMESTAMPS] = small->timestamp, [KEY_AT] = small->key_at,
        [KEY_BYTES] = small->key_bytes,   [VALUE_AT] = small->value_at,    [VALUE_BYTES] = small->value_bytes,
        [HEADERS_AT] = small->headers_at,
    };
    for (int i = 0; i < COLUMN_COUNT; i++) in.columns[i] = (column){.items = items[i], .count = small->records};
    return list_shown(records_list(&in, small->records));
}

PyObject *small_records(PyObject *module, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count != 5)
        return PyErr_Format(PyExc_TypeError,
                            "small_records() takes an address, a topic, a partition and two deserializers, not %zd "
                            "arguments",
                            arg_count);
    const plog_small *small = PyLong_AsVoidPtr(args[0]);
    if (small == NULL && PyErr_Occurred()) return NULL;
    return small_list(PyModule_GetState(module), small, args[1], args[2], args[3], args[4]);
}
