#include "cli/grow.h"

#include <stdlib.h>

void *grow(void *array, size_t count, size_t element_bytes)
{
	size_t bytes;

	if (count != 0 && (count & (count - 1)) != 0)
		return array;
	if (__builtin_mul_overflow(count ? count * 2 : 1, element_bytes, &bytes))
		return NULL;
	return realloc(array, bytes);
}
