/* UTF-8 (RFC 3629). Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { UTF8_SIZE_MAX = 4 };

/* How many of the `size_bytes` bytes (at least 1) the character at their beginning has; 0: they begin with none. */
size_t utf8_decode(const char *text, size_t size_bytes, uint32_t *ret_character);
