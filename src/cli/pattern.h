/* An extended regular expression of libc; one without special characters is found faster. */
#pragma once

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>

struct pattern {
	char *text; /* allocated */
	regex_t regex;
	bool literal; /* then `regex` is unused */
};

/* 0, -ENOMEM, or -EINVAL with why in `ret_why`. */
int pattern_init(struct pattern *pattern, const char *text, char *ret_why, size_t why_size);
void pattern_fini(struct pattern *pattern);

/* Find it in `text`; regexec's REG_NOTBOL and REG_NOTEOL. True with the offset behind the match. */
bool pattern_find(const struct pattern *pattern, const char *text, int flags, size_t *ret_end);
