/*
 * terminal.c: what a terminal can show, and a program that has all of its screen.
 *
 * No library knows the terminals for us, and none needs to: what is written here every terminal
 * understands that is not called dumb.
 *
 * Whoever has the screen must give it back, however he ends. The handlers of signals only take note;
 * terminal_key, in which such a program spends its time, waits with pselect, so that no
 * signal comes between the look at the notes and the sleep, and does what is to be done: gives the
 * screen back, and lets the signal do what it does to any process.
 */
#include "terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <termios.h>
#include <unistd.h>

#include "os.h"

#define ESCAPE_MS 50 /* what comes later was not sent by the same key */
#define LEAVE_MS 200 /* for a terminal that shows nothing more */

bool
terminal_can_draw(int fd)
{
	const char *term = getenv("TERM");

	return isatty(fd) && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}

/* setlocale would need the locale's files, which a static libc does not find. */
bool
terminal_is_utf8(void)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const char *value = getenv(names[i]);
		const char *dot = value == NULL ? NULL : strchr(value, '.');
		if (value != NULL && value[0] != '\0')
			return dot != NULL && (strncasecmp(dot, ".utf-8", 6) == 0 ||
			                       strncasecmp(dot, ".utf8", 5) == 0);
	}
	return false;
}

bool
terminal_is_ours(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

void
terminal_size(int fd, unsigned *columns, unsigned *rows)
{
	struct winsize size;

	*columns = 80;
	*rows = 24;
	if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
		*columns = size.ws_col;
		*rows = size.ws_row;
	}
}

/*
 * The whole screen
 */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
#define ENDINGS (sizeof ending / sizeof ending[0])

static struct termios before;
static bool entered;
static sigset_t outside; /* the signals that were blocked before we came */
static volatile sig_atomic_t end_signal, stop_signal, redraw;

static void
note_signal(int sig)
{
	if (sig == SIGTSTP)
		stop_signal = sig;
	else if (sig == SIGWINCH || sig == SIGCONT)
		redraw = 1;
	else
		end_signal = sig;
}

/* Another page, without a cursor, and lines that are too long are cut. */
static const char enter_text[] = "\033[?1049h\033[?25l\033[?7l";
static const char leave_text[] = "\033[m\033[?7h\033[?25h\033[?1049l";

static int
take_screen(void)
{
	struct termios raw = before;

	/* ^S would stop us in the middle of a frame, deaf to every signal. */
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	raw.c_iflag &= ~(tcflag_t)IXON;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) == -1)
		return -1;
	entered = true;
	return terminal_write(enter_text, sizeof enter_text - 1);
}

/* Can something be written now, or soon, without waiting for whoever shows it? */
static bool
can_write(long ms)
{
	struct timeval timeout = {.tv_usec = ms * 1000};
	fd_set fds;

	FD_ZERO(&fds);
	FD_SET(STDOUT_FILENO, &fds);
	return select(STDOUT_FILENO + 1, NULL, &fds, NULL, &timeout) == 1;
}

void
terminal_leave(void)
{
	if (!entered)
		return;
	entered = false;
	/* Where the terminal has gone both fail, and nobody is there to tell. */
	if (can_write(LEAVE_MS) && write(STDOUT_FILENO, leave_text, sizeof leave_text - 1) == -1)
		errno = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

int
terminal_enter(void)
{
	struct sigaction note = {.sa_handler = note_signal}, was;
	static bool prepared;
	sigset_t ours;

	if (tcgetattr(STDIN_FILENO, &before) == -1)
		return -1;
	if (!prepared) {
		sigemptyset(&ours);
		sigaddset(&ours, SIGTSTP);
		sigaddset(&ours, SIGCONT);
		sigaddset(&ours, SIGWINCH);
		sigaction(SIGTSTP, &note, NULL);
		sigaction(SIGCONT, &note, NULL);
		sigaction(SIGWINCH, &note, NULL);
		for (size_t i = 0; i < ENDINGS; i++) {
			/* As nohup has it. */
			if (sigaction(ending[i], NULL, &was) == -1 || was.sa_handler == SIG_IGN)
				continue;
			sigaddset(&ours, ending[i]);
			sigaction(ending[i], &note, NULL);
		}
		sigprocmask(SIG_BLOCK, &ours, &outside);
		atexit(terminal_leave);
		prepared = true;
	}
	return take_screen();
}

/* Have a signal do what it does where nobody handles it. */
static void
yield_to(int sig)
{
	struct sigaction plain = {.sa_handler = SIG_DFL}, was;
	sigset_t this, mask;

	sigemptyset(&this);
	sigaddset(&this, sig);
	sigaction(sig, &plain, &was);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &this, &mask);
	/* It was ^Z, and we go on. */
	sigprocmask(SIG_SETMASK, &mask, NULL);
	sigaction(sig, &was, NULL);
}

/* What the signals ask for. Returns whether the screen is to be drawn again. */
static bool
serve_signals(void)
{
	if (end_signal != 0) {
		terminal_leave();
		yield_to(end_signal);
		end_signal = 0;
	}
	if (stop_signal != 0) {
		stop_signal = 0;
		terminal_leave();
		yield_to(SIGTSTP);
		redraw = 1;
	}
	if (redraw == 0)
		return false;
	redraw = 0;
	/* After a stop that was none of ours the shell has set the terminal as it likes it. In the
	 * background this stops us. */
	take_screen();
	return true;
}

static unsigned char typed[64];
static size_t ntyped;

/* Wait for more to be typed. KEY_NONE, KEY_GONE, KEY_REDRAW; or KEY_OTHER, and there is more. */
static int
wait_typed(uint64_t until)
{
	for (;;) {
		uint64_t now = os_monotonic_ms(), ms = until > now ? until - now : 0;
		struct timespec timeout = {.tv_sec = (time_t)(ms / 1000),
		                           .tv_nsec = (long)(ms % 1000) * 1000000};
		fd_set fds;
		FD_ZERO(&fds);
		FD_SET(STDIN_FILENO, &fds);
		int n = pselect(STDIN_FILENO + 1, &fds, NULL, NULL, &timeout, &outside);
		if (serve_signals())
			return KEY_REDRAW;
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return n == 0 ? KEY_NONE : KEY_GONE;
		ssize_t got = read(STDIN_FILENO, typed + ntyped, sizeof typed - ntyped);
		if (got == -1 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got <= 0)
			return KEY_GONE;
		ntyped += (size_t)got;
		return KEY_OTHER;
	}
}

static const struct {
	const char *text; /* behind ESC [ or ESC O */
	int key;
} keys[] = {
    {"A", KEY_UP},       {"B", KEY_DOWN},       {"C", KEY_RIGHT}, {"D", KEY_LEFT},
    {"H", KEY_HOME},     {"F", KEY_END},        {"1~", KEY_HOME}, {"4~", KEY_END},
    {"5~", KEY_PAGE_UP}, {"6~", KEY_PAGE_DOWN}, {"7~", KEY_HOME}, {"8~", KEY_END},
};

/* Take the first key of what was typed; 0: it has only begun. */
static int
take_key(void)
{
	size_t len = 1;
	int key = typed[0];

	if (key == KEY_ESCAPE) {
		if (ntyped == 1)
			return 0;
		key = KEY_OTHER; /* with the Alt key, or one that means nothing here */
		len = 2;
		if (typed[1] == '[' || typed[1] == 'O') {
			while (len < ntyped && (typed[len] < '@' || typed[len] > '~'))
				len++;
			if (len == ntyped && len < sizeof typed)
				return 0;
			len = len < ntyped ? len + 1 : len;
			for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
				if (strlen(keys[i].text) == len - 2 &&
				    memcmp(typed + 2, keys[i].text, len - 2) == 0)
					key = keys[i].key;
		}
	} else if (key <= KEY_REDRAW) {
		key = KEY_OTHER;
	}
	ntyped -= len;
	memmove(typed, typed + len, ntyped);
	return key;
}

int
terminal_key(uint64_t until)
{
	int key;

	while (ntyped == 0) {
		key = wait_typed(until);
		if (key != KEY_OTHER)
			return key;
	}
	while ((key = take_key()) == 0) {
		int r = wait_typed(os_monotonic_ms() + ESCAPE_MS);
		if (r == KEY_NONE) { /* the key of that name */
			ntyped = 0;
			return KEY_ESCAPE;
		}
		if (r != KEY_OTHER)
			return r;
	}
	return key;
}

/* A terminal that nobody reads from keeps us here: a signal that ends us must be heard. */
int
terminal_write(const char *text, size_t len)
{
	sigset_t ours;
	ssize_t n = 0;

	sigprocmask(SIG_SETMASK, &outside, &ours); /* also a signal that came before is heard now */
	for (; len > 0 && end_signal == 0; text += n, len -= (size_t)n) {
		n = write(STDOUT_FILENO, text, len);
		if (n == -1 && errno == EAGAIN)
			can_write(100);
		else if (n == -1 && errno != EINTR)
			break;
		if (n == -1)
			n = 0;
	}
	int e = errno;
	sigprocmask(SIG_SETMASK, &ours, NULL);
	errno = e;
	return len > 0 ? -1 : 0;
}
