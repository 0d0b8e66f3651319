/* progress.h: long work shows on the terminal how far it is. */
#ifndef MQ_PROGRESS_H
#define MQ_PROGRESS_H

#include <stdint.h>

/*
 * What is being done, and of how many steps it is; 0: nobody knows. One work at a time: a second
 * begin ends the first. The text is copied, and what is not printable ASCII in it is shown as '?'.
 *
 * All of these do nothing, unless standard error is a terminal that can erase what it shows and we
 * are in its foreground.
 */
void progress_begin(const char *what, uint64_t total);

/* So many steps more are done. It may be called for each of millions: what it costs is a look at the
 * clock. It draws ten times a second at the most, and not in the first tenth: what is done by
 * then has not been long work. */
void progress_step(uint64_t n);

/* Take the line away, before something else is written to the terminal, on standard output too;
 * the next step that draws brings it back. It costs nothing where nothing is shown. */
void progress_hide(void);

/* It is over: the line goes. Also before a message that tells why it is. */
void progress_end(void);

#endif
