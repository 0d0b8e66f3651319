/*
 * place.c: whether a directory can be a spool.
 *
 * Whose is it? Files that one user makes there the other cannot open; and whoever owns a directory,
 * or may write to it, can plant queues and messages in it. To read or enter it may be allowed to
 * anybody: what mqd makes in it is for its owner alone. Nor does it matter who may rename it: what
 * he could put in its place would be his, and is refused.
 *
 * Where does it lie? Everything here rests on flock, on rename, and on each process seeing at once
 * what another has written. That is so on a file system that one kernel has to itself. On those that
 * other machines may use at the same time, or that a process serves (FUSE: nobody can tell by the
 * type whether that is a disk or a cluster), it is so for some and in some settings, and elsewhere
 * messages are lost in silence. Hence a list of those that are known to be good, and for the others
 * an operator has to say that he knows.
 *
 * Does it take "Q" for "q"? These are two queues.
 */
#include "place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "os.h"

#define UNMAPPED 65534 /* who owns what belongs to nobody that a user namespace knows */

/* By the numbers that Linux gives to their types. */
static const struct filesystem {
	const char *name;
	uint32_t type;
	bool is_local;
} filesystems[] = {
    {"ext4", 0x0000ef53, true},     {"xfs", 0x58465342, true},       {"btrfs", 0x9123683e, true},
    {"tmpfs", 0x01021994, true},    {"overlayfs", 0x794c7630, true}, {"f2fs", 0xf2f52010, true},
    {"zfs", 0x2fc12fc1, true},      {"bcachefs", 0xca451a4e, true},  {"ramfs", 0x858458f6, true},
    {"reiserfs", 0x52654973, true}, {"jfs", 0x3153464a, true},       {"nilfs2", 0x00003434, true},
    {"ubifs", 0x24051905, true},    {"NFS", 0x00006969, false},      {"FUSE", 0x65735546, false},
    {"CIFS", 0xff534d42, false},    {"SMB", 0xfe534d42, false},      {"SMB", 0x0000517b, false},
    {"9p", 0x01021997, false},      {"Ceph", 0x00c36400, false},     {"Lustre", 0x0bd00bd0, false},
    {"GFS2", 0x01161970, false},    {"OCFS2", 0x7461636f, false},    {"AFS", 0x5346414f, false},
    {"AFS", 0x6b414653, false},     {"Coda", 0x73757245, false},     {"GPFS", 0x47504653, false},
    {"vboxsf", 0x786f4256, false},  {"vmhgfs", 0xbacbacbc, false},   {"FAT", 0x00004d44, false},
    {"exFAT", 0x2011bab0, false},   {"NTFS", 0x7366746e, false},     {"NTFS", 0x5346544e, false},
    {"HFS+", 0x0000482b, false},
};

static char text[512];
static enum place_question ignored = PLACE_NOTHING;

void
place_ignore(enum place_question question)
{
	ignored = question;
}

/* Of whoever owns what is not the user's whom it should belong to. */
static const char *
doubt(uid_t owner)
{
	return owner == UNMAPPED ? " (or one that this user namespace does not know)" : "";
}

const char *
place_owner_fault(const struct stat *st, uid_t owner, const char *path)
{
	unsigned long has = st->st_uid, should = owner;

	if (has != should)
		snprintf(text, sizeof text,
		         "belongs to user %lu%s, and not to %lu: chown -R %lu %s", has,
		         doubt(st->st_uid), should, should, path);
	else if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
		snprintf(text, sizeof text, "can be written to by other users: chmod go-w %s",
		         path);
	else
		return NULL;
	return text;
}

/* Root who forgot to become another user should rather do that. */
static const char *
spool_owner_fault(const struct stat *st, const char *path)
{
	unsigned long has = st->st_uid;

	if (has == 0 || geteuid() != 0)
		return place_owner_fault(st, geteuid(), path);
	snprintf(text, sizeof text, "belongs to user %lu%s, and root runs mqd: use -u %lu", has,
	         doubt(st->st_uid), has);
	return text;
}

static const char *
filesystem_fault(int fd)
{
	static const char remedy[] =
	    "move it to a local one (ext4, xfs, btrfs), or see -o filesystem in mqd(8)";
	const struct filesystem *fs = NULL;
	uint32_t type;

	if (os_filesystem(fd, &type) == -1) {
		snprintf(text, sizeof text, "lies on a file system that cannot be told: %s",
		         strerror(errno));
		return text;
	}
	for (size_t i = 0; i < sizeof filesystems / sizeof filesystems[0]; i++)
		if (filesystems[i].type == type)
			fs = &filesystems[i];
	if (type == OS_FILESYSTEM_UNKNOWN || (fs != NULL && fs->is_local && !os_folds_case(fd)))
		return NULL;
	if (fs == NULL)
		snprintf(text, sizeof text,
		         "lies on a file system that mqd does not know (type 0x%" PRIx32 "): %s",
		         type, remedy);
	else if (!fs->is_local)
		snprintf(text, sizeof text, "lies on %s, where messages could be lost: %s",
		         fs->name, remedy);
	else
		snprintf(
		    text, sizeof text,
		    "takes upper and lower case for the same, and so two queues for one: use a "
		    "directory that was made without chattr +F");
	return text;
}

const char *
place_fault(int fd, const struct stat *st, const char *path)
{
	const char *fault = NULL;

	if (ignored != PLACE_ALL)
		fault = spool_owner_fault(st, path);
	if (fault == NULL && ignored == PLACE_NOTHING)
		fault = filesystem_fault(fd);
	return fault;
}
