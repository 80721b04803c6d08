/* BatchBuffer: a finished batch, which belongs to whoever holds it.  Its block goes back to the builder for the next
 * batch when the last reference, exported buffers included, is gone. */
#include <stddef.h>

#include "objects.h"

static void batch_buffer_dealloc(PyObject *self) {
    batch_buffer_object *batch = (batch_buffer_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (batch->builder != NULL) {
        builder_take_back(batch->builder, batch->data, batch->capacity_bytes);
        Py_DECREF(batch->builder);
    }
    type->tp_free(self);
    Py_DECREF(type);
}

static int batch_buffer_export(PyObject *self, Py_buffer *view, int flags) {
    batch_buffer_object *batch = (batch_buffer_object *)self;
    return PyBuffer_FillInfo(view, self, batch->data, (Py_ssize_t)batch->size_bytes, 0, flags);
}

static Py_ssize_t batch_buffer_length(PyObject *self) {
    return (Py_ssize_t)((batch_buffer_object *)self)->size_bytes;
}

static PyMemberDef batch_buffer_members[] = {
    {"record_count", T_INT, offsetof(batch_buffer_object, record_count), READONLY, "Records in the batch."},
    {"base_timestamp", T_LONGLONG, offsetof(batch_buffer_object, base_timestamp), READONLY,
     "The first record's timestamp."},
    {"max_timestamp", T_LONGLONG, offsetof(batch_buffer_object, max_timestamp), READONLY, "The largest timestamp."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(batch_buffer_doc, "A finished record batch as a writable buffer; BatchBuilder.finish() makes it.");

static PyType_Slot batch_buffer_slots[] = {
    {Py_tp_dealloc, (void *)batch_buffer_dealloc}, {Py_bf_getbuffer, (void *)batch_buffer_export},
    {Py_sq_length, (void *)batch_buffer_length},   {Py_tp_members, batch_buffer_members},
    {Py_tp_doc, (void *)batch_buffer_doc},         {0, NULL},
};

PyType_Spec batch_buffer_type_spec = {
    .name = "pylog._objects.BatchBuffer",
    .basicsize = sizeof(batch_buffer_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = batch_buffer_slots,
};
