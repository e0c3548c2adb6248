#include "loader/elf_note.h"

#include <string.h>

#include "util.h"

enum { NOTE_HEADER_BYTES = 12 }; /* n_namesz, n_descsz, n_type */

bool elf_note_find(const uint8_t *notes, size_t size_bytes, uint64_t align, const char *name, uint32_t type,
		   struct elf_note *ret_note)
{
	uint64_t unit = align == 8 ? 8 : 4;
	size_t want_name_bytes = strlen(name) + 1; /* n_namesz counts the NUL */

	for (uint64_t at = 0; at < size_bytes && size_bytes - at >= NOTE_HEADER_BYTES;) {
		const uint8_t *note = notes + at;
		uint32_t name_bytes = le32_load(note);
		uint32_t desc_bytes = le32_load(note + 4);
		uint64_t desc_at = align_up(NOTE_HEADER_BYTES + (uint64_t)name_bytes, unit);
		if (desc_at + desc_bytes > size_bytes - at)
			return false;
		if (le32_load(note + 8) == type && name_bytes == want_name_bytes &&
		    !memcmp(note + NOTE_HEADER_BYTES, name, want_name_bytes)) {
			*ret_note = (struct elf_note){note + desc_at, desc_bytes};
			return true;
		}
		at += align_up(desc_at + desc_bytes, unit);
	}
	return false;
}
