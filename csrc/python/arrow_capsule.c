/* Release callbacks and capsules of the Arrow C data interface; see the header for why they are not Python's.
 *
 * struct         bytes  release at  private_data
 * ArrowSchema    72     56          owner of strings and children
 * ArrowArray     80     64          owner of buffers and children
 * ArrowStream    40     24          owner of the iterator
 *
 * A consumer takes a struct by copying it and setting the original's release to NULL; it may take a child alone. So
 * every struct has its own reference to its own owner, and an owner holds the memory of its children's structs, not of
 * its own. */
#include "arrow_capsule.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

_Static_assert(sizeof(struct ArrowSchema) == 72 && sizeof(struct ArrowArray) == 80 &&
                   sizeof(struct ArrowArrayStream) == 40,
               "the layout that pylog/_arrow_abi.py declares to ctypes");

static void owner_drop(void *owner) {
    /* A consumer's own statics may outlive the interpreter; the memory is then the operating system's to take back. */
    if (!Py_IsInitialized()) return;
    PyGILState_STATE state = PyGILState_Ensure();
    Py_DECREF((PyObject *)owner);
    PyGILState_Release(state);
}

static void schema_release(struct ArrowSchema *schema) {
    assert(schema->release == schema_release);
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (schema->children[i]->release) schema->children[i]->release(schema->children[i]);
    }
    schema->release = NULL;
    owner_drop(schema->private_data);
}

static void array_release(struct ArrowArray *array) {
    assert(array->release == array_release);
    for (int64_t i = 0; i < array->n_children; i++) {
        if (array->children[i]->release) array->children[i]->release(array->children[i]);
    }
    array->release = NULL;
    owner_drop(array->private_data);
}

static void stream_release(struct ArrowArrayStream *stream) {
    assert(stream->release == stream_release);
    stream->release = NULL;
    owner_drop(stream->private_data);
}

static void schema_capsule_free(PyObject *capsule) {
    struct ArrowSchema *schema = PyCapsule_GetPointer(capsule, "arrow_schema");
    if (schema->release) schema->release(schema);
    Py_DECREF((PyObject *)PyCapsule_GetContext(capsule));
}

static void array_capsule_free(PyObject *capsule) {
    struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array->release) array->release(array);
    Py_DECREF((PyObject *)PyCapsule_GetContext(capsule));
}

static void stream_capsule_free(PyObject *capsule) {
    struct ArrowArrayStream *stream = PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (stream->release) stream->release(stream);
    Py_DECREF((PyObject *)PyCapsule_GetContext(capsule));
}

static const struct {
    const char *name;
    PyCapsule_Destructor destructor;
} capsule_kinds[] = {
    {"arrow_schema", schema_capsule_free},
    {"arrow_array", array_capsule_free},
    {"arrow_array_stream", stream_capsule_free},
};

static PyObject *arrow_capsule(PyObject *module, PyObject *args) {
    (void)module;
    const char *name;
    unsigned long long address;
    PyObject *owner;
    if (!PyArg_ParseTuple(args, "sKO:arrow_capsule", &name, &address, &owner)) return NULL;
    for (size_t i = 0; i < sizeof capsule_kinds / sizeof capsule_kinds[0]; i++) {
        if (strcmp(name, capsule_kinds[i].name) != 0) continue;
        PyObject *capsule = PyCapsule_New((void *)(uintptr_t)address, capsule_kinds[i].name, NULL);
        if (!capsule) return NULL;
        int failed = PyCapsule_SetContext(capsule, Py_NewRef(owner)) || /* these two fail only for what is no capsule */
                     PyCapsule_SetDestructor(capsule, capsule_kinds[i].destructor);
        assert(!failed);
        return capsule;
    }
    return PyErr_Format(PyExc_ValueError, "no Arrow struct is called %s", name);
}

static PyObject *arrow_hold(PyObject *module, PyObject *owner) {
    (void)module;
    PyObject *address = PyLong_FromVoidPtr(owner);
    if (address) Py_INCREF(owner);
    return address;
}

static PyObject *arrow_releases(PyObject *module, PyObject *none) {
    (void)module;
    (void)none;
    return Py_BuildValue("(KKK)", (unsigned long long)(uintptr_t)schema_release,
                         (unsigned long long)(uintptr_t)array_release, (unsigned long long)(uintptr_t)stream_release);
}

PyMethodDef arrow_capsule_methods[] = {
    {"arrow_capsule", arrow_capsule, METH_VARARGS, "A PyCapsule over the Arrow struct at an address."},
    {"arrow_hold", arrow_hold, METH_O, "The address of owner, with a reference for a struct's private_data."},
    {"arrow_releases", arrow_releases, METH_NOARGS, "Release callbacks of schemas, arrays and streams."},
    {NULL, NULL, 0, NULL},
};
