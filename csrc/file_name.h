/* Kafka's names of the files that belong to an offset: twenty digits, and a suffix that says what it is (".log"). */
#ifndef PLOG_FILE_NAME_H
#define PLOG_FILE_NAME_H

#include <stdint.h>

#include "vfs.h"

/* 42, ".log" -> "00000000000000000042.log" */
void file_name_for(int64_t offset, const char *suffix, char out[VFS_NAME_BYTES]);

/* The same as errors show it: "orders-0/00000000000000000042.log". */
void file_name_shown(const vfs_directory *directory, int64_t offset, const char *suffix, char out[VFS_SHOWN_BYTES]);

/* "00000000000000000042.log", ".log" -> 42; -1: not of that form. */
int64_t file_name_offset(const char *name, const char *suffix);

#endif
