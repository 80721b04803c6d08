/* The extension module pylog._objects: its table of functions and its types. */
#include "arrow_capsule.h"
#include "objects.h"

PyDoc_STRVAR(module_doc, "Python objects from columns of records, and record batches from Python objects, in bulk.");

PyDoc_STRVAR(bytes_list_doc,
             "bytes_list($module, data, starts, lengths, /)\n--\n\n"
             "The bytes data[starts[i]:starts[i] + lengths[i]] as a list; length -1 gives None.\n\n"
             "data is bytes-like, starts a contiguous int64 and lengths a contiguous int32 buffer of as many items.\n"
             "ValueError names the first index that reaches outside data.");

PyDoc_STRVAR(headers_list_doc,
             "headers_list($module, data, headers_at, /)\n--\n\n"
             "The headers of records as a list of tuples of (str, bytes or None) tuples.\n\n"
             "headers_at (int64) holds where in data each record's header count lies.  A key that is not UTF-8 is\n"
             "decoded with surrogateescape, so nothing is lost.");

PyDoc_STRVAR(small_records_doc,
             "small_records($module, address, topic, partition, key_deserializer, value_deserializer, /)\n--\n\n"
             "Record objects of the plog_small at this address.");

PyDoc_STRVAR(records_doc,
             "records($module, topic, partition, timestamp_type, data, offsets, timestamps, key_at, key_bytes,\n"
             "        value_at, value_bytes, headers_at, *, key_deserializer=None, value_deserializer=None,\n"
             "        record_type=Record)\n--\n\n"
             "A list of Records from the columns of one partition.\n\n"
             "Columns are contiguous buffers of as many items each: int64, but key_bytes and value_bytes int32 (-1:\n"
             "null).  *_at are positions in data.  A deserializer is called with the bytes of each field that is not\n"
             "null; what it raises propagates.  record_type may be a subclass of Record: its __new__ and __init__\n"
             "are not called.  ValueError names the column and index that reaches outside data.");

PyDoc_STRVAR(
    check_values_doc,
    "check_values($module, values, what, /)\n--\n\n"
    "Raise TypeError unless every item of the list or tuple is contiguous bytes-like or None.\n\n"
    "what (\"value\", \"key\") names the items in the message: values[3], value_serializer.  Returns the largest\n"
    "item's size in bytes.");

PyDoc_STRVAR(encode_headers_doc,
             "encode_headers($module, headers, /)\n--\n\n"
             "The header section of a record: None or a sequence of (str, bytes-like or None) pairs, encoded.");

PyDoc_STRVAR(murmur2_doc, "murmur2($module, key, /)\n--\n\n"
                          "Kafka's 32-bit hash of a bytes-like key, as a signed number.");

PyDoc_STRVAR(murmur2_partitions_doc,
             "murmur2_partitions($module, keys, partitions, /)\n--\n\n"
             "The partitions that Kafka's default partitioner gives to a list or tuple of bytes-like keys.\n\n"
             "The result holds native int32 numbers, one a key: -1 for None, else\n"
             "(murmur2(key) & 0x7fffffff) % partitions.");

PyDoc_STRVAR(forks_doc, "forks($module, /)\n--\n\n"
                        "How many forks lie between this process and the one that imported the module.");

static PyMethodDef module_methods[] = {
    {"bytes_list", (PyCFunction)(void (*)(void))bytes_list, METH_FASTCALL, bytes_list_doc},
    {"headers_list", (PyCFunction)(void (*)(void))headers_list, METH_FASTCALL, headers_list_doc},
    {"records", (PyCFunction)(void (*)(void))records, METH_VARARGS | METH_KEYWORDS, records_doc},
    {"small_records", (PyCFunction)(void (*)(void))small_records, METH_FASTCALL, small_records_doc},
    {"check_values", (PyCFunction)(void (*)(void))check_values, METH_FASTCALL, check_values_doc},
    {"encode_headers", encode_headers, METH_O, encode_headers_doc},
    {"murmur2", py_murmur2, METH_O, murmur2_doc},
    {"forks", py_forks, METH_NOARGS, forks_doc},
    {"murmur2_partitions", (PyCFunction)(void (*)(void))murmur2_partitions, METH_FASTCALL, murmur2_partitions_doc},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject *type_add(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL) return NULL;
    if (PyModule_AddType(module, (PyTypeObject *)type) < 0) Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static int module_exec(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    forks_begin();
    if (PyModule_AddFunctions(module, arrow_capsule_methods) < 0) return -1;
    state->no_headers = PyTuple_New(0);
    state->position = PyUnicode_InternFromString("position");
    if (state->no_headers == NULL || state->position == NULL) return -1;
    state->record_type = type_add(module, &record_type_spec);
    if (state->record_type == NULL || record_type_finish(state->record_type) < 0) return -1;
    state->future_type = type_add(module, &future_type_spec);
    if (state->future_type == NULL) return -1;
    state->builder_type = type_add(module, &builder_type_spec);
    if (state->builder_type == NULL) return -1;
    state->batch_buffer_type = type_add(module, &batch_buffer_type_spec);
    if (state->batch_buffer_type == NULL) return -1;
    PyType_Spec *others[] = {&sender_type_spec, &handle_type_spec, &byte_lock_type_spec, &one_thread_type_spec};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        PyTypeObject *type = type_add(module, others[i]);
        if (type == NULL) return -1;
        Py_DECREF(type); /* the module has it */
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->record_type);
    Py_VISIT(state->future_type);
    Py_VISIT(state->builder_type);
    Py_VISIT(state->batch_buffer_type);
    Py_VISIT(state->no_headers);
    return 0;
}

static int module_clear(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->record_type);
    Py_CLEAR(state->future_type);
    Py_CLEAR(state->builder_type);
    Py_CLEAR(state->batch_buffer_type);
    Py_CLEAR(state->no_headers);
    Py_CLEAR(state->position);
    return 0;
}

static void module_free(void *module) {
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    /* Arrow's release callbacks (arrow_capsule.h) know the main interpreter only. */
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pylog._objects",
    .m_doc = module_doc,
    .m_size = sizeof(module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__objects(void); /* declared first: -Wmissing-prototypes */

PyMODINIT_FUNC PyInit__objects(void) {
    return PyModuleDef_Init(&module_def);
}
