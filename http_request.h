/* http_request.h: the head of an HTTP/1.x request, from bytes. */
#ifndef MQ_HTTP_REQUEST_H
#define MQ_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

#define HTTP_LINE_MAX 2048 /* bytes of the request line, and of any other, without its end */
#define HTTP_HEAD_MAX 8192 /* bytes of all of it */
#define HTTP_HOST_MAX 255

struct http_request {
	bool head;                    /* HEAD: the answer has no body */
	char path[HTTP_LINE_MAX + 1]; /* decoded, begins with a slash; without the query */
	char host[HTTP_HOST_MAX + 1]; /* lower case, without the port; "": none was sent */
};

/*
 * Read the head of a request at `buf`. Returns 0 if it is not whole yet, and nothing is wrong with
 * what is there: more must come, if the other end has more. Else the status to answer with: 200 and
 * *r is filled; or
 *
 *     400  it is no request            405  a method other than GET and HEAD
 *     414  its first line is too long  431  its head, or a line of it, is too long
 *     505  another HTTP than 1.x
 *
 * of which r->head alone is set. What follows the head is not looked at.
 */
int http_request_read(const char *buf, size_t len, struct http_request *r);

#endif
