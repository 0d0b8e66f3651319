/*
 * progress.c: long work shows on the terminal how far it is.
 *
 * One line on standard error, drawn over and over in its place, and taken away at the end. The
 * cursor is left at its beginning: whatever comes next, be it a ^C and a shell's prompt, is
 * written over it. Where the line could not be erased, or nobody looks, nothing is written: no
 * terminal, a dumb one, one that another job has in its foreground.
 */
#include "progress.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os.h"
#include "terminal.h"

#define EVERY_MS 100
#define BAR_MAX 40   /* columns */
#define LEFT_MAX 1e9 /* seconds */

static struct {
	char what[64];
	uint64_t total, done;
	uint64_t began, drawn; /* os_monotonic_ms */
	bool on, shown;
} work;

void
progress_begin(const char *what, uint64_t total)
{
	size_t n = 0;

	progress_end();
	while (n < sizeof work.what - 1 && what[n] != '\0') {
		work.what[n] = what[n] >= ' ' && what[n] <= '~' ? what[n] : '?';
		n++;
	}
	work.what[n] = '\0';
	work.total = total;
	work.done = 0;
	work.began = work.drawn = os_monotonic_ms();
	work.on = terminal_can_draw(STDERR_FILENO);
}

/* "  3 m 20 s left", or "" as long as nothing can be told of it. */
static void
write_left(char *text, size_t room, uint64_t ms)
{
	double left =
	    work.done == 0 || work.done > work.total
	        ? 0
	        : (double)ms / (double)work.done * (double)(work.total - work.done) / 1000;
	uint64_t s = left < LEFT_MAX ? (uint64_t)left : 0; /* a total may be anything */

	text[0] = '\0';
	if (s >= 3600)
		snprintf(text, room, "  %" PRIu64 " h %" PRIu64 " m left", s / 3600, s % 3600 / 60);
	else if (s >= 60)
		snprintf(text, room, "  %" PRIu64 " m %" PRIu64 " s left", s / 60, s % 60);
	else if (s > 0)
		snprintf(text, room, "  %" PRIu64 " s left", s);
}

static void
draw(uint64_t now)
{
	uint64_t ms = now - work.began, done = work.done;
	uint64_t rate = ms == 0 ? 0 : (uint64_t)((double)done * 1000 / (double)ms);
	char numbers[128], left[48] = "", line[256], bar[BAR_MAX + 1] = "";
	unsigned columns, rows;
	int n;

	terminal_size(STDERR_FILENO, &columns, &rows);
	if (work.total == 0) {
		snprintf(numbers, sizeof numbers, "%" PRIu64 "  %" PRIu64 "/s", done, rate);
		n = snprintf(line, sizeof line, "%s  %s", work.what, numbers);
	} else {
		/* More than was thought are no more than all. */
		double part = done < work.total ? (double)done / (double)work.total : 1;
		write_left(left, sizeof left, ms);
		snprintf(numbers, sizeof numbers,
		         "%3.0f%%  %" PRIu64 " of %" PRIu64 "  %" PRIu64 "/s%s", part * 100, done,
		         work.total, rate, left);
		size_t others = strlen(work.what) + strlen(numbers) + 7; /* blanks, brackets */
		size_t width = columns > others ? columns - others : 0;
		width = width > BAR_MAX ? BAR_MAX : width;
		memset(bar, ' ', width);
		memset(bar, '=', (size_t)(part * (double)width));
		n = snprintf(line, sizeof line, "%s  [%s]  %s", work.what, bar, numbers);
	}
	/* In the last column some terminals go to the next line. */
	if (n < 0 || (size_t)n >= sizeof line)
		n = sizeof line - 1;
	if (columns > 0 && (unsigned)n >= columns)
		n = (int)columns - 1;
	fprintf(stderr, "\r%.*s\033[K\r", n, line);
	work.shown = true;
}

void
progress_step(uint64_t n)
{
	work.done += n;
	if (!work.on)
		return;
	uint64_t now = os_monotonic_ms();
	if (now < work.drawn + EVERY_MS)
		return;
	work.drawn = now;
	if (terminal_is_ours(STDERR_FILENO)) {
		fflush(stdout); /* what came before it on the same terminal */
		draw(now);
	} else {
		work.shown = false; /* what another has drawn since is not ours to erase */
	}
}

void
progress_hide(void)
{
	if (work.shown)
		fputs("\r\033[K", stderr);
	work.shown = false;
}

void
progress_end(void)
{
	progress_hide();
	work.on = false;
}
