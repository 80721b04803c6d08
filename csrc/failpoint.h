/* Places where a test may let a process die or stop: FAILPOINT("append written").
 *
 * They stand between stores to shared memory, and where an operation goes from one step to the next; nothing is
 * compiled in unless PLOG_FAILPOINTS is defined, and then the test brings plog_failpoint along. */
#ifndef PLOG_FAILPOINT_H
#define PLOG_FAILPOINT_H

#ifdef PLOG_FAILPOINTS
void plog_failpoint(const char *name);
#define FAILPOINT(name) plog_failpoint(name)
#else
#define FAILPOINT(name) ((void)0)
#endif

#endif
