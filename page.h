/* page.h: page.html, which the Makefile makes an array of. */
#ifndef MQ_PAGE_H
#define MQ_PAGE_H

#include <stddef.h>

extern const char page_html[];
extern const size_t page_len;

/* What stands in it where a response has its own random number, as many digits. */
#define PAGE_NONCE "00000000000000000000000000000000"

#endif
