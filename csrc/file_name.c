#include "file_name.h"

#include <assert.h>
#include <string.h>

enum { DIGITS = 20 };

/* Not by printf: every append and every flush has a name ready for its error. */
void file_name_for(int64_t offset, const char *suffix, char out[VFS_NAME_BYTES]) {
    assert(offset >= 0 && DIGITS + strlen(suffix) < VFS_NAME_BYTES);
    for (int i = DIGITS - 1; i >= 0; i--, offset /= 10) out[i] = (char)('0' + offset % 10);
    memcpy(out + DIGITS, suffix, strlen(suffix) + 1);
}

void file_name_shown(const vfs_directory *directory, int64_t offset, const char *suffix, char out[VFS_SHOWN_BYTES]) {
    char name[VFS_NAME_BYTES];
    file_name_for(offset, suffix, name);
    vfs_shown(directory, name, out, VFS_SHOWN_BYTES);
}

int64_t file_name_offset(const char *name, const char *suffix) {
    if (strlen(name) != DIGITS + strlen(suffix) || strcmp(name + DIGITS, suffix) != 0) return -1;
    uint64_t offset = 0;
    for (int i = 0; i < DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9') return -1;
        uint64_t digit = (uint64_t)(name[i] - '0');
        if (offset > ((uint64_t)INT64_MAX - digit) / 10) return -1;
        offset = offset * 10 + digit;
    }
    return (int64_t)offset;
}
