/* BatchBuilder's appends: one record, one record with its future, a list of records.
 *
 * Arguments are opened first, as that may run code of others; builder_store then takes the builder as it finds it. */
#include "objects.h"

/* Appends a record whose fields are open; returns its index, APPEND_FULL, or APPEND_FAILED with an exception. */
static inline int32_t builder_store(builder_object *builder, int64_t timestamp, record_field key, record_field value,
                                    record_field headers) {
    int32_t index = builder->record_count;
    int64_t timestamp_delta = index == 0 ? 0 : timestamp - builder->base_timestamp;
    int64_t body_bytes = record_body_bytes(timestamp_delta, index, key, value, headers);
    if (body_bytes > BATCH_BYTES_MAX - BATCH_HEADER_BYTES - VARINT_BYTES_MAX) {
        PyErr_Format(PyExc_OverflowError, "a record of %lld bytes does not fit a batch of at most %d",
                     (long long)body_bytes, BATCH_BYTES_MAX);
        return APPEND_FAILED;
    }
    int64_t size_bytes = builder->size_bytes + varint_bytes((int32_t)body_bytes) + body_bytes;
    if (size_bytes > builder->bytes_max && index > 0) return APPEND_FULL;
    if (size_bytes > builder->capacity_bytes && builder_reserve(builder, size_bytes) < 0) return APPEND_FAILED;
    uint8_t *end =
        record_store(builder->data + builder->size_bytes, body_bytes, timestamp_delta, index, key, value, headers);
    assert(end == builder->data + size_bytes);
    (void)end;
    if (index == 0) builder->base_timestamp = timestamp;
    if (timestamp > builder->max_timestamp) builder->max_timestamp = timestamp;
    builder->last_timestamp = timestamp;
    builder->size_bytes = size_bytes;
    builder->record_count = index + 1;
    return index;
}

/* The same from any key and value, which the caller keeps alive; `index` >= 0 is their place in a list. */
static int32_t append_buffers(builder_object *builder, PyObject *value, PyObject *key, record_field headers,
                              int64_t timestamp, Py_ssize_t index) {
    field_view value_view, key_view;
    if (field_open(value, "value", index, &value_view) < 0) return APPEND_FAILED;
    int32_t result = APPEND_FAILED;
    if (field_open(key, "key", index, &key_view) == 0) {
        result = builder_store(builder, timestamp, key_view.field, value_view.field, headers);
        field_close(&key_view);
    }
    field_close(&value_view);
    return result;
}

static inline int32_t append_fields(builder_object *builder, PyObject *value, PyObject *key, record_field headers,
                                    int64_t timestamp) {
    record_field value_field, key_field;
    if (field_is_plain(value, &value_field) && field_is_plain(key, &key_field))
        return builder_store(builder, timestamp, key_field, value_field, headers);
    return append_buffers(builder, value, key, headers, timestamp, -1);
}

/* Appends args = value[, key[, headers[, timestamp]]], 1 to 4 of them. */
static inline int32_t append_args(builder_object *builder, PyObject *const *args, Py_ssize_t arg_count) {
    PyObject *key = arg_count > 1 ? args[1] : Py_None, *headers = arg_count > 2 ? args[2] : Py_None;
    int64_t timestamp;
    if (arg_count < 4 || args[3] == Py_None)
        timestamp = timestamp_now_ms();
    else if (timestamp_load(args[3], -1, &timestamp) < 0)
        return APPEND_FAILED;
    if (headers == Py_None) return append_fields(builder, args[0], key, RECORD_NO_HEADERS, timestamp);
    header_section section;
    if (headers_open(headers, &section) < 0) return APPEND_FAILED;
    int32_t index = append_fields(builder, args[0], key, section.field, timestamp);
    headers_close(&section);
    return index;
}

PyObject *builder_append(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count < 1 || arg_count > 4)
        return PyErr_Format(PyExc_TypeError, "append() takes value, key, headers and timestamp, not %zd arguments",
                            arg_count);
    int32_t index = append_args((builder_object *)self, args, arg_count);
    return index == APPEND_FAILED ? NULL : PyLong_FromLong(index);
}

PyObject *builder_append_future(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count < 3 || arg_count > 6)
        return PyErr_Format(PyExc_TypeError,
                            "append_future() takes future_type, batch, value, key, headers and timestamp, not %zd "
                            "arguments",
                            arg_count);
    module_state *state = PyType_GetModuleState(Py_TYPE(self));
    PyTypeObject *type = (PyTypeObject *)args[0];
    if (!PyType_Check(args[0]) || !PyType_IsSubtype(type, state->future_type))
        return PyErr_Format(PyExc_TypeError, "future_type must be a subclass of FutureBase, not %R", args[0]);
    /* Before the record: once that is in the batch, nothing may fail. */
    future_object *future = future_make(type, args[1], -1, -1);
    if (future == NULL) return NULL;
    int32_t index = append_args((builder_object *)self, args + 2, arg_count - 2);
    if (index >= 0) {
        future->index = index;
        future->timestamp = ((builder_object *)self)->last_timestamp;
        return (PyObject *)future;
    }
    Py_DECREF(future);
    if (index == APPEND_FAILED) return NULL;
    Py_RETURN_NONE;
}

PyObject *builder_append_plain(builder_object *builder, PyTypeObject *future_type, PyObject *value, PyObject *key,
                               PyObject *timestamp) {
    record_field value_field, key_field;
    int64_t timestamp_ms;
    if (builder->owner == NULL || !field_is_plain(value, &value_field) || !field_is_plain(key, &key_field)) return NULL;
    if (timestamp == Py_None)
        timestamp_ms = timestamp_now_ms();
    else if (!PyLong_CheckExact(timestamp))
        return NULL;
    else if (timestamp_load(timestamp, -1, &timestamp_ms) < 0)
        return NULL;
    /* Making an object may collect garbage, which runs code of others, which may let other threads run: what the
     * builder is like is looked at after it. */
    future_object *future = future_make(future_type, NULL, -1, timestamp_ms);
    if (future == NULL) return NULL;
    int32_t index = builder->owner == NULL
                        ? APPEND_FULL
                        : builder_store(builder, timestamp_ms, key_field, value_field, RECORD_NO_HEADERS);
    if (index < 0) {
        Py_DECREF(future);
        return NULL;
    }
    future->batch = Py_NewRef(builder->owner);
    future->index = index;
    return (PyObject *)future;
}

/* What extend() was given, checked. */
typedef struct extend_input {
    PyObject *values;
    PyObject *keys;       /* NULL: none */
    PyObject *timestamps; /* NULL: `timestamp` for all */
    int64_t timestamp;
    record_field headers;
} extend_input;

static inline bool reaches(PyObject *list, Py_ssize_t i) {
    return list == NULL || i < PySequence_Fast_GET_SIZE(list);
}

/* Record `i` where its items are of any type: they are held, since what they run may change the lists. */
static int32_t extend_buffers(builder_object *builder, const extend_input *in, Py_ssize_t i) {
    if (!reaches(in->keys, i) || !reaches(in->timestamps, i)) {
        PyErr_SetString(PyExc_RuntimeError, "keys or timestamps changed size while they were read");
        return APPEND_FAILED;
    }
    PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(in->values, i));
    PyObject *key = Py_NewRef(in->keys != NULL ? PySequence_Fast_GET_ITEM(in->keys, i) : Py_None);
    int64_t timestamp = in->timestamp;
    int32_t result = APPEND_FAILED;
    int status = 0;
    if (in->timestamps != NULL) {
        PyObject *object = Py_NewRef(PySequence_Fast_GET_ITEM(in->timestamps, i));
        status = timestamp_load(object, i, &timestamp);
        Py_DECREF(object);
    }
    if (status == 0) result = append_buffers(builder, value, key, in->headers, timestamp, i);
    Py_DECREF(value);
    Py_DECREF(key);
    return result;
}

static inline int32_t extend_one(builder_object *builder, const extend_input *in, Py_ssize_t i) {
    record_field value, key = {NULL, -1};
    int64_t timestamp = in->timestamp;
    if (!field_is_plain(PySequence_Fast_GET_ITEM(in->values, i), &value) || !reaches(in->keys, i) ||
        !reaches(in->timestamps, i))
        return extend_buffers(builder, in, i);
    if (in->keys != NULL && !field_is_plain(PySequence_Fast_GET_ITEM(in->keys, i), &key))
        return extend_buffers(builder, in, i);
    if (in->timestamps != NULL) {
        PyObject *object = PySequence_Fast_GET_ITEM(in->timestamps, i);
        if (!PyLong_CheckExact(object) || timestamp_load(object, i, &timestamp) < 0) {
            if (PyErr_Occurred()) return APPEND_FAILED;
            return extend_buffers(builder, in, i);
        }
    }
    return builder_store(builder, timestamp, key, value, in->headers);
}

static int extend_column_check(PyObject *column, const char *what, Py_ssize_t count) {
    if (!is_list_or_tuple(column, what)) return -1;
    if (PySequence_Fast_GET_SIZE(column) == count) return 0;
    PyErr_Format(PyExc_ValueError, "%s has %zd items, values has %zd", what, PySequence_Fast_GET_SIZE(column), count);
    return -1;
}

/* Fills all of *in but the headers. */
static int extend_input_load(PyObject *const *args, Py_ssize_t arg_count, extend_input *in) {
    in->values = args[0];
    if (!is_list_or_tuple(in->values, "values")) return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(in->values);
    in->keys = arg_count > 1 && args[1] != Py_None ? args[1] : NULL;
    if (in->keys != NULL && extend_column_check(in->keys, "keys", count) < 0) return -1;
    in->timestamps = NULL;
    if (arg_count < 3 || args[2] == Py_None) {
        in->timestamp = timestamp_now_ms();
        return 0;
    }
    if (PyIndex_Check(args[2])) return timestamp_load(args[2], -1, &in->timestamp);
    in->timestamp = 0;
    in->timestamps = args[2];
    return extend_column_check(in->timestamps, "timestamps", count);
}

PyObject *builder_extend(PyObject *self, PyObject *const *args, Py_ssize_t arg_count) {
    if (arg_count < 1 || arg_count > 5)
        return PyErr_Format(PyExc_TypeError,
                            "extend() takes values, keys, timestamps, headers and start, not %zd arguments", arg_count);
    Py_ssize_t start = 0;
    if (arg_count > 4) {
        start = PyNumber_AsSsize_t(args[4], PyExc_OverflowError);
        if (start == -1 && PyErr_Occurred()) return NULL;
    }
    extend_input in;
    if (extend_input_load(args, arg_count, &in) < 0) return NULL;
    if (start < 0 || start > PySequence_Fast_GET_SIZE(in.values))
        return PyErr_Format(PyExc_ValueError, "start is %zd, there are %zd values", start,
                            PySequence_Fast_GET_SIZE(in.values));
    header_section section;
    if (headers_open(arg_count > 3 ? args[3] : Py_None, &section) < 0) return NULL;
    in.headers = section.field;
    int32_t result = 0;
    Py_ssize_t i = start;
    int32_t first = ((builder_object *)self)->record_count;
    while (i < PySequence_Fast_GET_SIZE(in.values) && (result = extend_one((builder_object *)self, &in, i)) >= 0) i++;
    headers_close(&section);
    return result == APPEND_FAILED ? NULL : Py_BuildValue("(ni)", i, (int)first);
}
