/* stage.h: where messages from elsewhere lie until they are their queues' own. */
#ifndef MQ_STAGE_H
#define MQ_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "message.h"
#include "spool.h"

/*
 * The folder <spool>/.import/<source>, or <spool>/.import/<source>/<part> if `part` is not NULL, made
 * if it is missing, and locked until it is closed. A descriptor; -1 with errno, EWOULDBLOCK if
 * another process has it. `source` and `part` are names of queues' directories.
 */
int stage_open(struct spool *sp, const char *source, const char *part);

/* The folders are empty: remove them. One that is not stays. */
void stage_remove(struct spool *sp, const char *source, const char *part);

/* A message that is being written into such a folder. */
struct stage {
	int dirfd, fd;
	struct message
	    message;  /* length: so far; the rest is the caller's to set before stage_end */
	uint32_t crc; /* of the body so far */
};

/*
 * stage_begin, which has room for the header, stage_write the body, stage_end: only then it has its
 * name, which takes the place of what had it. 0 or -1; a stage_write that failed may be tried
 * again. stage_abort: it is not to be, and goes.
 */
int stage_begin(struct stage *s, int dirfd);
int stage_write(struct stage *s, const void *data, size_t len);
int stage_end(struct stage *s, const char *name);
void stage_abort(struct stage *s);

/* What stage_end left under a name, whoever called it: 1, and *m and *crc, of the body, are set; 0 if
 * there is nothing; -1 with errno, EILSEQ if it is not whole. */
int stage_read(int dirfd, const char *name, struct message *m, uint32_t *crc);

/* Is it the queue's already? Where the rename that makes a message is a link and an unlink
 * (os_rename_noreplace), a kill between the two leaves both. Then it goes from here. 1, 0, or -1. */
int stage_is_pushed(struct spool *sp, const char *queue, int dirfd, const char *name);

/* What a killed process was about to end gets this name, if it is whole, and if there is none of that
 * name. 0; or -1. */
int stage_adopt(int dirfd, const char *name);

/* What a stage_begin left that was never ended, which a killed process does: its length, or -1 if
 * there is none. It is removed. */
int64_t stage_clear(int dirfd);

/* Make it a message of the queue, to be delivered in `delay` seconds. As push_commit: but with 1 and
 * -1 it is still staged. */
int stage_push(struct spool *sp, const char *queue, int dirfd, const char *name,
               const struct message *m, uint32_t crc, int64_t delay);

#endif
