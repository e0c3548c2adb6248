#include "cli/pattern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pattern_init(struct pattern *pattern, const char *text, char *ret_why, size_t why_size)
{
	int r;

	*pattern = (struct pattern){.text = strdup(text), .literal = text[strcspn(text, "\\^$.[]|()*+?{}")] == '\0'};
	if (!pattern->text)
		return -ENOMEM;
	if (pattern->literal)
		return 0;
	r = regcomp(&pattern->regex, text, REG_EXTENDED);
	if (r == 0)
		return 0;
	regerror(r, &pattern->regex, ret_why, why_size);
	free(pattern->text);
	return r == REG_ESPACE ? -ENOMEM : -EINVAL;
}

void pattern_fini(struct pattern *pattern)
{
	if (pattern->text && !pattern->literal)
		regfree(&pattern->regex);
	free(pattern->text);
	pattern->text = NULL;
}

bool pattern_find(const struct pattern *pattern, const char *text, int flags, size_t *ret_end)
{
	regmatch_t match;

	if (pattern->literal) {
		const char *at = strstr(text, pattern->text);

		if (at)
			*ret_end = (size_t)(at - text) + strlen(pattern->text);
		return at != NULL;
	}
	if (regexec(&pattern->regex, text, 1, &match, flags) != 0)
		return false;
	*ret_end = (size_t)match.rm_eo;
	return true;
}
