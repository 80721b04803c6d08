/* How many forks lie between this process and the one that loaded the module, whoever forked: what Python calls after
 * its own forks it does not call after a C library's. */
#include <pthread.h>

#include "objects.h"

static uint32_t count; /* written where one thread is alive */
static pthread_once_t counting = PTHREAD_ONCE_INIT;

static void in_child(void) {
    count++;
}

static void count_forks(void) {
    if (pthread_atfork(NULL, NULL, in_child) != 0) abort(); /* out of memory, at import */
}

void forks_begin(void) {
    pthread_once(&counting, count_forks);
}

uint32_t forks_count(void) {
    return count;
}

PyObject *py_forks(PyObject *module, PyObject *nothing) {
    (void)module;
    (void)nothing;
    return PyLong_FromUnsignedLong(count);
}
