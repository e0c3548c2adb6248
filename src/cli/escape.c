#include "cli/escape.h"

enum { CTRL_A = 'A' & 0x1f };

const char escape_literal_keys[] = "Ctrl-A Ctrl-A";
const char escape_literal_meaning[] = "send one Ctrl-A to the guest";

const struct escape_key escape_keys[] = {
	{"Ctrl-A x", "end the VM at once and leave", 'x', ESCAPE_LEAVE},
	{"Ctrl-A p", "press the power button: a guest that listens shuts down", 'p', ESCAPE_POWER_BUTTON},
	{"Ctrl-A ?", "show the keys", '?', ESCAPE_HELP},
	{0},
};

static void act(struct escape *escape, uint8_t key)
{
	for (const struct escape_key *k = escape_keys; k->keys; k++)
		if (k->key == key)
			escape->act(escape->ctx, k->action);
}

size_t escape_filter(void *ctx, uint8_t *data, size_t size_bytes)
{
	struct escape *escape = ctx;
	size_t kept = 0;

	for (size_t i = 0; i < size_bytes; i++) {
		if (!escape->armed && data[i] == CTRL_A) {
			escape->armed = true;
		} else if (!escape->armed || data[i] == CTRL_A) {
			data[kept++] = data[i];
			escape->armed = false;
		} else {
			escape->armed = false;
			act(escape, data[i]);
		}
	}
	return kept;
}
