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

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "os.h"

#define UNMAPPED 65534 /* who owns what belongs to nobody that a user namespace knows */

/* By the numbers that Linux gives to their types. */
static const struct filesystem {
	uint32_t type;
	const char *name;
	bool is_local;
} filesystems[] = {
    {0x0000ef53, "ext4", true},     {0x58465342, "xfs", true},       {0x9123683e, "btrfs", true},
    {0x01021994, "tmpfs", true},    {0x794c7630, "overlayfs", true}, {0xf2f52010, "f2fs", true},
    {0x2fc12fc1, "zfs", true},      {0xca451a4e, "bcachefs", true},  {0x858458f6, "ramfs", true},
    {0x52654973, "reiserfs", true}, {0x3153464a, "jfs", true},       {0x00003434, "nilfs2", true},
    {0x24051905, "ubifs", true},    {0x00006969, "NFS", false},      {0x65735546, "FUSE", false},
    {0xff534d42, "CIFS", false},    {0xfe534d42, "SMB", false},      {0x0000517b, "SMB", false},
    {0x01021997, "9p", false},      {0x00c36400, "Ceph", false},     {0x0bd00bd0, "Lustre", false},
    {0x01161970, "GFS2", false},    {0x7461636f, "OCFS2", false},    {0x5346414f, "AFS", false},
    {0x6b414653, "AFS", false},     {0x73757245, "Coda", false},     {0x47504653, "GPFS", false},
    {0x786f4256, "vboxsf", false},  {0xbacbacbc, "vmhgfs", false},   {0x00004d44, "FAT", false},
    {0x2011bab0, "exFAT", false},   {0x7366746e, "NTFS", false},     {0x5346544e, "NTFS", false},
    {0x0000482b, "HFS+", false},
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
	uint32_t type = os_filesystem(fd);
	const struct filesystem *fs = NULL;

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
