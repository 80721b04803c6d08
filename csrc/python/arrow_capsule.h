/* Life and death of the structs of the Arrow C data interface that pylog/_arrow.py fills in.
 *
 * Python code must not stand behind these callbacks: a consumer drops tables while an exception is on its way up, and
 * an interpreter that enters Python code with an exception pending loses it, or crashes. So releasing is C's work, and
 * filling the structs, where nothing is pending, is Python's. */
#ifndef PYLOG_PYTHON_ARROW_CAPSULE_H
#define PYLOG_PYTHON_ARROW_CAPSULE_H

#include "objects.h"

/* For PyModule_AddFunctions, ended by an empty entry:
 *   arrow_releases() -> (int, int, int)       addresses of the release callbacks of schemas, arrays and streams
 *   arrow_hold(owner) -> int                  private_data of one struct: a reference that its release gives back
 *   arrow_capsule(name, address, owner)       a PyCapsule over the struct at address, whose memory owner keeps; when it
 *                                             dies, it releases a struct that nobody has taken
 * All need the GIL; the release callbacks take it themselves and may be called from any thread. After the interpreter's
 * end they do nothing. */
extern PyMethodDef arrow_capsule_methods[];

#endif
