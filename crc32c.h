/* crc32c.h: CRC-32C, the checksum of a message file. */
#ifndef MQ_CRC32C_H
#define MQ_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), as in RFC 3720, appendix B.4.
 * `crc` is 0 for the first piece and the last result for each that follows.
 * Returns the checksum of all bytes so far.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
