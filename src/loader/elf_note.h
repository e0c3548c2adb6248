/* ELF notes in a buffer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_note {
	const uint8_t *desc; /* inside the buffer that was searched */
	uint32_t desc_bytes;
};

/*
 * The first note with this name and type in the contents of a PT_NOTE segment whose p_align is `align` (8, or
 * anything else for 4). A note that does not fit into the buffer ends the search.
 */
bool elf_note_find(const uint8_t *notes, size_t size_bytes, uint64_t align, const char *name, uint32_t type,
		   struct elf_note *ret_note);
