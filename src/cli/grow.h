/* Arrays that grow by doubling, without a capacity of their own: it is the next power of two. */
#pragma once

#include <stddef.h>

/*
 * The allocated `array` (NULL: empty) of `count` elements with room for one more, or NULL when there is no memory; then
 * the array is as it was. All that was ever added must have come through here.
 */
void *grow(void *array, size_t count, size_t element_bytes);
