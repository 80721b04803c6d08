/* What the sources of the extension module pylog._objects share.
 *
 * The module turns whole columns of decoded records into Python objects and Python objects into record batches; it
 * opens no files (but gives back locks of open ones) and knows nothing of the engine but the formats (record.h,
 * batch.h) and the few calls that Handle is given the addresses of.  Those run without the GIL, on nothing that Python
 * can reach; but for them it is held, and is the lock of everything here.  Code of others (a buffer's export, an
 * __index__, a deserializer) may run in between and call back into the same objects, so whatever may run it comes
 * before an object's state is read. */
#ifndef PYLOG_OBJECTS_H
#define PYLOG_OBJECTS_H

#define PY_SSIZE_T_CLEAN
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <Python.h>
#include <structmember.h>
#pragma GCC diagnostic pop

#include <stdbool.h>
#include <stdint.h>

#include "../batch.h"
#include "../pylog.h"
#include "../record.h"

typedef struct module_state {
    PyTypeObject *record_type;
    PyTypeObject *future_type;
    PyTypeObject *builder_type;
    PyTypeObject *batch_buffer_type;
    PyObject *no_headers; /* the empty tuple */
    PyObject *position;   /* the name */
} module_state;

/* Largest batch, so that sizes and their sums stay inside the format's int32. */
enum { BATCH_BYTES_MAX = INT32_MAX / 2 };

/* ---- record_type.c: Record */

typedef struct record_object {
    PyObject_HEAD
    int64_t offset;
    int64_t timestamp;
    int32_t partition;
    int8_t timestamp_type;
    PyObject *topic;
    PyObject *key;
    PyObject *value;
    PyObject *headers;
} record_object;

extern PyType_Spec record_type_spec;

/* Adds to the new type what a spec cannot hold; -1 with an exception. */
int record_type_finish(PyTypeObject *type);

/* An instance of `type` (Record or a subclass, whose __new__ and __init__ are not called) with no field set: fill in
 * every one before other code runs. */
record_object *record_alloc(module_state *state, PyTypeObject *type);

/* ---- field.c: keys and values as they come from Python */

/* A key's or value's bytes and what keeps them in place; field_close it unless it could not be opened. */
typedef struct field_view {
    record_field field;
    bool is_exported; /* `buffer` is to be released */
    Py_buffer buffer;
} field_view;

/* None or bytes, which no code of others has a part in: fills *out and says true; anything else: false. */
static inline bool field_is_plain(PyObject *object, record_field *out) {
    if (object == Py_None) {
        *out = (record_field){NULL, -1};
        return true;
    }
    if (!PyBytes_CheckExact(object) || PyBytes_GET_SIZE(object) > BATCH_BYTES_MAX) return false;
    *out = (record_field){(const uint8_t *)PyBytes_AS_STRING(object), (int32_t)PyBytes_GET_SIZE(object)};
    return true;
}

/* The part of field_open that runs for any other object. */
int field_open_buffer(PyObject *object, const char *what, Py_ssize_t index, field_view *out);

/* Opens None or a contiguous bytes-like object, which the caller keeps alive; -1 with TypeError, BufferError or
 * OverflowError.  Errors name `what` ("value"), or "values[index]" where index >= 0. */
static inline int field_open(PyObject *object, const char *what, Py_ssize_t index, field_view *out) {
    out->is_exported = false;
    return field_is_plain(object, &out->field) ? 0 : field_open_buffer(object, what, index, out);
}

static inline void field_close(field_view *view) {
    if (view->is_exported) PyBuffer_Release(&view->buffer);
}

int64_t timestamp_now_ms(void);

/* Milliseconds from an int >= 0 that is not None; -1 with an exception.  Errors are named as field_open's. */
int timestamp_load(PyObject *object, Py_ssize_t index, int64_t *out);

/* Whether `object` is a list or tuple; else false and a TypeError that names `what`. */
bool is_list_or_tuple(PyObject *object, const char *what);

PyObject *check_values(PyObject *module, PyObject *const *args, Py_ssize_t arg_count);

/* ---- headers.c: the header section of a record */

typedef struct header_section {
    record_field field; /* the encoded section, count and all */
    uint8_t *allocated; /* NULL while `local` or a constant suffices */
    int64_t capacity_bytes;
    uint8_t local[256];
} header_section;

/* Encodes None or a sequence of (str, bytes-like or None) pairs; -1 with an exception.  headers_close it when 0. */
int headers_open(PyObject *headers, header_section *out);
void headers_close(header_section *section);

/* The tuple of (str, bytes or None) tuples at data[at]; NULL with a ValueError that names entry `index`. */
PyObject *headers_decode(module_state *state, const uint8_t *data, int64_t data_bytes, int64_t at, Py_ssize_t index);

PyObject *encode_headers(PyObject *module, PyObject *headers);

/* ---- bulk.c: columns to lists */

PyObject *bytes_list(PyObject *module, PyObject *const *args, Py_ssize_t arg_count);
PyObject *headers_list(PyObject *module, PyObject *const *args, Py_ssize_t arg_count);
PyObject *records(PyObject *module, PyObject *args, PyObject *keywords);
PyObject *small_records(PyObject *module, PyObject *const *args, Py_ssize_t arg_count);
/* Record objects of a small chunk, as a list. */
PyObject *small_list(module_state *state, const plog_small *small, PyObject *topic, PyObject *partition,
                     PyObject *key_deserializer, PyObject *value_deserializer);

/* ---- handle.c: Handle */

extern PyType_Spec handle_type_spec;

/* ---- sections.c: ByteLock and OneThread */

extern PyType_Spec byte_lock_type_spec;
extern PyType_Spec one_thread_type_spec;

/* ---- future.c: FutureBase */

typedef struct future_object {
    PyObject_HEAD
    PyObject *batch;
    Py_ssize_t index;
    int64_t timestamp;
} future_object;

extern PyType_Spec future_type_spec;

/* An instance of `type` (FutureBase or a subclass, whose __new__ and __init__ are not called).  batch may be NULL, to
 * be filled in.  May run code of others, as Python subclasses are collected. */
future_object *future_make(PyTypeObject *type, PyObject *batch, Py_ssize_t index, int64_t timestamp);

/* ---- builder.c, builder_append.c, batch_buffer.c: BatchBuilder and the BatchBuffer it gives out */

typedef struct builder_object {
    PyObject_HEAD
    uint8_t *data;          /* NULL until the first record; its first BATCH_HEADER_BYTES are the header's */
    int64_t capacity_bytes; /* of `data` */
    int64_t size_bytes;     /* of the batch so far: its header and the records */
    int64_t bytes_max;
    int64_t base_timestamp; /* -1 while empty, as the next */
    int64_t max_timestamp;
    int64_t last_timestamp; /* of the record appended last */
    PyObject *owner;        /* whose batch this is, for futures; NULL: no batch was begun */
    int32_t record_count;
    int64_t first_block_bytes; /* what the next batch starts with: room for one like the last */
    uint8_t *spare;            /* a block that came back from a BatchBuffer, or NULL */
    int64_t spare_bytes;
} builder_object;

typedef struct batch_buffer_object {
    PyObject_HEAD
    builder_object *builder; /* gets the block back */
    uint8_t *data;
    int64_t capacity_bytes;
    int64_t size_bytes;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int32_t record_count;
} batch_buffer_object;

extern PyType_Spec builder_type_spec;
extern PyType_Spec batch_buffer_type_spec;

enum { APPEND_FULL = -1, APPEND_FAILED = -2 };

/* Makes room for `size_bytes` in all; -1 with a MemoryError, and nothing changed. */
int builder_reserve(builder_object *builder, int64_t size_bytes);

/* Takes over a block: keeps it for the next batch, or frees it. */
void builder_take_back(builder_object *builder, uint8_t *block, int64_t block_bytes);

PyObject *builder_append(PyObject *self, PyObject *const *args, Py_ssize_t arg_count);
PyObject *builder_append_future(PyObject *self, PyObject *const *args, Py_ssize_t arg_count);
/* Appends a record of plain fields (None or bytes) to the builder's owner's batch; NULL without an exception where that
 * needs the slow way: no batch was begun, it is full, or a field is not plain. */
PyObject *builder_append_plain(builder_object *builder, PyTypeObject *future_type, PyObject *value, PyObject *key,
                               PyObject *timestamp);

PyObject *builder_extend(PyObject *self, PyObject *const *args, Py_ssize_t arg_count);

/* ---- sender.c: TopicSender */

extern PyType_Spec sender_type_spec;

/* ---- forks.c: forks that Python need not have seen */

void forks_begin(void); /* once, before the others */
uint32_t forks_count(void);
PyObject *py_forks(PyObject *module, PyObject *nothing);

/* ---- partition.c: the partition of a key */

PyObject *py_murmur2(PyObject *module, PyObject *key);
PyObject *murmur2_partitions(PyObject *module, PyObject *const *args, Py_ssize_t arg_count);

#endif
