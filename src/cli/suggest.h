/* "Did you mean": the nearest of a set of names, when one is near enough to be a slip of the hand. */
#pragma once

#include <stddef.h>

struct suggest {
	const char *word; /* what was typed; need not end in NUL */
	size_t length;
	const char *best; /* NULL: none is near */
	size_t distance;
};

void suggest_init(struct suggest *suggest, const char *word, size_t length);
void suggest_consider(struct suggest *suggest, const char *name);
