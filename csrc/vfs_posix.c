#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "vfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif
#include <time.h>
#include <unistd.h>

/* A signal that arrives in the middle of a call is no failure of it. */
#define RETRY(result, call) \
    do {                    \
        (result) = (call);  \
    } while ((result) < 0 && errno == EINTR)

plog_status vfs_directory_open(const char *path, vfs_directory *out, plog_error *error) {
    const char *last = strrchr(path, '/');
    snprintf(out->shown, sizeof out->shown, "%s", last != NULL && last[1] != '\0' ? last + 1 : path);
    RETRY(out->fd, open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (out->fd < 0) return fail_os(error, path, "open");
    return PLOG_OK;
}

void vfs_directory_close(vfs_directory *directory) {
    vfs_close(directory->fd);
    directory->fd = -1;
}

plog_status vfs_directory_sync(const vfs_directory *directory, plog_error *error) {
    int result;
    RETRY(result, fsync(directory->fd));
    return result == 0 ? PLOG_OK : fail_os(error, directory->shown, "fsync of the directory");
}

plog_status vfs_directory_list(const vfs_directory *directory,
                               plog_status (*visit)(void *context, const char *name, plog_error *error), void *context,
                               plog_error *error) {
    int fd;
    RETRY(fd, openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (entries == NULL) {
        plog_status status = fail_os(error, directory->shown, "opendir");
        vfs_close(fd);
        return status;
    }
    plog_status status = PLOG_OK;
    while (status == PLOG_OK) {
        errno = 0;
        struct dirent *entry = readdir(entries);
        if (entry == NULL) {
            if (errno != 0) status = fail_os(error, directory->shown, "readdir");
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        status = visit(context, entry->d_name, error);
    }
    closedir(entries);
    return status;
}

static char *put_text(char *at, const char *end, const char *text) {
    size_t bytes = strlen(text), bytes_max = (size_t)(end - at);
    if (bytes > bytes_max) bytes = bytes_max;
    memcpy(at, text, bytes);
    return at + bytes;
}

void vfs_shown(const vfs_directory *directory, const char *name, char *out, size_t out_bytes) {
    const char *end = out + out_bytes - 1;
    char *at = put_text(put_text(put_text(out, end, directory->shown), end, "/"), end, name);
    *at = '\0';
}

/* A FIFO or a device in the place of a file: reading it may wait for ever, or do something. */
static plog_status refuse_irregular(int fd, const char *shown, plog_error *error) {
    struct stat status;
    if (fstat(fd, &status) != 0) return fail_os(error, shown, "fstat");
    if (S_ISREG(status.st_mode)) return PLOG_OK;
    fail(error, PLOG_IO, (error_place){shown, -1, -1}, "not a regular file");
    error->os_errno = EINVAL;
    return PLOG_IO;
}

plog_status vfs_open(const vfs_directory *directory, const char *name, vfs_mode mode, int *fd_out, plog_error *error) {
    int flags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (mode == VFS_READ ? O_RDONLY : O_RDWR);
    char shown[VFS_SHOWN_BYTES];
    int fd;
    RETRY(fd, openat(directory->fd, name, flags | (mode == VFS_CREATE ? O_CREAT : 0), 0644));
    int code = errno;
    *fd_out = -1;
    if (fd < 0 && code == ENOENT && mode != VFS_CREATE) return PLOG_OK;
    vfs_shown(directory, name, shown, sizeof shown);
    errno = code;
    if (fd < 0) return fail_os(error, shown, code == ELOOP ? "open (links are not followed)" : "open");
    plog_status status = refuse_irregular(fd, shown, error);
    if (status == PLOG_OK)
        *fd_out = fd;
    else
        vfs_close(fd);
    return status;
}

int vfs_duplicate(int fd) {
    return fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
}

void vfs_close(int fd) {
    if (fd >= 0) close(fd);
}

/* Not by fstat: who looks at a file's times makes the next write note a new one (Linux 6.13), and with it the inode,
 * which made a durable append half as slow again. */
plog_status vfs_file_bytes(int fd, const char *shown, int64_t *bytes_out, plog_error *error) {
    off_t bytes = lseek(fd, 0, SEEK_END);
    if (bytes < 0) return fail_os(error, shown, "lseek");
    *bytes_out = bytes;
    return PLOG_OK;
}

plog_status vfs_modified_ms(int fd, const char *shown, int64_t *ms_out, plog_error *error) {
    struct stat status;
    if (fstat(fd, &status) != 0) return fail_os(error, shown, "fstat");
#ifdef __APPLE__
    *ms_out = (int64_t)status.st_mtimespec.tv_sec * 1000 + status.st_mtimespec.tv_nsec / 1000000;
#else
    *ms_out = (int64_t)status.st_mtim.tv_sec * 1000 + status.st_mtim.tv_nsec / 1000000;
#endif
    return PLOG_OK;
}

plog_status vfs_write(int fd, const char *shown, const void *data, int64_t bytes, int64_t position, plog_error *error) {
    const uint8_t *p = data;
    while (bytes > 0) {
        ssize_t done = pwrite(fd, p, (size_t)bytes, position);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0) errno = EIO; /* A regular file takes no write of nothing. */
        if (done <= 0) return fail_os(error, shown, "pwrite");
        p += done;
        bytes -= done;
        position += done;
    }
    return PLOG_OK;
}

plog_status vfs_read(int fd, const char *shown, void *data, int64_t bytes, int64_t position, plog_error *error) {
    uint8_t *p = data;
    while (bytes > 0) {
        ssize_t done = pread(fd, p, (size_t)bytes, position);
        if (done < 0 && errno == EINTR) continue;
        if (done == 0)
            return fail(error, PLOG_CORRUPT, (error_place){shown, position, -1}, "the file ends before it should");
        if (done < 0) return fail_os(error, shown, "pread");
        p += done;
        bytes -= done;
        position += done;
    }
    return PLOG_OK;
}

plog_status vfs_sync(int fd, const char *shown, plog_error *error) {
#ifdef __APPLE__
    if (fcntl(fd, F_FULLFSYNC) != 0) return fail_os(error, shown, "F_FULLFSYNC");
#else
    int result;
    RETRY(result, fdatasync(fd));
    if (result != 0) return fail_os(error, shown, "fdatasync");
#endif
    return PLOG_OK;
}

plog_status vfs_truncate(int fd, const char *shown, int64_t bytes, plog_error *error) {
    int result;
    RETRY(result, ftruncate(fd, bytes));
    return result == 0 ? PLOG_OK : fail_os(error, shown, "ftruncate");
}

plog_status vfs_rename(const vfs_directory *directory, const char *from, const char *to, plog_error *error) {
    if (renameat(directory->fd, from, directory->fd, to) == 0) return PLOG_OK;
    char shown[VFS_SHOWN_BYTES];
    int code = errno;
    vfs_shown(directory, from, shown, sizeof shown);
    errno = code;
    return fail_os(error, shown, "rename");
}

plog_status vfs_unlink(const vfs_directory *directory, const char *name, plog_error *error) {
    if (unlinkat(directory->fd, name, 0) == 0 || errno == ENOENT) return PLOG_OK;
    char shown[VFS_SHOWN_BYTES];
    int code = errno;
    vfs_shown(directory, name, shown, sizeof shown);
    errno = code;
    return fail_os(error, shown, "unlink");
}

plog_status vfs_replace(const vfs_directory *directory, const char *name, const void *data, int64_t bytes, bool durable,
                        plog_error *error) {
    char temporary[VFS_NAME_BYTES + 16], shown[VFS_SHOWN_BYTES];
    snprintf(temporary, sizeof temporary, "%s.cleaned", name);
    vfs_shown(directory, temporary, shown, sizeof shown);
    int fd;
    plog_status status = vfs_open(directory, temporary, VFS_CREATE, &fd, error);
    if (status != PLOG_OK) return status;
    status = vfs_truncate(fd, shown, 0, error);
    if (status == PLOG_OK) status = vfs_write(fd, shown, data, bytes, 0, error);
    /* Before the rename: after a crash the name must not stand for bytes that never arrived. */
    if (status == PLOG_OK && durable) status = vfs_sync(fd, shown, error);
    vfs_close(fd);
    if (status == PLOG_OK) return vfs_rename(directory, temporary, name, error);
    plog_error ignored; /* The first error is the one to tell; recovery deletes the file too. */
    if (vfs_unlink(directory, temporary, &ignored) != PLOG_OK) return status;
    return status;
}

plog_status vfs_map(int fd, const char *shown, size_t bytes, const uint8_t **out, plog_error *error) {
    void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return fail_os(error, shown, "mmap");
    *out = data;
    return PLOG_OK;
}

void vfs_unmap(const uint8_t *data, size_t bytes) {
    munmap((void *)(uintptr_t)data, bytes);
}

plog_status vfs_map_shared(int fd, const char *shown, size_t bytes, void **out, plog_error *error) {
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return fail_os(error, shown, "mmap");
    *out = data;
    return PLOG_OK;
}

plog_status vfs_reserve(int fd, const char *shown, int64_t bytes, plog_error *error) {
#ifdef __APPLE__
    if (ftruncate(fd, bytes) != 0) return fail_os(error, shown, "ftruncate");
#else
    int result;
    do result = posix_fallocate(fd, 0, bytes);
    while (result == EINTR);
    errno = result;
    if (result != 0) return fail_os(error, shown, "posix_fallocate");
#endif
    return PLOG_OK;
}

plog_status vfs_refuse_network(const vfs_directory *directory, plog_error *error) {
#ifdef __linux__
    static const struct {
        uint32_t magic;
        const char *name;
    } networks[] = {{0x6969, "NFS"},        {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"}, {0x517b, "SMB"},
                    {0x5346414f, "AFS"},    {0x73757245, "Coda"}, {0x01021997, "9p"},   {0x00c36400, "Ceph"},
                    {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"}, {0x19830326, "FhGFS"}};
    struct statfs status;
    if (fstatfs(directory->fd, &status) != 0) return fail_os(error, directory->shown, "fstatfs");
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
        if ((uint32_t)status.f_type == networks[i].magic)
            return fail(error, PLOG_INVALID, (error_place){directory->shown, -1, -1},
                        "the directory lies on a network file system (%s); locks and shared memory do not reach other "
                        "machines, so it can only be opened read_only",
                        networks[i].name);
#endif
    (void)directory;
    (void)error;
    return PLOG_OK;
}

void vfs_pid_namespace(uint64_t *device_out, uint64_t *inode_out) {
    struct stat status;
    bool known = stat("/proc/self/ns/pid", &status) == 0;
    *device_out = known ? (uint64_t)status.st_dev : 0;
    *inode_out = known ? (uint64_t)status.st_ino : 0;
}

int64_t vfs_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
