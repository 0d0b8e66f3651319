/* config.h: the files `.config`: what they may say, and how they are read and written. */
#ifndef MQ_CONFIG_H
#define MQ_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "queue_name.h"

/* What the spool lets its clients do, as Kestrel has it. */
enum config_status {
	STATUS_UP,
	STATUS_READONLY,  /* nothing is pushed, nothing removed but by being delivered */
	STATUS_QUIESCENT, /* nothing, but that messages which are open may be closed */
};

/* What is in force. A limit of 0 is none. */
struct config {
	uint64_t max_items;       /* messages that may wait */
	uint64_t max_bytes;       /* of body in them */
	uint64_t max_item_size;   /* bytes of one body */
	uint64_t discard_old;     /* 1: a push beyond max_items or max_bytes drops the oldest */
	uint64_t max_open;        /* messages of a queue that a connection may hold open */
	uint64_t allow_flush_all; /* 1: flush_all is carried out */
	uint64_t expire;          /* 1: the exptime of set counts */
	uint64_t max_age;         /* ms, and bounds it */
	uint64_t max_tries;       /* failed deliveries, before a message is a dead letter */
	uint64_t open_timeout;    /* ms that a message may be open, before it goes back */
	uint64_t fanout_only;     /* 1: where there are children they alone get what is pushed */
	uint64_t delay;           /* ms from a push until the message may be delivered */
	uint64_t status;          /* enum config_status */
	uint64_t max_queues;      /* that may be made; who is there stays */
	/* Encoded names of queues; "": none is set. */
	char expire_to[QUEUE_NAME_MAX + 1];   /* where what has expired goes, rather than away */
	char dead_letter[QUEUE_NAME_MAX + 1]; /* where dead letters go */
};
#define CONFIG_KEYS 16
#define CONFIG_DELAY_MAX 315360000 /* seconds: ten years */
#define CONFIG_QUEUES 10000 /* as many as the tests make, and a stranger shall not make a million */
#define CONFIG_OPEN_MAX 32  /* messages that a connection holds open, of all queues together */

enum config_kind {
	CONFIG_COUNT,      /* digits */
	CONFIG_SIZE,       /* bytes: digits, and k, m or g */
	CONFIG_TIME,       /* milliseconds: digits and ms, s, m, h or d; 0 needs none */
	CONFIG_YES_NO,     /* 1 or 0: yes or no */
	CONFIG_STATUS,     /* enum config_status: up, readonly or quiescent */
	CONFIG_QUEUE_NAME, /* as `ls` shows it or as a client has it; none of it for a number */
};

/* Read a value that is a number. Returns 0 and sets *value; -1 if it is none of that kind, or too
 * large. */
int config_value(enum config_kind kind, const char *text, uint64_t *value);

/* The word for a status. */
const char *config_status_name(uint64_t status);

/* Whose file: some keys belong to the spool alone. */
enum config_scope { CONFIG_SPOOL, CONFIG_QUEUE };

/* One file, as it was last read. Zeroed: never looked at, and nothing is set. */
struct config_file {
	bool looked; /* the settings are those of a file, or of its absence */
	bool exists;
	dev_t dev; /* these five say whether it has changed */
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
	int error; /* nothing is known of the settings yet, because of that, which may pass; or 0 */
	unsigned line[CONFIG_KEYS]; /* where each key is set; 0: it is not */
	struct config values;
};

/* Told of each mistake in a file: its line, 0 for the file as a whole, and what is wrong,
 * printable. */
typedef void config_report(void *arg, unsigned line, const char *detail);

/*
 * Look at the file `.config` in directory `dirfd`, and read it if it has changed since the last
 * look. What is no regular file or larger than 64 KiB is a mistake, and is not opened. With a
 * mistake in it the settings stay as they were; at the first look, where there are none yet, the
 * lines without one count. Each is reported once, until the file changes again. Returns how many
 * there were.
 */
unsigned config_look(struct config_file *f, int dirfd, enum config_scope scope,
                     config_report *report, void *arg);

/* What is in force: for each key the queue's value, else the spool's, else the default.
 * `queue` may be NULL. */
void config_merge(struct config *c, const struct config_file *spool,
                  const struct config_file *queue);

/*
 * The names of the keys, from k = 0 on; NULL behind the last. What its value is. And the value of one
 * in `c`, as it would be written in a file, into `text`.
 */
const char *config_key(unsigned k);
enum config_kind config_kind(unsigned k);
#define CONFIG_VALUE_LEN (QUEUE_NAME_MAX + 1) /* with the NUL */
void config_show(const struct config *c, unsigned k, char *text);

/* What the command line of a change says: each of `settings` is "key=value", or "key=". Returns how
 * many of these can be in no file; they are reported, with line 0. */
unsigned config_check(enum config_scope scope, char *const *settings, size_t n,
                      config_report *report, void *arg);

/*
 * Change the file in directory `dirfd` by settings that have passed config_check; "key=" takes the
 * key out. Comments and other lines stay as they are. The file is replaced as a whole, and
 * durably. Returns 0; 1 if it would be left with a mistake, which is reported, and nothing is
 * written; -1 with errno.
 */
int config_edit(int dirfd, enum config_scope scope, char *const *settings, size_t n,
                config_report *report, void *arg);

/* What config_edit leaves if it is killed; the next one removes it. */
#define CONFIG_TEMPORARY ".config.new"

/* Write where a mistake is: "queue/.config:line", without the queue if it is NULL or "", and
 * without the line if that is 0. */
void config_place(char *buf, size_t size, const char *queue, unsigned line);

#endif
