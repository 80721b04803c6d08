/* BatchBuilder: the open batch of one partition, encoded record by record as they arrive, so that sealing it is only
 * its header and, in the engine, its CRC.
 *
 * Records lie behind BATCH_HEADER_BYTES of room.  finish() gives the block away and the next batch starts in the spare
 * one, if there is one: a batch's worth of fresh pages costs more than encoding records into them. */
#include <stddef.h>

#include "objects.h"

enum { BLOCK_BYTES_MIN = 4096 };

static void builder_reset(builder_object *builder) {
    builder->data = NULL;
    builder->capacity_bytes = 0;
    builder->size_bytes = BATCH_HEADER_BYTES;
    builder->base_timestamp = -1;
    builder->max_timestamp = -1;
    builder->record_count = 0;
}

int builder_reserve(builder_object *builder, int64_t size_bytes) {
    if (size_bytes <= builder->capacity_bytes) return 0;
    if (builder->data == NULL && builder->spare != NULL && builder->spare_bytes >= size_bytes) {
        builder->data = builder->spare;
        builder->capacity_bytes = builder->spare_bytes;
        builder->spare = NULL;
        return 0;
    }
    int64_t capacity_bytes = builder->data == NULL ? builder->first_block_bytes : builder->capacity_bytes * 2;
    if (capacity_bytes > builder->bytes_max) capacity_bytes = builder->bytes_max;
    if (capacity_bytes < size_bytes) capacity_bytes = size_bytes;
    uint8_t *grown = PyMem_RawRealloc(builder->data, (size_t)capacity_bytes);
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    builder->data = grown;
    builder->capacity_bytes = capacity_bytes;
    return 0;
}

void builder_take_back(builder_object *builder, uint8_t *block, int64_t block_bytes) {
    if (block_bytes > builder->bytes_max || (builder->spare != NULL && builder->spare_bytes >= block_bytes)) {
        PyMem_RawFree(block);
        return;
    }
    PyMem_RawFree(builder->spare);
    builder->spare = block;
    builder->spare_bytes = block_bytes;
}

static PyObject *builder_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"bytes_max", NULL};
    long long bytes_max;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "L:BatchBuilder", names, &bytes_max)) return NULL;
    if (bytes_max < BATCH_HEADER_BYTES + RECORD_BYTES_MIN || bytes_max > BATCH_BYTES_MAX)
        return PyErr_Format(PyExc_ValueError, "bytes_max must be %d to %d, not %lld",
                            BATCH_HEADER_BYTES + RECORD_BYTES_MIN, BATCH_BYTES_MAX, bytes_max);
    builder_object *builder = (builder_object *)type->tp_alloc(type, 0);
    if (builder == NULL) return NULL;
    builder->bytes_max = bytes_max;
    builder->first_block_bytes = BLOCK_BYTES_MIN;
    builder_reset(builder);
    return (PyObject *)builder;
}

static void builder_dealloc(PyObject *self) {
    builder_object *builder = (builder_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyMem_RawFree(builder->data);
    PyMem_RawFree(builder->spare);
    Py_XDECREF(builder->owner);
    type->tp_free(self);
    Py_DECREF(type);
}

/* All but base offset, leader epoch and CRC, which are the engine's to set. */
static void header_store(const builder_object *builder, int attributes, int64_t producer_id, int producer_epoch,
                         int32_t base_sequence) {
    uint8_t *p = builder->data;
    memset(p, 0, BATCH_HEADER_BYTES);
    store_be32(p + BATCH_LENGTH_AT, (uint32_t)(builder->size_bytes - BATCH_LENGTH_OVERHEAD));
    p[BATCH_MAGIC_AT] = BATCH_MAGIC;
    store_be16(p + BATCH_ATTRIBUTES_AT, (uint16_t)attributes);
    store_be32(p + BATCH_LAST_OFFSET_DELTA_AT, (uint32_t)(builder->record_count - 1));
    store_be64(p + BATCH_BASE_TIMESTAMP_AT, (uint64_t)builder->base_timestamp);
    store_be64(p + BATCH_MAX_TIMESTAMP_AT, (uint64_t)builder->max_timestamp);
    store_be64(p + BATCH_PRODUCER_ID_AT, (uint64_t)producer_id);
    store_be16(p + BATCH_PRODUCER_EPOCH_AT, (uint16_t)producer_epoch);
    store_be32(p + BATCH_BASE_SEQUENCE_AT, (uint32_t)base_sequence);
    store_be32(p + BATCH_RECORD_COUNT_AT, (uint32_t)builder->record_count);
}

PyDoc_STRVAR(finish_doc,
             "finish($self, /, attributes=0, producer_id=-1, producer_epoch=-1, base_sequence=-1)\n--\n\n"
             "Write the batch's header and give the batch away as a writable buffer; the builder is empty again.\n\n"
             "baseOffset, partitionLeaderEpoch and CRC are left 0.  ValueError when there are no records.");

static PyObject *builder_finish(PyObject *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"attributes", "producer_id", "producer_epoch", "base_sequence", NULL};
    short attributes = 0, producer_epoch = -1;
    long long producer_id = -1;
    int base_sequence = -1;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|hLhi:finish", names, &attributes, &producer_id, &producer_epoch,
                                     &base_sequence))
        return NULL;
    module_state *state = PyType_GetModuleState(Py_TYPE(self));
    batch_buffer_object *batch = PyObject_New(batch_buffer_object, state->batch_buffer_type);
    if (batch == NULL) return NULL;
    batch->builder = NULL;
    batch->data = NULL;
    builder_object *builder = (builder_object *)self;
    if (builder->record_count == 0) {
        PyErr_SetString(PyExc_ValueError, "the batch has no records");
        Py_DECREF(batch);
        return NULL;
    }
    header_store(builder, attributes, producer_id, producer_epoch, base_sequence);
    batch->builder = (builder_object *)Py_NewRef(self);
    batch->data = builder->data;
    batch->capacity_bytes = builder->capacity_bytes;
    batch->size_bytes = builder->size_bytes;
    batch->base_timestamp = builder->base_timestamp;
    batch->max_timestamp = builder->max_timestamp;
    batch->record_count = builder->record_count;
    /* The next batch is likely to need as much; memory that is not touched costs nothing. */
    builder->first_block_bytes = BLOCK_BYTES_MIN;
    while (builder->first_block_bytes < builder->size_bytes) builder->first_block_bytes *= 2;
    builder_reset(builder);
    Py_CLEAR(builder->owner); /* in one step with the records: another thread may go on appending */
    return (PyObject *)batch;
}

PyDoc_STRVAR(clear_doc, "clear($self, /)\n--\n\nForget the batch's records and its owner.");

static PyObject *builder_clear(PyObject *self, PyObject *unused) {
    (void)unused;
    builder_object *builder = (builder_object *)self;
    if (builder->data != NULL) builder_take_back(builder, builder->data, builder->capacity_bytes);
    builder_reset(builder);
    Py_CLEAR(builder->owner);
    Py_RETURN_NONE;
}

static PyObject *builder_owner(PyObject *self, void *unused) {
    (void)unused;
    PyObject *owner = ((builder_object *)self)->owner;
    return Py_NewRef(owner != NULL ? owner : Py_None);
}

static int builder_set_owner(PyObject *self, PyObject *owner, void *unused) {
    (void)unused;
    PyObject *old = ((builder_object *)self)->owner;
    ((builder_object *)self)->owner = owner == NULL || owner == Py_None ? NULL : Py_NewRef(owner);
    Py_XDECREF(old);
    return 0;
}

static PyObject *builder_is_empty(PyObject *self, void *unused) {
    (void)unused;
    return PyBool_FromLong(((builder_object *)self)->record_count == 0);
}

PyDoc_STRVAR(append_doc,
             "append($self, value, key=None, headers=None, timestamp=None, /)\n--\n\n"
             "Add a record; return its index in the batch, or -1 when the batch is too full for it.\n\n"
             "value and key are bytes-like or None, headers None or a sequence of (str, bytes-like or None) pairs,\n"
             "timestamp milliseconds or None for now.  An empty batch takes a record of any size up to 1 GiB;\n"
             "OverflowError above that.  After any exception the batch is as it was.");

PyDoc_STRVAR(append_future_doc,
             "append_future($self, future_type, batch, value, key=None, headers=None, timestamp=None, /)\n--\n\n"
             "append(), but return future_type.make(batch, index), or None when the batch is too full.");

PyDoc_STRVAR(extend_doc,
             "extend($self, values, keys=None, timestamps=None, headers=None, start=0, /)\n--\n\n"
             "Add records from index start on until the batch is full; return the index after the last one added, and\n"
             "the place in the batch that the first one got.\n\n"
             "values and keys are lists or tuples of as many items, timestamps too, or one int for all, or None for\n"
             "now; headers go with every record.  After an exception, which names its index, earlier records stay.");

static PyMethodDef builder_methods[] = {
    {"append", (PyCFunction)(void (*)(void))builder_append, METH_FASTCALL, append_doc},
    {"append_future", (PyCFunction)(void (*)(void))builder_append_future, METH_FASTCALL, append_future_doc},
    {"extend", (PyCFunction)(void (*)(void))builder_extend, METH_FASTCALL, extend_doc},
    {"finish", (PyCFunction)(void (*)(void))builder_finish, METH_VARARGS | METH_KEYWORDS, finish_doc},
    {"clear", builder_clear, METH_NOARGS, clear_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef builder_members[] = {
    {"bytes_max", T_LONGLONG, offsetof(builder_object, bytes_max), READONLY, "The size that a batch may grow to."},
    {"record_count", T_INT, offsetof(builder_object, record_count), READONLY, "Records in the batch."},
    {"size_bytes", T_LONGLONG, offsetof(builder_object, size_bytes), READONLY,
     "Size of the whole batch, its 61 bytes of header included."},
    {"base_timestamp", T_LONGLONG, offsetof(builder_object, base_timestamp), READONLY,
     "The first record's timestamp; -1: no record."},
    {"max_timestamp", T_LONGLONG, offsetof(builder_object, max_timestamp), READONLY,
     "The largest timestamp; -1: no record."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef builder_getset[] = {
    {"is_empty", builder_is_empty, NULL, "Whether the batch has no records.", NULL},
    {"owner", builder_owner, builder_set_owner,
     "What the batch's futures belong to; None: no batch was begun.  finish() hands it on with the batch.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyDoc_STRVAR(builder_doc, "BatchBuilder(bytes_max)\n--\n\n"
                          "An open record batch of one partition: at most bytes_max bytes, unless one record is\n"
                          "larger.");

static PyType_Slot builder_slots[] = {
    {Py_tp_new, (void *)builder_new},
    {Py_tp_dealloc, (void *)builder_dealloc},
    {Py_tp_methods, builder_methods},
    {Py_tp_members, builder_members},
    {Py_tp_getset, builder_getset},
    {Py_tp_doc, (void *)builder_doc},
    {0, NULL},
};

/* Final: its methods find the module by their own type. */
PyType_Spec builder_type_spec = {
    .name = "pylog._objects.BatchBuilder",
    .basicsize = sizeof(builder_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = builder_slots,
};
