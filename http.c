/*
 * http.c: answer one HTTP request on standard input, as a service of a super-server: mqctl http.
 *
 * Read the head of a request (http_request.c), look at the spool (glance.c, metrics.c), make all of
 * the answer in memory, so that its length and its status are known, send it, close. The memory has a
 * fixed size, of which only what is written to costs something: a stream that grows as it is written to
 * does not tell in every libc that it could not, and what it holds has a gap then. It can change
 * nothing: it takes no lock, and opens nothing for writing but the fifos of those who wait for a
 * message, which tells whether they are there (wait.c). What else was sent is not looked at.
 *
 *     /                 page.html, which asks for the others
 *     /metrics          for Prometheus
 *     /healthz          200, or 503 and what is wrong, a line each
 *     /queues.json      how the queues stand
 *     /messages/QUEUE   the oldest messages of one; with --bodies alone
 *
 * The page shows what strangers wrote, names and bodies: so it puts them in as text, never as HTML,
 * and the policy sent with it lets nothing run but the one script that bears a random number. Nobody
 * logs in, so the port must not be an open one; and a browser on a machine that can reach it must not
 * be led here by somebody else's name for our address: names other than localhost are refused unless
 * they were given with --host.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "glance.h"
#include "http_request.h"
#include "json.h"
#include "metrics.h"
#include "mqctl.h"
#include "os.h"
#include "page.h"
#include "serve.h"
#include "stats.h"

#define HEAD_MS 10000      /* until the request is there */
#define ALL_S 60           /* until it is answered, however slow the disk or the client */
#define LINGER_MS 1000     /* for the client to read the answer, where it has sent more */
#define LINGER_BYTES 65536 /* of that */
#define BODY_MAX 67108864  /* bytes of an answer: 12,000 queues with the longest names */
#define MESSAGES 10        /* shown of a queue */
#define LOW_PERCENT 1      /* of the disk, below which the spool is not well */

struct options {
	bool bodies;
	int nhosts;
	char **hosts;
};

struct response {
	FILE *out; /* into `body`, of BODY_MAX bytes */
	char *body;
	size_t len;
	int status;
	const char *type;
	char nonce[sizeof PAGE_NONCE]; /* of the page */
};

static const struct {
	int status;
	const char *reason;
} reasons[] = {
    {200, "OK"},
    {400, "Bad Request"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {414, "URI Too Long"},
    {421, "Misdirected Request"},
    {431, "Request Header Fields Too Large"},
    {503, "Service Unavailable"},
    {505, "HTTP Version Not Supported"},
};

static const char *
reason_of(int status)
{
	size_t i = 0;

	while (reasons[i].status != status)
		i++;
	return reasons[i].reason;
}

/* Its text says why. */
__attribute__((format(printf, 3, 4))) static void
answer(struct response *re, int status, const char *format, ...)
{
	va_list args;

	re->status = status;
	va_start(args, format);
	vfprintf(re->out, format, args);
	va_end(args);
}

/*
 * What there is
 */

static void
answer_metrics(struct response *re, const struct metrics *m)
{
	re->type = "text/plain; version=0.0.4; charset=utf-8";
	metrics_print(re->out, m);
}

static void
write_queue(struct json *j, const char *queue, const struct queue_stat *qs)
{
	json_object(j, NULL);
	json_queue(j, queue);
	json_number(j, "waiting", qs->waiting);
	json_number(j, "delayed", qs->delayed);
	json_number(j, "in_flight", qs->in_flight);
	json_number(j, "getters", qs->waiters);
	json_number(j, "put", qs->put);
	json_number(j, "taken", qs->taken);
	json_number(j, "bytes", qs->bytes);
	json_number(j, "oldest_age_ms", qs->age_ms);
	json_bool(j, "paused", qs->paused_ms > 0);
	json_number(j, "redelivered", qs->redelivered);
	json_number(j, "dead", qs->dead);
	json_number(j, "bad", qs->bad);
	json_number(j, "expired", qs->expired);
	json_number(j, "discarded", qs->discarded);
	json_close(j);
}

static void
answer_queues(struct response *re, const struct metrics *m, const struct options *o)
{
	struct json j;

	re->type = "application/json";
	json_begin(&j, re->out);
	json_string(&j, "version", MQD_VERSION);
	json_number(&j, "time", (uint64_t)time(NULL));
	json_string(&j, "status", config_status_name(m->status));
	json_bool(&j, "bodies", o->bodies);
	json_number(&j, "size_bytes", m->size);
	json_number(&j, "available_bytes", m->available);
	json_number(&j, "unreadable_queues", m->unreadable);
	if (m->counted)
		json_number(&j, "connections", stats_connections());
	else
		json_null(&j, "connections");
	json_array(&j, "queues");
	for (size_t i = 0; i < m->n; i++)
		write_queue(&j, m->queues[i], &m->stats[i]);
	json_end(&j);
}

/* The spool is looked at as far as it can be without writing to it. */
static void
answer_health(struct response *re, struct spool *sp, const struct metrics *m)
{
	const char *fault = glance_fault(sp);

	re->status = 503;
	if (fault != NULL)
		fprintf(re->out, "the spool: %s\n", fault);
	if (m->unreadable > 0)
		fprintf(re->out, "%zu queues cannot be read\n", m->unreadable);
	if (m->available < m->size / 100 * LOW_PERCENT)
		fprintf(re->out, "less than %d %% of the disk is free\n", LOW_PERCENT);
	if (m->free_inodes < m->inodes / 100 * LOW_PERCENT)
		fprintf(re->out, "less than %d %% of the inodes are free\n", LOW_PERCENT);
	if (m->logged && m->log.failed)
		fputs("the log has failed\n", re->out);
	if (ftell(re->out) == 0)
		answer(re, 200, "ok, status %s\n", config_status_name(m->status));
}

/* What is cut in the middle of a UTF-8 character would else not be UTF-8. */
static size_t
whole_characters(const char *s, size_t len)
{
	size_t n = len;

	while (n > 0 && len - n < 3 && ((unsigned char)s[n - 1] & 0xc0) == 0x80)
		n--;
	return n > 0 && (unsigned char)s[n - 1] >= 0xc0 ? n - 1 : len;
}

static void
write_message(struct json *j, const struct glance_message *m)
{
	char name[MESSAGE_NAME_LEN + 1];
	bool cut = m->len < m->message.length;

	message_name(name, m->number);
	json_object(j, NULL);
	json_string(j, "number", name);
	json_bool(j, "damaged", m->damaged);
	json_number(j, "age_ms", (uint64_t)m->age_ms);
	if (!m->damaged) {
		json_number(j, "bytes", m->message.length);
		json_number(j, "flags", m->message.flags);
		json_number(j, "tries", m->message.tries);
		json_bytes(j, "body", m->body, cut ? whole_characters(m->body, m->len) : m->len);
		json_bool(j, "cut", cut);
	}
	json_close(j);
}

static void
answer_messages(struct response *re, struct spool *sp, const struct metrics *m, const char *name)
{
	static struct glance_message messages[MESSAGES];
	char queue[QUEUE_NAME_MAX + 1];
	struct json j;
	size_t i = 0;
	unsigned n;

	if (queue_name_read(name, queue) == 0)
		while (i < m->n && strcmp(m->queues[i], queue) != 0)
			i++;
	else
		i = m->n;
	if (i == m->n && m->unreadable > 0) {
		answer(re, 503, "not among the queues that can be looked at\n");
		return;
	}
	int r = i == m->n ? 0 : glance_messages(sp, queue, MESSAGES, messages, &n);
	if (r != 1) {
		if (r == 0)
			answer(re, 404, "no such queue\n");
		else
			answer(re, 503, "%s\n", spool_strerror(errno));
		return;
	}
	re->type = "application/json";
	json_begin(&j, re->out);
	json_array(&j, "messages");
	for (i = 0; i < n; i++)
		write_message(&j, &messages[i]);
	json_end(&j);
}

static void
answer_page(struct response *re)
{
	static const char hex[] = "0123456789abcdef";
	unsigned char random[(sizeof PAGE_NONCE - 1) / 2];
	const char *at = page_html, *end = page_html + page_len, *next;
	size_t len = sizeof PAGE_NONCE - 1;

	if (os_random(random, sizeof random) == -1) {
		answer(re, 503, "no random number: %s\n", strerror(errno));
		return;
	}
	for (size_t i = 0; i < len; i++)
		re->nonce[i] = hex[random[i / 2] >> (i % 2 * 4) & 15];
	re->type = "text/html; charset=utf-8";
	while ((next = memmem(at, (size_t)(end - at), PAGE_NONCE, len)) != NULL) {
		fwrite(at, 1, (size_t)(next - at), re->out);
		fwrite(re->nonce, 1, len, re->out);
		at = next + len;
	}
	fwrite(at, 1, (size_t)(end - at), re->out);
}

/* What is not there is refused before the spool is looked at. */
static void
answer_path(struct response *re, struct spool *sp, const char *path, const struct options *o)
{
	static const char messages[] = "/messages/";
	bool metrics = strcmp(path, "/metrics") == 0, health = strcmp(path, "/healthz") == 0;
	bool queues = strcmp(path, "/queues.json") == 0;
	bool bodies = o->bodies && strncmp(path, messages, strlen(messages)) == 0;
	struct metrics m;

	if (strcmp(path, "/") == 0) {
		answer_page(re);
	} else if (!metrics && !health && !queues && !bodies) {
		answer(re, 404, "not here\n");
	} else if (glance_open(sp) == -1 || metrics_begin(&m, sp) == -1) {
		answer(re, 503, "the spool: %s\n", spool_strerror(errno));
	} else {
		if (metrics)
			answer_metrics(re, &m);
		else if (health)
			answer_health(re, sp, &m);
		else if (queues)
			answer_queues(re, &m, o);
		else
			answer_messages(re, sp, &m, path + strlen(messages));
		metrics_end(&m);
	}
}

/*
 * The connection
 */

/* A name that leads a browser here must be one that we were told of; addresses cannot be anybody's. */
static bool
host_is_ours(const char *host, const struct options *o)
{
	struct in_addr address;

	if (host[0] == '\0' || host[0] == '[' || strcmp(host, "localhost") == 0 ||
	    inet_pton(AF_INET, host, &address) == 1)
		return true;
	for (int i = 0; i < o->nhosts; i++)
		if (strcasecmp(host, o->hosts[i]) == 0)
			return true;
	return false;
}

/* Wait until something can be read. */
static bool
readable(uint64_t deadline)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

	for (uint64_t now; (now = os_monotonic_ms()) < deadline;) {
		int r = poll(&p, 1, (int)(deadline - now));
		if (r != -1 || errno != EINTR)
			return r == 1;
	}
	return false;
}

/* Returns the status to answer with; 0: nobody wants an answer. */
static int
receive(struct http_request *request)
{
	static char buf[HTTP_HEAD_MAX];
	uint64_t deadline = os_monotonic_ms() + HEAD_MS;
	size_t len = 0;

	for (;;) {
		if (!readable(deadline))
			return len == 0 ? 0 : 408;
		ssize_t n = read(STDIN_FILENO, buf + len, sizeof buf - len);
		if (n == -1 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n == -1 && errno == ENOTCONN)
			die(EXIT_USAGE,
			    "http: standard input must be a connection, not a socket that listens");
		if (n <= 0)
			return len == 0 || n == -1 ? 0 : 400;
		len += (size_t)n;
		int status = http_request_read(buf, len, request);
		if (status != 0)
			return status;
	}
}

static int
write_all(int fd, const char *data, size_t len)
{
	while (len > 0) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		ssize_t n = write(fd, data, len);
		if (n == -1 && errno == EAGAIN)
			poll(&p, 1, -1); /* SIGALRM ends it */
		else if (n == -1 && errno != EINTR)
			return -1;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* A socket that is closed with something unread is reset, which can take the answer with it. */
static void
linger(int fd)
{
	uint64_t deadline = os_monotonic_ms() + LINGER_MS;
	char buf[4096];
	ssize_t n = 1;

	shutdown(fd, SHUT_WR);
	for (size_t sum = 0; n > 0 && sum < LINGER_BYTES && readable(deadline); sum += (size_t)n)
		n = read(fd, buf, sizeof buf);
}

static void
begin_body(struct response *re)
{
	re->body = malloc(BODY_MAX);
	re->out = re->body == NULL ? NULL : fmemopen(re->body, BODY_MAX, "w");
	if (re->out == NULL)
		die_system("memory");
}

static void
end_body(struct response *re)
{
	/* Where it ends nothing is written behind, or a NUL. */
	if (fflush(re->out) == EOF || ftell(re->out) >= BODY_MAX - 1)
		die(EXIT_SYSTEM, "http: the answer is longer than %d bytes", BODY_MAX);
	re->len = (size_t)ftell(re->out);
	fclose(re->out);
}

/* The answer's head, into `buf`. Returns its length. */
static size_t
write_head(const struct response *re, char *buf, size_t size)
{
	time_t now = time(NULL);
	char date[40], policy[400];
	struct tm tm;

	strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
	strcpy(policy, "default-src 'none'; frame-ancestors 'none'");
	if (re->nonce[0] != '\0')
		snprintf(policy, sizeof policy,
		         "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; "
		         "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
		         "frame-ancestors 'none'",
		         re->nonce, re->nonce);
	return (size_t)snprintf(buf, size,
	                        "HTTP/1.1 %d %s\r\n"
	                        "Date: %s\r\n"
	                        "Content-Type: %s\r\n"
	                        "Content-Length: %zu\r\n"
	                        "%s"
	                        "Connection: close\r\n"
	                        "Cache-Control: no-store\r\n"
	                        "Content-Security-Policy: %s\r\n"
	                        "Cross-Origin-Resource-Policy: same-origin\r\n"
	                        "Referrer-Policy: no-referrer\r\n"
	                        "X-Content-Type-Options: nosniff\r\n"
	                        "X-Frame-Options: DENY\r\n"
	                        "\r\n",
	                        re->status, reason_of(re->status), date, re->type, re->len,
	                        re->status == 405 ? "Allow: GET, HEAD\r\n" : "", policy);
}

static void
on_alarm(int sig)
{
	(void)sig;
	_exit(EXIT_SYSTEM);
}

static void
options_arg(struct options *o, int argc, char *argv[])
{
	o->hosts = argv; /* as many as were seen, in place */
	for (int i = 0; i < argc; i++) {
		if (strcmp(argv[i], "--bodies") == 0)
			o->bodies = true;
		else if (strcmp(argv[i], "--host") == 0 && i + 1 < argc)
			o->hosts[o->nhosts++] = argv[++i];
		else
			die(EXIT_USAGE, "http %s: did you mean --bodies, or --host name?", argv[i]);
	}
}

void
http_keep_quiet(void)
{
	struct stat in, err;

	if (fstat(STDIN_FILENO, &in) == 0 && fstat(STDERR_FILENO, &err) == 0 &&
	    S_ISSOCK(in.st_mode) && in.st_dev == err.st_dev && in.st_ino == err.st_ino) {
		close(STDERR_FILENO);
		os_open_standard();
	}
}

int
cmd_http(struct spool *sp, int argc, char *argv[])
{
	struct response re = {.status = 200, .type = "text/plain; charset=utf-8"};
	struct http_request request = {0};
	struct options o = {0};
	struct stat in;
	char head[2048];
	bool is_socket = fstat(STDIN_FILENO, &in) == 0 && S_ISSOCK(in.st_mode);
	int fd = is_socket ? STDIN_FILENO : STDOUT_FILENO;

	options_arg(&o, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_alarm);
	alarm(ALL_S);
	int status = receive(&request);
	if (status == 0)
		return 0;
	begin_body(&re);
	if (status != 200)
		answer(&re, status, "%s\n", reason_of(status));
	else if (!host_is_ours(request.host, &o))
		answer(&re, 421, "%s: not a name of this service: mqctl http --host name\n",
		       request.host);
	else
		answer_path(&re, sp, request.path, &o);
	end_body(&re);
	size_t len = write_head(&re, head, sizeof head);
	int r = write_all(fd, head, len);
	if (r == 0 && !request.head)
		r = write_all(fd, re.body, re.len);
	free(re.body);
	if (is_socket)
		linger(fd);
	return r == 0 || is_socket ? 0 : EXIT_SYSTEM; /* a client may leave */
}
