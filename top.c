/*
 * top.c: mqctl top: how the queues stand, on a screen that is drawn again each second.
 *
 * To look at a queue costs a lock and some system calls, so of thousands of queues each second only
 * those are looked at that can have changed: what is on the screen, what had messages on their way or
 * processes waiting, and those whose .state was written since, which a look at its times tells for a
 * small part of the price. The others have their turn some seconds later, and all of that stops when it
 * has taken a quarter of the time: then the next refresh goes on where this one ended. Nothing is kept
 * but the counters of the last look, and how many messages waited at the last refreshes.
 *
 * A frame is made in memory, line by line, each cut where the screen ends, and written at once.
 * Without a terminal, or with a dumb one, the same is printed as plain lines, frame after frame.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "list.h"
#include "mqctl.h"
#include "number.h"
#include "os.h"
#include "terminal.h"

#define EVERY_MS 1000 /* a refresh, unless -d says otherwise */
#define EVERY_MIN 100
#define STALE_MS 10000 /* after which a queue is looked at, whatever its .state says */
#define ALWAYS 50      /* queues that a refresh looks at in any case, where there is no screen */
#define HISTORY 40     /* refreshes */
#define NAME_MIN 10    /* columns, if there is room for any other */
#define DEPTH_MIN 8
#define FILTER_MAX 64 /* bytes */

struct row {
	char *name;
	struct queue_stat st; /* at the last look */
	uint64_t looked;      /* when that was, os_monotonic_ms; 0: never */
	double in, out;       /* messages a second, between the last two looks; -1: not known */
	int error;            /* the last look failed */
	bool shown;           /* in the last frame */
	ino_t ino;            /* of .state, and its time of modification, at the last look */
	struct timespec mtime;
	uint64_t born; /* the refresh in which we saw it first */
	uint64_t depth[HISTORY];
};

static struct {
	struct spool *spool;
	struct row **rows; /* by name */
	size_t n;
	size_t turn;         /* who is the next to be looked at */
	uint64_t refreshes;  /* so far */
	struct timespec dir; /* the spool's time of modification when its queues were listed */
	uint64_t every;      /* ms */
	struct row **view;   /* those to be shown, in the order of the screen */
	size_t nview;
	/* Of all of them. */
	uint64_t waiting, open, getters;
	double in, out;
} top;

/*
 * Looking at the queues
 */

static struct row *
new_row(const char *name)
{
	struct row *r = calloc(1, sizeof *r);

	if (r == NULL || (r->name = strdup(name)) == NULL)
		die_system("the list of queues");
	r->in = r->out = -1;
	r->born = top.refreshes;
	return r;
}

static void
free_row(struct row *r)
{
	free(r->name);
	free(r);
}

static bool
same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* List the queues, if some may have been made or removed, and keep what is known of the others. */
static void
list_queues(void)
{
	int fd = spool_dirfd(top.spool);
	struct stat st;

	if (fd == -1 || fstat(fd, &st) == -1)
		die_system(spool_path);
	if (top.rows != NULL && same_time(st.st_mtim, top.dir))
		return;
	/* Before the listing: what is made meanwhile is found next time. */
	top.dir = st.st_mtim;
	char **names = spool_list(top.spool);
	if (names == NULL)
		die_system(spool_path);
	size_t n = 0, old = 0;
	while (names[n] != NULL)
		n++;
	struct row **rows = calloc(n + 1, sizeof(struct row *));
	struct row **view = realloc(top.view, (n + 1) * sizeof(struct row *));
	if (rows == NULL || view == NULL)
		die_system("the list of queues");
	for (size_t i = 0; i < n; i++) {
		while (old < top.n && strcmp(top.rows[old]->name, names[i]) < 0)
			free_row(top.rows[old++]);
		if (old < top.n && strcmp(top.rows[old]->name, names[i]) == 0)
			rows[i] = top.rows[old++];
		else
			rows[i] = new_row(names[i]);
	}
	while (old < top.n)
		free_row(top.rows[old++]);
	spool_list_free(names);
	free(top.rows);
	top.rows = rows;
	top.n = n;
	top.view = view;
	top.nview = 0;
}

static double
rate(uint64_t was, uint64_t is, uint64_t ms)
{
	/* A queue that was removed and made anew counts from 0. */
	return is < was ? 0 : (double)(is - was) * 1000 / (double)ms;
}

static void
look_at(struct row *r)
{
	struct queue_stat was = r->st;
	uint64_t now, before = r->looked;
	char path[QUEUE_NAME_MAX + 16];
	struct stat st;
	int found = spool_stat(top.spool, r->name, &r->st);

	r->error = found == -1 ? errno : 0;
	now = os_monotonic_ms();
	if (found != 1) {
		r->st = (struct queue_stat){0};
		r->in = r->out = -1;
		r->looked = found == 0 ? 0 : now;
		return;
	}
	if (before != 0 && now > before) {
		r->in = rate(was.put, r->st.put, now - before);
		r->out = rate(was.taken, r->st.taken, now - before);
	}
	r->looked = now == 0 ? 1 : now;
	/* What is written between the look and this is found when its turn comes. */
	snprintf(path, sizeof path, "%s/.state", r->name);
	if (fstatat(spool_dirfd(top.spool), path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		r->ino = st.st_ino;
		r->mtime = st.st_mtim;
	}
}

/* Can it stand otherwise than at the last look? */
static bool
may_differ(const struct row *r)
{
	char path[QUEUE_NAME_MAX + 16];
	struct stat st;

	if (r->looked == 0 || r->shown || r->st.in_flight > 0 || r->st.waiters > 0 ||
	    r->st.delayed > 0 || r->st.paused_ms > 0)
		return true;
	snprintf(path, sizeof path, "%s/.state", r->name);
	return fstatat(spool_dirfd(top.spool), path, &st, AT_SYMLINK_NOFOLLOW) == -1 ||
	       st.st_ino != r->ino || !same_time(st.st_mtim, r->mtime);
}

/* Nothing came and nothing went since the last look, as far as may_differ can see. */
static void
stands_still(struct row *r)
{
	r->in = r->out = 0;
}

static void
refresh(void)
{
	uint64_t began = os_monotonic_ms(), left = top.every / 4, stale;
	size_t i;

	list_queues();
	/* Not all at once, although they were when we began. */
	stale = top.n * top.every / STALE_MS + 1;
	top.refreshes++;
	for (i = 0; i < top.n; i++)
		if (top.rows[i]->shown)
			look_at(top.rows[i]);
	if (top.turn >= top.n)
		top.turn = 0;
	/* The first time all of them: what stands highest shall be seen. */
	for (i = 0; i < top.n; i++) {
		struct row *r = top.rows[(top.turn + i) % top.n];
		uint64_t now = os_monotonic_ms();
		if (top.refreshes > 1 && now - began > left)
			break;
		if (r->looked >= began && r->looked != 0)
			continue;
		bool old = r->looked != 0 && now - r->looked >= STALE_MS && stale > 0;
		stale -= old;
		if (old || may_differ(r))
			look_at(r);
		else
			stands_still(r);
	}
	top.turn = top.n == 0 ? 0 : (top.turn + i) % top.n;
	top.waiting = top.open = top.getters = 0;
	top.in = top.out = 0;
	for (i = 0; i < top.n; i++) {
		struct row *r = top.rows[i];
		r->depth[top.refreshes % HISTORY] = r->st.waiting;
		top.waiting += r->st.waiting;
		top.open += r->st.in_flight;
		top.getters += r->st.waiters;
		top.in += r->in > 0 ? r->in : 0;
		top.out += r->out > 0 ? r->out : 0;
	}
}

/*
 * Columns, and the order that they can give
 */

enum column { NAME, WAITING, IN, OUT, OLDEST, OPEN, GETTERS, COLUMNS };

/* In the order of the screen. With less room those of the highest rank are left out first. */
static const struct {
	const char *heading;
	int width;
	unsigned rank;
} columns[COLUMNS] = {
    [NAME] = {"QUEUE", NAME_MIN, 0}, [WAITING] = {"WAITING", 7, 1}, [IN] = {"IN/s", 6, 3},
    [OUT] = {"OUT/s", 6, 4},         [OLDEST] = {"OLDEST", 6, 2},   [OPEN] = {"OPEN", 5, 5},
    [GETTERS] = {"GETTERS", 7, 6},
};

static struct {
	enum column by;
	bool reversed;
	char filter[FILTER_MAX + 1];
} order = {.by = WAITING};

/* What stands higher on the screen has more of it. */
static double
weight(const struct row *r)
{
	switch (order.by) {
	case WAITING:
		return (double)r->st.waiting;
	case IN:
		return r->in;
	case OUT:
		return r->out;
	case OLDEST:
		return r->st.oldest == 0 ? -1e18 : -(double)r->st.oldest;
	case OPEN:
		return (double)r->st.in_flight;
	case GETTERS:
		return (double)r->st.waiters;
	case NAME:
	case COLUMNS:
		break;
	}
	return 0;
}

static int
by_order(const void *a, const void *b)
{
	const struct row *x = *(struct row *const *)a, *y = *(struct row *const *)b;
	double wx = weight(x), wy = weight(y);
	int c = wx != wy ? (wx < wy) - (wx > wy) : strcmp(x->name, y->name);

	/* Those that are alike are in the order of their names both ways. */
	return order.reversed && (wx != wy || order.by == NAME) ? -c : c;
}

static bool
passes(const struct row *r)
{
	char name[QUEUE_NAME_MAX + 1];

	return strstr(r->name, order.filter) != NULL ||
	       (queue_name_decode(r->name, name) != -1 && strstr(name, order.filter) != NULL);
}

static void
make_view(void)
{
	top.nview = 0;
	for (size_t i = 0; i < top.n; i++)
		if (top.rows[i]->looked != 0 && passes(top.rows[i]))
			top.view[top.nview++] = top.rows[i];
	if (top.nview > 1)
		qsort(top.view, top.nview, sizeof(struct row *), by_order);
}

/* In at most `width` characters, which are five or more. */
static void
write_count(char *text, size_t room, int width, double n)
{
	static const char units[] = "kMGTPE";
	double most = 1;
	size_t unit = 0;

	for (int i = 0; i < width; i++)
		most *= 10;
	if (n < 0) {
		snprintf(text, room, "-");
	} else if (n < most - 0.5) {
		snprintf(text, room, n > 0 && n < 9.95 && n != (double)(int)n ? "%.1f" : "%.0f", n);
	} else {
		for (n /= 1000; n >= 9999.5 && units[unit + 1] != '\0'; unit++)
			n /= 1000;
		snprintf(text, room, "%.0f%c", n, units[unit]);
	}
}

static void
write_cell(char *text, size_t room, enum column column, const struct row *r)
{
	char age[LIST_AGE_LEN];
	int width = columns[column].width;

	switch (column) {
	case WAITING:
		write_count(text, room, width, (double)r->st.waiting);
		break;
	case IN:
		write_count(text, room, width, r->in);
		break;
	case OUT:
		write_count(text, room, width, r->out);
		break;
	case OLDEST:
		list_age(age, r->st.oldest);
		snprintf(text, room, "%s", age);
		break;
	case OPEN:
		write_count(text, room, width, (double)r->st.in_flight);
		break;
	case GETTERS:
		write_count(text, room, width, (double)r->st.waiters);
		break;
	case NAME:
	case COLUMNS:
		text[0] = '\0';
	}
}

static void
write_notes(char *text, const struct row *r)
{
	if (r->error != 0)
		snprintf(text, LIST_NOTES_LEN, "%s", spool_strerror(r->error));
	else
		list_notes(text, &r->st);
}

/*
 * The screen
 */

enum mode { LISTING, FILTERING, CONFIRMING, HELPING };

static struct {
	enum mode mode;
	bool utf8, colours;
	bool frozen;
	unsigned width, height;
	size_t first;                      /* of the view, in the first line of the list */
	char selected[QUEUE_NAME_MAX + 1]; /* a queue; "": none is */
	bool resume;       /* what is to be confirmed: deliver again, or not any more */
	char message[256]; /* told until the next key */
	FILE *out;         /* the frame */
	unsigned left;     /* columns of the line that is being written */
} screen;

#define REVERSE "\033[7m"
#define BOLD "\033[1m"
#define DIM "\033[2m"
#define PLAIN "\033[m"
#define RED "\033[31m"
#define YELLOW "\033[33m"
#define CYAN "\033[36m"

static void
begin_line(unsigned y)
{
	fprintf(screen.out, "\033[%u;1H" PLAIN "\033[K", y + 1);
	screen.left = screen.width;
}

/* Text that is one column for each byte: as much of it as there is room for. */
__attribute__((format(printf, 1, 2))) static void
put(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	n = n < 0 ? 0 : n < (int)sizeof text ? n : (int)sizeof text - 1;
	n = (unsigned)n > screen.left ? (int)screen.left : n;
	for (int i = 0; i < n; i++)
		putc(text[i] >= ' ' && text[i] <= '~' ? text[i] : '?', screen.out);
	screen.left -= (unsigned)n;
}

static void
put_glyph(const char *glyph)
{
	if (screen.left > 0) {
		fputs(glyph, screen.out);
		screen.left--;
	}
}

/* How it looks from here on; what has a colour looks plain where none is wanted. */
static void
style(const char *sequence)
{
	bool colour = sequence[2] == '3';

	if (!colour || screen.colours)
		fputs(sequence, screen.out);
}

static void
pad(size_t n)
{
	for (; n > 0 && screen.left > 0; n--)
		put(" ");
}

/* A name that is too long loses what is in its middle: how names end matters. */
static void
put_name(const char *name, size_t width)
{
	size_t len = strlen(name), head;

	if (len <= width || width < 5) {
		put("%.*s", (int)width, name);
		pad(len < width ? width - len : 0);
		return;
	}
	head = width / 2;
	put("%.*s", (int)head, name);
	put_glyph(screen.utf8 ? "…" : "~");
	put("%s", name + len - (width - head - 1));
}

/* What there is room for. */
struct layout {
	bool column[COLUMNS];
	size_t name, depth; /* columns for these; depth: 0, it has none */
};

static void
lay_out(struct layout *l, size_t longest)
{
	size_t width = screen.width, used = NAME_MIN;

	*l = (struct layout){.column[NAME] = true, .name = NAME_MIN};
	for (unsigned rank = 1; rank < COLUMNS; rank++)
		for (int c = NAME + 1; c < COLUMNS; c++)
			if (columns[c].rank == rank &&
			    used + 1 + (size_t)columns[c].width <= width) {
				l->column[c] = true;
				used += 1 + (size_t)columns[c].width;
			}
	size_t rest = width > used ? width - used : 0;
	/* However long the names are, half of what is left is for the depth, if it needs it. */
	size_t keep = rest / 2 >= DEPTH_MIN + 2 ? rest / 2 : 0;
	keep = keep > HISTORY + 2 ? HISTORY + 2 : keep;
	size_t more = longest > NAME_MIN ? longest - NAME_MIN : 0;
	more = more > rest - keep ? rest - keep : more;
	l->name = width < NAME_MIN ? width : NAME_MIN + more;
	rest -= more;
	if (rest >= DEPTH_MIN + 2)
		l->depth = rest - 2 > HISTORY ? HISTORY : rest - 2;
}

static void
draw_headings(const struct layout *l)
{
	style(REVERSE);
	for (int c = 0; c < COLUMNS; c++) {
		const char *heading = columns[c].heading;
		if (!l->column[c])
			continue;
		if (c != NAME)
			pad(1 + (size_t)columns[c].width - strlen(heading));
		if (order.by == (enum column)c)
			style(PLAIN BOLD);
		put("%s", heading);
		if (order.by == (enum column)c)
			style(PLAIN REVERSE);
		if (c == NAME)
			pad(l->name > strlen(heading) ? l->name - strlen(heading) : 0);
	}
	if (l->depth > 0)
		put("  DEPTH");
	pad(screen.left);
	style(PLAIN);
}

/* How many waited, the newest at the right end, as bars that are as high as the highest of them. */
static void
draw_depth(const struct row *r, size_t width)
{
	static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	static const char *const signs[] = {" ", "_", ".", "-", "=", "+", "*", "%", "#"};
	uint64_t now = top.refreshes, highest = 1;

	for (size_t i = 0; i < width; i++)
		if (now > r->born + i && r->depth[(now - i) % HISTORY] > highest)
			highest = r->depth[(now - i) % HISTORY];
	for (size_t i = width; i-- > 0;) {
		bool known = now > r->born + i;
		uint64_t depth = known ? r->depth[(now - i) % HISTORY] : 0;
		size_t level = depth == 0 ? 0 : 1 + (size_t)((double)depth * 7 / (double)highest);
		put_glyph((screen.utf8 ? blocks : signs)[level > 8 ? 8 : level]);
	}
}

/* Both share their columns: what there is to say comes first, and the newest is at the right end. */
static void
draw_notes_and_depth(const struct row *r, size_t width, bool selected)
{
	char notes[LIST_NOTES_LEN];

	write_notes(notes, r);
	put("  ");
	if (notes[0] != '\0') {
		if (!selected)
			style(r->error != 0 || r->st.bad > 0 ? RED : YELLOW);
		put("%.*s", (int)width, notes);
		width -= strlen(notes) < width ? strlen(notes) : width;
		if (width > 0)
			put(" ");
		width -= width > 0;
	}
	if (!selected) {
		style(PLAIN);
		style(CYAN);
	}
	draw_depth(r, width);
}

static void
draw_row(const struct row *r, const struct layout *l)
{
	bool selected = strcmp(r->name, screen.selected) == 0;
	char text[64];

	if (selected)
		style(REVERSE);
	if (r->error != 0)
		style(RED);
	else if (r->st.paused_ms > 0)
		style(YELLOW);
	put_name(r->name, l->name);
	for (int c = NAME + 1; c < COLUMNS; c++) {
		if (!l->column[c])
			continue;
		write_cell(text, sizeof text, (enum column)c, r);
		if (c == OLDEST && l->depth == 0 && r->st.paused_ms > 0)
			strcpy(text, "paused"); /* there is no other place */
		/* Where nothing happens nothing shall catch the eye. */
		bool quiet = strcmp(text, "0") == 0 || strcmp(text, "-") == 0;
		pad(1 + (size_t)columns[c].width - strlen(text));
		if (quiet && !selected)
			style(DIM);
		put("%s", text);
		if (quiet && !selected)
			style(PLAIN);
	}
	if (!selected)
		style(PLAIN);
	if (l->depth > 0)
		draw_notes_and_depth(r, l->depth, selected);
	if (selected)
		pad(screen.left);
}

static void
draw_summary(void)
{
	char in[32], out[32], clock[16];
	time_t now = time(NULL);
	struct tm tm;

	write_count(in, sizeof in, 9, top.in);
	write_count(out, sizeof out, 9, top.out);
	style(BOLD);
	put("%" PRIu64 " waiting", top.waiting);
	style(PLAIN);
	put(" in %zu queue%s  in %s/s  out %s/s  %" PRIu64 " open  %" PRIu64 " getter%s", top.n,
	    top.n == 1 ? "" : "s", in, out, top.open, top.getters, top.getters == 1 ? "" : "s");
	if (screen.frozen) {
		put("  ");
		style(REVERSE);
		put(" FROZEN ");
		style(PLAIN);
	}
	if (localtime_r(&now, &tm) == NULL || strftime(clock, sizeof clock, "%H:%M:%S", &tm) == 0)
		return;
	size_t path = strlen(spool_path);
	style(DIM);
	if (screen.left >= path + strlen(clock) + 4) {
		pad(screen.left - path - strlen(clock) - 2);
		put("%s  %s", spool_path, clock);
	} else if (screen.left >= strlen(clock) + 2) {
		pad(screen.left - strlen(clock));
		put("%s", clock);
	}
}

static void
draw_foot(void)
{
	switch (screen.mode) {
	case FILTERING:
		style(BOLD);
		put("filter: %s", order.filter);
		style(REVERSE);
		put(" ");
		break;
	case CONFIRMING:
		style(REVERSE);
		put(" y/n ");
		style(PLAIN);
		put(" %s ", screen.resume ? "deliver again from" : "deliver nothing from");
		put_name(screen.selected, strlen(screen.selected) > screen.left
		                              ? screen.left
		                              : strlen(screen.selected));
		break;
	case LISTING:
	case HELPING:
		if (screen.message[0] != '\0') {
			style(BOLD);
			put("%s", screen.message);
			break;
		}
		if (order.filter[0] != '\0') {
			style(BOLD);
			put("filter: %s  ", order.filter);
			style(PLAIN);
		}
		style(DIM);
		put("q quit  < > sort  r reverse  / filter  space freeze  p pause delivery  ? "
		    "help");
	}
}

/* The row that is selected, as its place in the view; none: the end of it. */
static size_t
find_selected(void)
{
	size_t i = 0;

	while (i < top.nview && strcmp(top.view[i]->name, screen.selected) != 0)
		i++;
	return screen.selected[0] == '\0' ? top.nview : i;
}

/* Lines of the list, between one of totals, one of headings, and one of keys, which give way. */
static unsigned
list_height(void)
{
	return screen.height > 3 ? screen.height - 3 : 1;
}

static void
scroll(void)
{
	size_t at = find_selected(), height = list_height();

	if (at < top.nview) {
		if (at < screen.first)
			screen.first = at;
		if (at >= screen.first + height)
			screen.first = at - height + 1;
	} else if (screen.selected[0] == '\0') {
		screen.first = 0;
	}
	if (top.nview <= height)
		screen.first = 0;
	else if (screen.first > top.nview - height)
		screen.first = top.nview - height;
}

static void
draw_list(unsigned from, unsigned to)
{
	size_t longest = 0;
	struct layout l;
	unsigned y = from;

	for (size_t i = 0; i < top.n; i++)
		top.rows[i]->shown = false;
	for (size_t i = 0; i < top.nview; i++)
		if (strlen(top.view[i]->name) > longest)
			longest = strlen(top.view[i]->name);
	scroll();
	lay_out(&l, longest);
	if (from > 0) {
		begin_line(from - 1);
		draw_headings(&l);
	}
	for (size_t i = screen.first; i < top.nview && y < to; i++, y++) {
		begin_line(y);
		draw_row(top.view[i], &l);
		top.view[i]->shown = true;
	}
	for (bool first = y == from; y < to; y++, first = false) {
		begin_line(y);
		if (first)
			put("%s", top.n == 0 ? "There are no queues." : "No queue matches.");
	}
}

static const char *const help[] = {
    "arrows, page keys   select a queue; the list follows it",
    "Escape              select none, filter nothing",
    "< >, left, right    sort by the column before, or behind",
    "r                   the other way round",
    "/                   show only queues whose names contain what is typed",
    "space               freeze what is shown; go on",
    "p                   deliver nothing from the selected queue, or again;",
    "                    asks before it does so (mqctl pause, resume)",
    "q                   quit",
    "",
    "IN/s OUT/s  messages that came in, and left on whatever way",
    "OLDEST      how long ago the oldest that waits came in",
    "OPEN        messages on their way to a client",
    "GETTERS     processes that wait for a message",
    "DEPTH       how many waited at the last refreshes, the newest to the right;",
    "            each bar is relative to the highest",
    "",
    "Any key leads back.",
};

static void
draw_help(unsigned from, unsigned to)
{
	for (unsigned y = from; y < to; y++) {
		begin_line(y);
		if (y - from < sizeof help / sizeof help[0])
			put("%s", help[y - from]);
	}
}

static void
draw(void)
{
	char *frame = NULL;
	size_t len = 0;

	terminal_size(STDOUT_FILENO, &screen.width, &screen.height);
	screen.out = open_memstream(&frame, &len);
	if (screen.out == NULL)
		die_system("drawing");
	unsigned from = screen.height > 3 ? 2 : screen.height > 1 ? 1 : 0;
	unsigned to = screen.height > 3 ? screen.height - 1 : screen.height;
	/* A question must be seen. */
	if (screen.height > 1 && to == screen.height &&
	    (screen.mode == FILTERING || screen.mode == CONFIRMING))
		to--;
	make_view();
	if (from == 2) {
		begin_line(0);
		draw_summary();
	}
	if (screen.mode == HELPING)
		draw_help(from == 2 ? 1 : 0, to);
	else
		draw_list(from, to);
	if (to < screen.height) {
		begin_line(screen.height - 1);
		draw_foot();
	}
	fputs(PLAIN, screen.out);
	if (fclose(screen.out) == EOF)
		die_system("drawing");
	terminal_write(frame, len); /* if that fails terminal_key tells why */
	free(frame);
}

/*
 * Keys
 */

__attribute__((format(printf, 1, 2))) static void
tell(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(screen.message, sizeof screen.message, format, args);
	va_end(args);
}

/* A spool_report: nothing may be printed on our screen. */
static void
tell_mistake(const char *what, const char *path, const char *detail)
{
	tell("%s %s: %s", what, path, detail);
}

static void
select_row(int key)
{
	size_t at = find_selected(), page = list_height();

	if (top.nview == 0)
		return;
	if (key == KEY_HOME || at == top.nview)
		at = key == KEY_END ? top.nview - 1 : screen.first;
	else if (key == KEY_UP)
		at -= at > 0;
	else if (key == KEY_DOWN)
		at++;
	else if (key == KEY_PAGE_UP)
		at -= at < page ? at : page;
	else if (key == KEY_PAGE_DOWN)
		at += page;
	else
		at = top.nview - 1;
	if (key == KEY_HOME)
		at = 0;
	if (at >= top.nview)
		at = top.nview - 1;
	strcpy(screen.selected, top.view[at]->name);
}

static void
pause_selected(void)
{
	struct queue_stat st;
	int r = spool_stat(top.spool, screen.selected, &st);

	/* It must not be made by this. */
	if (r == 1)
		r = spool_pause(top.spool, screen.selected, screen.resume ? 0 : SPOOL_FOREVER) == 0
		        ? 1
		        : -1;
	if (r == 1)
		tell("%s: %s", screen.selected,
		     screen.resume ? "delivers again" : "delivers nothing until it is resumed");
	else
		tell("%s: %s", screen.selected, r == 0 ? "no such queue" : spool_strerror(errno));
	for (size_t i = 0; i < top.nview; i++)
		if (strcmp(top.view[i]->name, screen.selected) == 0)
			look_at(top.view[i]);
}

static void
ask_pause(void)
{
	size_t at = find_selected();

	if (at == top.nview) {
		tell("Select a queue with the arrow keys first.");
		return;
	}
	screen.resume = top.view[at]->st.paused_ms > 0;
	screen.mode = CONFIRMING;
}

static void
filter_key(int key)
{
	size_t len = strlen(order.filter);

	if (key == '\r' || key == '\n') {
		screen.mode = LISTING;
	} else if (key == KEY_ESCAPE) {
		order.filter[0] = '\0';
		screen.mode = LISTING;
	} else if (key == 127 || key == '\b') {
		/* A whole character, where that is several bytes. */
		while (len > 0 && ((unsigned char)order.filter[len - 1] & 0xC0) == 0x80)
			len--;
		order.filter[len > 0 ? len - 1 : 0] = '\0';
	} else if (key >= ' ' && key < KEY_UP && len < FILTER_MAX) {
		order.filter[len] = (char)key;
		order.filter[len + 1] = '\0';
	}
}

/* Returns false: that was the last one. */
static bool
list_key(int key)
{
	switch (key) {
	case 'q':
		return false;
	case KEY_LEFT:
	case '<':
		order.by = order.by == 0 ? COLUMNS - 1 : order.by - 1;
		break;
	case KEY_RIGHT:
	case '>':
		order.by = (order.by + 1) % COLUMNS;
		break;
	case 'r':
		order.reversed = !order.reversed;
		break;
	case '/':
		screen.mode = FILTERING;
		break;
	case ' ':
		screen.frozen = !screen.frozen;
		break;
	case 'p':
		ask_pause();
		break;
	case '?':
	case 'h':
		screen.mode = HELPING;
		break;
	case 'k':
		select_row(KEY_UP);
		break;
	case 'j':
		select_row(KEY_DOWN);
		break;
	case KEY_ESCAPE:
		screen.selected[0] = order.filter[0] = '\0';
		break;
	case KEY_UP:
	case KEY_DOWN:
	case KEY_PAGE_UP:
	case KEY_PAGE_DOWN:
	case KEY_HOME:
	case KEY_END:
		select_row(key);
		break;
	default:
		break;
	}
	return true;
}

static bool
serve_key(int key)
{
	screen.message[0] = '\0';
	switch (screen.mode) {
	case FILTERING:
		filter_key(key);
		return true;
	case CONFIRMING:
		screen.mode = LISTING;
		if (key == 'y')
			pause_selected();
		return true;
	case HELPING:
		screen.mode = LISTING;
		return true;
	case LISTING:
		break;
	}
	return list_key(key);
}

/* Returns when somebody wants to quit, or nobody is there any more. */
static void
show_screen(uint64_t count)
{
	const char *no_color = getenv("NO_COLOR");

	screen.utf8 = terminal_is_utf8();
	screen.colours = no_color == NULL || no_color[0] == '\0';
	spool_on_mistake(top.spool, tell_mistake);
	refresh();
	if (terminal_enter() == -1)
		die_system("the terminal");
	for (uint64_t n = 1, next = os_monotonic_ms() + top.every;; next += top.every) {
		int key = KEY_NONE;
		do {
			if (key != KEY_NONE && key != KEY_REDRAW && !serve_key(key))
				return;
			draw();
			key = terminal_key(next);
			if (key == KEY_GONE)
				return;
		} while (key != KEY_NONE);
		if (count != 0 && n++ >= count)
			return;
		uint64_t now = os_monotonic_ms();
		if (now > next + top.every) /* we were stopped */
			next = now;
		if (!screen.frozen)
			refresh();
	}
}

/*
 * Without a screen
 */

static void
print_frame(void)
{
	char text[64], in[32], out[32], notes[LIST_NOTES_LEN], date[32];
	int width = NAME_MIN;
	time_t now = time(NULL);
	struct tm tm;

	make_view();
	for (size_t i = 0; i < top.nview; i++)
		if ((int)strlen(top.view[i]->name) > width)
			width = (int)strlen(top.view[i]->name);
	write_count(in, sizeof in, 9, top.in);
	write_count(out, sizeof out, 9, top.out);
	if (localtime_r(&now, &tm) == NULL ||
	    strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		date[0] = '\0';
	printf("%s  %" PRIu64 " waiting in %zu queues  in %s/s  out %s/s  %" PRIu64
	       " open  %" PRIu64 " getters\n",
	       date, top.waiting, top.n, in, out, top.open, top.getters);
	printf("%-*s", width, "QUEUE");
	for (int c = NAME + 1; c < COLUMNS; c++)
		printf(" %*s", columns[c].width, columns[c].heading);
	putchar('\n');
	for (size_t i = 0; i < top.n; i++)
		top.rows[i]->shown = false;
	for (size_t i = 0; i < top.nview; i++) {
		top.view[i]->shown = i < ALWAYS;
		printf("%-*s", width, top.view[i]->name);
		for (int c = NAME + 1; c < COLUMNS; c++) {
			write_cell(text, sizeof text, (enum column)c, top.view[i]);
			printf(" %*s", columns[c].width, text);
		}
		write_notes(notes, top.view[i]);
		printf("%s%s\n", notes[0] != '\0' ? "  " : "", notes);
	}
}

/* Returns when `count` frames were printed (0: never), or nobody reads any more. */
static void
print_frames(uint64_t count)
{
	struct pollfd reader = {.fd = STDOUT_FILENO}; /* says so although nothing is asked of it */
	uint64_t next = os_monotonic_ms();

	for (uint64_t n = 1;; n++) {
		refresh();
		if (n > 1)
			putchar('\n');
		print_frame();
		if (fflush(stdout) == EOF || (count != 0 && n >= count))
			return;
		next += top.every;
		for (uint64_t now; (now = os_monotonic_ms()) < next;)
			if (poll(&reader, 1, (int)(next - now)) == 1)
				return;
	}
}

static uint64_t
every_arg(const char *arg)
{
	uint64_t ms;

	if (number_parse(arg, strlen(arg), 86400, &ms) == 0)
		ms *= 1000;
	else if (config_value(CONFIG_TIME, arg, &ms) == -1 || ms > 86400000)
		die(EXIT_USAGE, "top: %s: not a time such as 2, 500ms or 1m", arg);
	if (ms < EVERY_MIN)
		die(EXIT_USAGE, "top: %s: more often than each %d ms", arg, EVERY_MIN);
	return ms;
}

int
cmd_top(struct spool *sp, int argc, char *argv[])
{
	bool batch = !isatty(STDIN_FILENO) || !terminal_can_draw(STDOUT_FILENO);
	uint64_t count = 0;

	top.spool = sp;
	top.every = EVERY_MS;
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "-b") == 0)
			batch = true;
		else if (strcmp(argv[i], "-n") == 0 && i + 1 < argc)
			count = number_arg(argv[++i]);
		else if (strcmp(argv[i], "-d") == 0 && i + 1 < argc)
			top.every = every_arg(argv[++i]);
		else
			die(EXIT_USAGE, "top: -b, -n count, -d time");
	}
	if (batch)
		print_frames(count);
	else
		show_screen(count);
	terminal_leave();
	return 0;
}
