#include "cli/test_words.h"

#include <errno.h>
#include <string.h>

struct cutter {
	const char *from;
	char *to; /* never ahead of `from`: a word is at most as long as what it was written as, with a space after */
};

static const char *skip_blanks(const char *at)
{
	return at + strspn(at, " \t");
}

/* `from` is behind the opening quote. In "...", a backslash quotes itself and the quote; in '...', nothing. */
static int copy_quoted(struct cutter *cutter, char quote)
{
	while (*cutter->from != quote) {
		if (*cutter->from == '\0')
			return -EINVAL;
		if (quote == '"' && *cutter->from == '\\' && (cutter->from[1] == '"' || cutter->from[1] == '\\'))
			cutter->from++;
		*cutter->to++ = *cutter->from++;
	}
	cutter->from++;
	return 0;
}

static int copy_word(struct cutter *cutter)
{
	while (*cutter->from != '\0' && *cutter->from != ' ' && *cutter->from != '\t') {
		char c = *cutter->from++;

		if (c == '"' || c == '\'') {
			if (copy_quoted(cutter, c) < 0)
				return -EINVAL;
			continue;
		}
		if (c == '\\') {
			if (*cutter->from == '\0')
				return -EINVAL;
			c = *cutter->from++;
		}
		*cutter->to++ = c;
	}
	return 0;
}

int test_words_cut(char *text, size_t *ret_count)
{
	struct cutter cutter = {.from = skip_blanks(text), .to = text};
	size_t count = 0;

	while (*cutter.from != '\0') {
		if (count == TEST_WORDS_MAX)
			return -E2BIG;
		if (copy_word(&cutter) < 0)
			return -EINVAL;
		cutter.from = skip_blanks(cutter.from);
		if (*cutter.from == '\0') { /* before the NUL is written, perhaps over it */
			*cutter.to = '\0';
			count++;
			break;
		}
		*cutter.to++ = '\0';
		count++;
	}
	if (count == 0)
		*text = '\0';
	*ret_count = count;
	return 0;
}

const char *test_words_next(const char *word)
{
	return word + strlen(word) + 1;
}
