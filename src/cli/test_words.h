/* Cutting a value into words, as a shell would: '...', "..." and backslashes. Pure. */
#pragma once

#include <stddef.h>

enum { TEST_WORDS_MAX = 4096 };

/*
 * Cut `text` in place: the words follow one another, each with its NUL. 0, or -EINVAL when a quote is not closed (or
 * nothing follows a backslash), or -E2BIG when there are more than TEST_WORDS_MAX.
 */
int test_words_cut(char *text, size_t *ret_count);

/* The word after `word`, which must not be the last. */
const char *test_words_next(const char *word);
