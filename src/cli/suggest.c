#include "cli/suggest.h"

#include <string.h>

enum { WORD_MAX = 32, DISTANCE_MAX = 2 };

static size_t min3(size_t a, size_t b, size_t c)
{
	size_t ab = a < b ? a : b;

	return ab < c ? ab : c;
}

/* How many characters to insert, remove, change or swap with their neighbour; both words at most WORD_MAX long. */
static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	size_t rows[WORD_MAX + 1][WORD_MAX + 1];

	for (size_t i = 0; i <= a_length; i++)
		rows[i][0] = i;
	for (size_t j = 0; j <= b_length; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= a_length; i++) {
		for (size_t j = 1; j <= b_length; j++) {
			size_t changed = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			rows[i][j] = min3(rows[i - 1][j] + 1, rows[i][j - 1] + 1, changed);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				rows[i][j] = min3(rows[i][j], rows[i - 2][j - 2] + 1, rows[i][j]);
		}
	}
	return rows[a_length][b_length];
}

void suggest_init(struct suggest *suggest, const char *word, size_t length)
{
	*suggest = (struct suggest){.word = word, .length = length, .distance = DISTANCE_MAX + 1};
}

void suggest_consider(struct suggest *suggest, const char *name)
{
	size_t length = strlen(name);
	size_t distance;

	if (suggest->length > WORD_MAX || length > WORD_MAX)
		return;
	distance = edit_distance(suggest->word, suggest->length, name, length);
	/* Half a word of slips is another word. */
	if (distance >= suggest->distance || distance * 2 > length)
		return;
	suggest->best = name;
	suggest->distance = distance;
}
