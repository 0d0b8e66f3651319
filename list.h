/* list.h: how a queue stands and what is in a message, in the words and columns that all of mqctl's
 * listings share. */
#ifndef MQ_LIST_H
#define MQ_LIST_H

#include <stdint.h>

#include "json.h"
#include "spool.h"

/* How long ago that second was, "-" if it is 0: into `text` of LIST_AGE_LEN bytes. */
#define LIST_AGE_LEN 32
void list_age(char *text, int64_t since);

/* What is known of a queue but needs no column, "" if there is none: into LIST_NOTES_LEN bytes. */
#define LIST_NOTES_LEN 96
void list_notes(char *text, const struct queue_stat *st);

/* One line for a message that spool_look has opened. */
void list_message(const struct claim *c);

/* How a queue stands, as one element of an array. */
void list_queue_json(struct json *j, const char *queue, const struct queue_stat *st);

#endif
