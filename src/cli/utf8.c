#include "cli/utf8.h"

#include <stdbool.h>

static size_t length_of(unsigned char first)
{
	if (first < 0x80)
		return 1;
	if (first >= 0xc2 && first <= 0xdf)
		return 2;
	if (first >= 0xe0 && first <= 0xef)
		return 3;
	return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

/* Not longer than need be, not a surrogate, in Unicode's range. */
static bool is_character(uint32_t c, size_t length)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	return c >= least[length] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
}

size_t utf8_decode(const char *text, size_t size_bytes, uint32_t *ret_character)
{
	const unsigned char *bytes = (const unsigned char *)text;
	size_t length = length_of(bytes[0]);
	uint32_t c = bytes[0];

	if (length == 0 || length > size_bytes)
		return 0;
	if (length > 1)
		c &= 0x7fu >> length;
	for (size_t i = 1; i < length; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (bytes[i] & 0x3f);
	}
	if (!is_character(c, length))
		return 0;
	*ret_character = c;
	return length;
}
