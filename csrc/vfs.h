/* Every system call of the engine.  Tests make each of them fail here; nothing above knows a descriptor's system.
 *
 * Files are named relative to a directory descriptor and never followed through a symbolic link.  All functions
 * that can fail fill a plog_error with the file's name as it is given in `shown`. */
#ifndef PLOG_VFS_H
#define PLOG_VFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { VFS_NAME_BYTES = 64, VFS_SHOWN_BYTES = 400 };

typedef enum vfs_mode { VFS_READ, VFS_WRITE, VFS_CREATE } vfs_mode;

/* A directory and the name that errors show for it ("orders-0"). */
typedef struct vfs_directory {
    int fd;
    char shown[256];
} vfs_directory;

PLOG_MUST_CHECK plog_status vfs_directory_open(const char *path, vfs_directory *out, plog_error *error);
void vfs_directory_close(vfs_directory *directory);
PLOG_MUST_CHECK plog_status vfs_directory_sync(const vfs_directory *directory, plog_error *error);

/* Calls `visit` for each entry but "." and ".."; a visit that does not return PLOG_OK ends it. */
PLOG_MUST_CHECK plog_status vfs_directory_list(const vfs_directory *directory,
                                               plog_status (*visit)(void *context, const char *name, plog_error *error),
                                               void *context, plog_error *error);

/* "orders-0/00000000000000000000.log" */
void vfs_shown(const vfs_directory *directory, const char *name, char *out, size_t out_bytes);

/* A missing file is fd -1 and PLOG_OK for VFS_READ and VFS_WRITE. */
PLOG_MUST_CHECK plog_status vfs_open(const vfs_directory *directory, const char *name, vfs_mode mode, int *fd_out,
                                     plog_error *error);
void vfs_close(int fd);
/* Another descriptor of the same open file; -1 where there is none to be had. */
int vfs_duplicate(int fd);
PLOG_MUST_CHECK plog_status vfs_file_bytes(int fd, const char *shown, int64_t *bytes_out, plog_error *error);
PLOG_MUST_CHECK plog_status vfs_modified_ms(int fd, const char *shown, int64_t *ms_out, plog_error *error);

/* Writes all of it, or fails; then some of it may be in the file. */
PLOG_MUST_CHECK plog_status vfs_write(int fd, const char *shown, const void *data, int64_t bytes, int64_t position,
                                      plog_error *error);
PLOG_MUST_CHECK plog_status vfs_read(int fd, const char *shown, void *data, int64_t bytes, int64_t position,
                                     plog_error *error);
PLOG_MUST_CHECK plog_status vfs_sync(int fd, const char *shown, plog_error *error);
PLOG_MUST_CHECK plog_status vfs_truncate(int fd, const char *shown, int64_t bytes, plog_error *error);
PLOG_MUST_CHECK plog_status vfs_rename(const vfs_directory *directory, const char *from, const char *to,
                                       plog_error *error);
PLOG_MUST_CHECK plog_status vfs_unlink(const vfs_directory *directory, const char *name, plog_error *error);

/* Puts `bytes` of data in the place of file `name`: whole or not at all, by a ".cleaned" file that recovery deletes.
 * Not durable: without it, a power cut may leave it short, which suits files that say themselves whether they hold. */
PLOG_MUST_CHECK plog_status vfs_replace(const vfs_directory *directory, const char *name, const void *data,
                                        int64_t bytes, bool durable, plog_error *error);

/* A shared read-only mapping; it may reach beyond the end of the file, where it must not be touched. */
PLOG_MUST_CHECK plog_status vfs_map(int fd, const char *shown, size_t bytes, const uint8_t **out, plog_error *error);
void vfs_unmap(const uint8_t *data, size_t bytes);

/* The same for writing, of a file that several processes share. */
PLOG_MUST_CHECK plog_status vfs_map_shared(int fd, const char *shown, size_t bytes, void **out, plog_error *error);

/* Sees that the file has `bytes` bytes, and the disk room for them: a mapped store must not meet a full disk. */
PLOG_MUST_CHECK plog_status vfs_reserve(int fd, const char *shown, int64_t bytes, plog_error *error);

/* Fails for file systems whose locks and mappings do not reach other machines' processes. */
PLOG_MUST_CHECK plog_status vfs_refuse_network(const vfs_directory *directory, plog_error *error);

/* Which numbers process ids are; zeros where the system does not say. */
void vfs_pid_namespace(uint64_t *device_out, uint64_t *inode_out);

int64_t vfs_now_ms(void);

#endif
